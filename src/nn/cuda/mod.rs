//! Networks on NVIDIA's GPUs.

mod libraries;

use anyhow::{Result, bail, ensure};
use cudarc::driver::result;
use dfdx::prelude::*;

use super::composed::ComposedBackend;
use super::device_error::{catch_device_panics, device_error};

/// Whether the driver has a GPU for this process.
pub fn is_available() -> bool {
    let count = || result::init().and_then(|()| result::device::get_count());
    libraries::load_driver().is_ok() && matches!(count(), Ok(1..))
}

/// The composed operations on GPU `index` of those that this process may use.
pub fn open(index: usize, graph: super::Graph) -> Result<ComposedBackend<Cuda>> {
    libraries::load()?;
    catch_device_panics(|| {
        // cudarc's errors can't print themselves where the driver fails altogether.
        let count = result::init().and_then(|()| result::device::get_count());
        let count = count.map_err(|error| device_error(error.0))?;
        let exists = usize::try_from(count).is_ok_and(|count| index < count);
        ensure!(exists, "device cuda:{index}: this process may use GPUs below cuda:{count}");
        let device = Cuda::try_build(index, 0).map_err(device_error)?;
        // A first kernel tells whether the driver takes what the binary brings.
        let two = (device.tensor([1.0f32]) + 1.0).as_vec();
        if two != [2.0] {
            bail!("GPU {index} computes 1 + 1 = {}", two[0]);
        }
        let (free, _) = result::mem_get_info().map_err(|error| device_error(error.0))?;
        Ok(ComposedBackend::new(graph, device)?.with_memory(free as u64))
    })
}
