//! What goes wrong on a device, as errors that say what to do.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Once;

use anyhow::{Result, anyhow};

/// The device has no memory left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the GPU is out of memory")
    }
}

impl std::error::Error for OutOfMemory {}

/// dfdx's errors print and nothing else; here they become errors with a cause.
pub(crate) fn device_error<E: fmt::Debug>(error: E) -> anyhow::Error {
    let text = format!("{error:?}");
    parse_cuda_error(&text).unwrap_or_else(|| anyhow!("the device failed: {text}"))
}

/// The error that a text of the CUDA libraries' tells of.
fn parse_cuda_error(text: &str) -> Option<anyhow::Error> {
    if text.contains("CUBLAS_STATUS_ALLOC_FAILED") {
        return Some(OutOfMemory.into());
    }
    // cuBLAS starts before any kernel does, and says no more of a driver that is too old for it.
    if text.contains("CUBLAS_STATUS_NOT_INITIALIZED") {
        return Some(anyhow!(
            "cuBLAS does not start: most often the NVIDIA driver is older than it (CUDA 13 needs 580 or newer, CUDA 12 needs \
             525), or the GPU has no memory left; see `nvidia-smi`"
        ));
    }
    if text.contains("CUBLAS_STATUS_ARCH_MISMATCH") {
        return Some(anyhow!("this GPU is too old for the cuBLAS that was found: use that of an older CUDA toolkit"));
    }
    let code = &text[text.find("CUDA_ERROR_")? + "CUDA_ERROR_".len()..];
    let code = &code[..code.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(code.len())];
    let sentence = match code {
        "OUT_OF_MEMORY" => return Some(OutOfMemory.into()),
        "NO_DEVICE" => {
            "there is no NVIDIA GPU, or none that this process may use: see `nvidia-smi` and CUDA_VISIBLE_DEVICES, or say \
             `--device cpu`"
        }
        "INVALID_DEVICE" => "there is no GPU of this number: see `nvidia-smi` and CUDA_VISIBLE_DEVICES",
        "STUB_LIBRARY" => {
            "the libcuda.so.1 that was found is the stub of a toolkit, not the driver's: take the stub's folder out of \
             LD_LIBRARY_PATH"
        }
        "UNSUPPORTED_PTX_VERSION" => {
            "the NVIDIA driver is older than the CUDA toolkit that srpipe was built with: update the driver (CUDA 13 needs \
             580 or newer, CUDA 12 needs 525), or build srpipe with the toolkit of the driver's age"
        }
        "SYSTEM_DRIVER_MISMATCH" | "COMPAT_NOT_SUPPORTED_ON_DEVICE" => {
            "the NVIDIA driver's parts do not belong together: after an update of the driver the machine must be started \
             again; see `nvidia-smi`"
        }
        "NO_BINARY_FOR_GPU" | "INVALID_PTX" => {
            "srpipe was built for a newer kind of GPU than this one: build it again with CUDA_COMPUTE_CAP set to what \
             `nvidia-smi --query-gpu=compute_cap --format=csv` tells, without the dot"
        }
        "DEVICE_UNAVAILABLE" => "another process has the GPU to itself",
        _ => return Some(anyhow!("the GPU failed: CUDA_ERROR_{code}")),
    };
    Some(anyhow!(sentence))
}

/// Calls what works on a device. Most operations of dfdx's panic where the device fails; that becomes an error.
pub fn catch_device_panics<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    static QUIET: Once = Once::new();
    // What becomes an error is told as one.
    QUIET.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if parse_cuda_error(panic_message(panic.payload())).is_none() {
                others(panic);
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

    /// As `Result::unwrap` says it in dfdx.
    fn unwrapped(error: &str) -> Result<()> {
        catch_device_panics(|| panic!("called `Result::unwrap()` on an `Err` value: {error}"))
    }

    #[test]
    fn what_dfdx_panics_with_is_an_error() {
        let error = unwrapped("Driver(DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\"))").unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&OutOfMemory));
        let error = unwrapped("Blas(CublasError(CUBLAS_STATUS_ALLOC_FAILED))").unwrap_err();
        assert!(error.is::<OutOfMemory>());
        let error = unwrapped("Blas(CublasError(CUBLAS_STATUS_NOT_INITIALIZED))").unwrap_err();
        assert!(error.to_string().contains("driver is older"), "{error}");
        let error = unwrapped("DriverError(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, \"?\")").unwrap_err();
        assert!(error.to_string().contains("update the driver"), "{error}");
        let error = unwrapped("DriverError(CUDA_ERROR_NO_BINARY_FOR_GPU, \"?\")").unwrap_err();
        assert!(error.to_string().contains("CUDA_COMPUTE_CAP"), "{error}");
        let error = unwrapped("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"?\")").unwrap_err();
        assert_eq!(error.to_string(), "the GPU failed: CUDA_ERROR_ILLEGAL_ADDRESS");
    }

    #[test]
    fn other_panics_go_on_and_other_errors_stay() {
        assert!(catch_unwind(|| catch_device_panics::<()>(|| panic!("a bug"))).is_err());
        assert_eq!(catch_device_panics::<()>(|| Err(anyhow!("no"))).unwrap_err().to_string(), "no");
        assert_eq!(catch_device_panics(|| Ok(3)).unwrap(), 3);
    }

    #[test]
    fn errors_of_devices_are_known_too() {
        #[derive(Debug)]
        #[allow(dead_code)]
        enum Error {
            Driver(&'static str),
        }
        assert!(device_error(Error::Driver("CUDA_ERROR_OUT_OF_MEMORY")).is::<OutOfMemory>());
        assert_eq!(device_error(Error::Driver("x")).to_string(), "the device failed: Driver(\"x\")");
    }
}
