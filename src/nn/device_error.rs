//! Turns device failures into errors that name a remedy.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Once;

use anyhow::{Result, anyhow};

/// The error of a device that is out of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the GPU is out of memory")
    }
}

impl std::error::Error for OutOfMemory {}

/// Converts an error of dfdx, which only implements `Debug`, to an error with a readable message.
pub(super) fn device_error<E: fmt::Debug>(error: E) -> anyhow::Error {
    let text = format!("{error:?}");
    parse_cuda_error(&text).unwrap_or_else(|| anyhow!("the device failed: {text}"))
}

/// Returns the error of the CUDA driver or of cuBLAS that a message contains; `None` if it contains none.
fn parse_cuda_error(text: &str) -> Option<anyhow::Error> {
    if text.contains("CUBLAS_STATUS_ALLOC_FAILED") {
        return Some(OutOfMemory.into());
    }
    // cuBLAS is initialised before any kernel is launched, so an outdated driver first causes this error, which has no
    // details.
    if text.contains("CUBLAS_STATUS_NOT_INITIALIZED") {
        return Some(anyhow!(
            "cuBLAS failed to start: usually the NVIDIA driver is too old for it (CUDA 13 needs 580 or newer, CUDA 12 needs \
             525), or the GPU has no memory left; see `nvidia-smi`"
        ));
    }
    if text.contains("CUBLAS_STATUS_ARCH_MISMATCH") {
        return Some(anyhow!("this GPU is too old for the installed cuBLAS: use one from an older CUDA toolkit"));
    }
    let code = &text[text.find("CUDA_ERROR_")? + "CUDA_ERROR_".len()..];
    let code = &code[..code.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(code.len())];
    let message = match code {
        "OUT_OF_MEMORY" => return Some(OutOfMemory.into()),
        "NO_DEVICE" => {
            "no NVIDIA GPU is available to this process: check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use \
             `--device cpu`"
        }
        "INVALID_DEVICE" => "there is no GPU with this number: check `nvidia-smi` and CUDA_VISIBLE_DEVICES",
        "STUB_LIBRARY" => {
            "the libcuda.so.1 that was found is a stub of the CUDA toolkit, not the driver: remove the stub's folder from \
             LD_LIBRARY_PATH"
        }
        "UNSUPPORTED_PTX_VERSION" => {
            "the NVIDIA driver is older than the CUDA toolkit that srpipe was built with: update the driver (CUDA 13 needs \
             580 or newer, CUDA 12 needs 525), or build srpipe with a toolkit that matches the driver"
        }
        "SYSTEM_DRIVER_MISMATCH" | "COMPAT_NOT_SUPPORTED_ON_DEVICE" => {
            "the components of the NVIDIA driver have different versions: restart the machine after a driver \
             update; check `nvidia-smi`"
        }
        "NO_BINARY_FOR_GPU" | "INVALID_PTX" => {
            "srpipe was built for a newer GPU architecture: rebuild it with CUDA_COMPUTE_CAP set to the output of \
             `nvidia-smi --query-gpu=compute_cap --format=csv,noheader`, without the dot"
        }
        "DEVICE_UNAVAILABLE" => "another process has exclusive use of the GPU",
        _ => return Some(anyhow!("the GPU failed: CUDA_ERROR_{code}")),
    };
    Some(anyhow!(message))
}

/// Runs `call`, which uses a device, and turns panics about device failures into errors: most operations of dfdx panic
/// if the device fails.
pub(super) fn catch_device_panics<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    static QUIET: Once = Once::new();
    // Panics that become errors must not print a backtrace as well.
    QUIET.call_once(|| {
        let previous_hook = take_hook();
        set_hook(Box::new(move |panic| {
            if parse_cuda_error(panic_message(panic.payload())).is_none() {
                previous_hook(panic);
            }
        }));
    });
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| match parse_cuda_error(panic_message(&*panic)) {
        Some(error) => Err(error),
        None => resume_unwind(panic),
    })
}

fn panic_message(panic: &dyn Any) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics with the message of `Result::unwrap` in dfdx.
    fn unwrapped(error: &str) -> Result<()> {
        catch_device_panics(|| panic!("called `Result::unwrap()` on an `Err` value: {error}"))
    }

    #[test]
    fn device_panics_become_errors() {
        let error = unwrapped("Driver(DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\"))").unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&OutOfMemory));
        let error = unwrapped("Blas(CublasError(CUBLAS_STATUS_ALLOC_FAILED))").unwrap_err();
        assert!(error.is::<OutOfMemory>());
        let error = unwrapped("Blas(CublasError(CUBLAS_STATUS_NOT_INITIALIZED))").unwrap_err();
        assert!(error.to_string().contains("driver is too old"), "{error}");
        let error = unwrapped("DriverError(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, \"?\")").unwrap_err();
        assert!(error.to_string().contains("update the driver"), "{error}");
        let error = unwrapped("DriverError(CUDA_ERROR_NO_BINARY_FOR_GPU, \"?\")").unwrap_err();
        assert!(error.to_string().contains("CUDA_COMPUTE_CAP"), "{error}");
        let error = unwrapped("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"?\")").unwrap_err();
        assert_eq!(error.to_string(), "the GPU failed: CUDA_ERROR_ILLEGAL_ADDRESS");
    }

    #[test]
    fn other_panics_and_errors_are_passed_through() {
        assert!(catch_unwind(|| catch_device_panics::<()>(|| panic!("a bug"))).is_err());
        assert_eq!(catch_device_panics::<()>(|| Err(anyhow!("no"))).unwrap_err().to_string(), "no");
        assert_eq!(catch_device_panics(|| Ok(3)).unwrap(), 3);
    }

    #[test]
    fn device_errors_are_recognised() {
        #[derive(Debug)]
        #[allow(dead_code)]
        enum Error {
            Driver(&'static str),
        }
        assert!(device_error(Error::Driver("CUDA_ERROR_OUT_OF_MEMORY")).is::<OutOfMemory>());
        assert_eq!(device_error(Error::Driver("x")).to_string(), "the device failed: Driver(\"x\")");
    }
}
