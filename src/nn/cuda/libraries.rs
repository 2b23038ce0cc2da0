//! Loads CUDA's libraries at run time, when a network needs a GPU. The same binary runs on the CPU on machines without
//! them.
//!
//! Every CUDA function that dfdx calls is defined here, as a jump to the loaded library's function. So the binary links
//! and starts without the libraries.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use anyhow::{Context, Result};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// A library function and its address, once it is loaded.
struct Function {
    name: &'static str,
    address: &'static AtomicPtr<c_void>,
}

/// Replaces functions that are not loaded. Returns a value that is an error code in every library.
extern "C" fn missing_function() -> i32 {
    3
}

macro_rules! functions {
    ($list:ident: $($name:ident)*) => {
        #[allow(non_upper_case_globals)]
        mod $list {
            use super::*;

            $(
                pub static $name: AtomicPtr<c_void> = AtomicPtr::new(missing_function as extern "C" fn() -> i32 as *mut c_void);

                #[cfg(target_arch = "x86_64")]
                std::arch::global_asm!(
                    concat!(".globl ", stringify!($name)),
                    concat!(".type ", stringify!($name), ", @function"),
                    concat!(stringify!($name), ":"),
                    "jmp qword ptr [rip + {address}]",
                    address = sym $name,
                );
                #[cfg(target_arch = "aarch64")]
                std::arch::global_asm!(
                    concat!(".globl ", stringify!($name)),
                    concat!(".type ", stringify!($name), ", %function"),
                    concat!(stringify!($name), ":"),
                    "adrp x16, {address}",
                    "ldr x16, [x16, :lo12:{address}]",
                    "br x16",
                    address = sym $name,
                );
            )*

            #[allow(dead_code)] // of libraries that are never loaded
            pub static ALL: &[Function] = &[$(Function { name: stringify!($name), address: &$name }),*];
        }
    };
}

functions!(driver:
    cuCtxSetCurrent cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount cuDevicePrimaryCtxRelease_v2
    cuDevicePrimaryCtxRetain cuEventCreate cuEventDestroy_v2 cuEventRecord cuGetErrorName cuGetErrorString cuInit
    cuLaunchKernel cuMemAllocAsync cuMemAlloc_v2 cuMemFreeAsync cuMemFree_v2 cuMemGetInfo_v2 cuMemcpyDtoDAsync_v2
    cuMemcpyDtoD_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoH_v2 cuMemcpyHtoDAsync_v2 cuMemcpyHtoD_v2 cuMemsetD8Async
    cuMemsetD8_v2 cuModuleGetFunction cuModuleLoad cuModuleLoadData cuModuleUnload cuStreamCreate cuStreamDestroy_v2
    cuStreamSynchronize cuStreamWaitEvent);

functions!(blas:
    cublasCreate_v2 cublasDestroy_v2 cublasSetStream_v2 cublasSgemmStridedBatched cublasSgemm_v2);

// Never loaded: srpipe compiles no kernels at run time.
functions!(compiler:
    nvrtcCompileProgram nvrtcCreateProgram nvrtcDestroyProgram nvrtcGetPTX nvrtcGetPTXSize nvrtcGetProgramLog
    nvrtcGetProgramLogSize);

/// Loads the driver; later calls return the result of the first.
pub(super) fn load_driver() -> Result<()> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let load = || {
        load_functions(&["libcuda.so.1"], driver::ALL).context(
            "the NVIDIA driver is missing or too old: its library libcuda.so.1 cannot be loaded. Install \
             a current driver, or use `--device cpu`",
        )
    };
    LOADED.get_or_init(|| load().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

/// Loads the driver and cuBLAS; later calls return the result of the first.
pub fn load() -> Result<()> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    load_driver()?;
    let load = || {
        load_functions(&["libcublas.so.13", "libcublas.so.12"], blas::ALL).context(
            "cuBLAS cannot be loaded: install the libraries of the CUDA toolkit, and add their folder to LD_LIBRARY_PATH or \
             set CUDA_PATH to the toolkit's folder",
        )
    };
    LOADED.get_or_init(|| load().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

/// Loads the first available library of `names` and looks up its functions.
fn load_functions(names: &[&str], functions: &[Function]) -> Result<()> {
    let mut problem = None;
    let candidates = names.iter().flat_map(|name| candidate_paths(name));
    let library = candidates.into_iter().find_map(|path| match open(&path) {
        Ok(library) => Some(library),
        Err(error) => {
            problem.get_or_insert(error);
            None
        }
    });
    let Some(library) = library else { return Err(problem.context("no library names were given")?.into()) };
    for function in functions {
        // SAFETY: the address is used as the function that the library exports under this name.
        match unsafe { library.get::<*mut c_void>(function.name.as_bytes()) } {
            Ok(found) => function.address.store(*found, Relaxed),
            Err(error) => {
                return Err(
                    anyhow::Error::from(error).context(format!("the library lacks the function {}", function.name))
                );
            }
        }
    }
    // Keep the library loaded until the process exits.
    std::mem::forget(library);
    Ok(())
}

fn open(path: &Path) -> Result<Library, libloading::Error> {
    // SAFETY: NVIDIA's libraries can be loaded at any time.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }
}

/// Returns the paths to try for a library: its bare name, which the system searches for, then folders of CUDA toolkits.
fn candidate_paths(name: &str) -> Vec<PathBuf> {
    let toolkit = std::env::var_os("CUDA_PATH").map(PathBuf::from);
    let folders = toolkit.into_iter().chain(["/usr/local/cuda".into()]);
    let inside = folders.flat_map(|folder| ["lib64", "lib"].map(|lib| folder.join(lib).join(name)));
    std::iter::once(PathBuf::from(name)).chain(inside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_looked_up_and_missing_ones_are_reported() {
        static ADDRESS: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
        load_functions(&["none.so.7", "libc.so.6"], &[Function { name: "getpid", address: &ADDRESS }]).unwrap();
        assert!(!ADDRESS.load(Relaxed).is_null());
        let error = load_functions(&["libc.so.6"], &[Function { name: "cuInit", address: &ADDRESS }]).unwrap_err();
        assert!(error.to_string().contains("lacks the function cuInit"), "{error}");
        let error = load_functions(&["none.so.7"], &[]).unwrap_err();
        assert!(format!("{error:#}").contains("none.so.7"), "{error:#}");
    }
}
