//! Networks on NVIDIA GPUs.

mod libraries;

use anyhow::{Result, bail, ensure};
use cudarc::driver::result;
use dfdx::prelude::*;

use super::composed::ComposedBackend;
use super::device_error::{catch_device_panics, device_error};

/// Returns whether this process can use a GPU.
pub(super) fn is_available() -> bool {
    let count = || result::init().and_then(|()| result::device::get_count());
    libraries::load_driver().is_ok() && matches!(count(), Ok(1..))
}

/// Creates a backend with the composed operations on GPU `index` of those visible to this process.
pub(super) fn open(index: usize, graph: super::Graph) -> Result<ComposedBackend<Cuda>> {
    libraries::load()?;
    catch_device_panics(|| {
        // cudarc's errors can't be printed if the driver is unusable.
        let count = result::init().and_then(|()| result::device::get_count());
        let count = count.map_err(|error| device_error(error.0))?;
        let exists = usize::try_from(count).is_ok_and(|count| index < count);
        ensure!(exists, "device cuda:{index} does not exist: this process sees {count} GPUs, numbered from 0");
        let device = Cuda::try_build(index, 0).map_err(device_error)?;
        // Run a kernel to check that the driver accepts the kernels in this binary.
        let two = (device.tensor([1.0f32]) + 1.0).as_vec();
        if two != [2.0] {
            bail!("GPU {index} is defective: it computed 1 + 1 = {}", two[0]);
        }
        let (free, _) = result::mem_get_info().map_err(|error| device_error(error.0))?;
        Ok(ComposedBackend::new(graph, device)?.with_memory(free as u64))
    })
}
