//! Safetensors files with one u8 tensor and strings in the header.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

/// The strings in a safetensors header.
pub type Metadata = BTreeMap<String, String>;

/// Serialises a file. The bytes depend only on the header and the data. (The safetensors crate stores metadata in a
/// hash map, so its order varies.)
pub(super) fn write(header: &impl Serialize, data: &[u8]) -> Vec<u8> {
    let mut header = serde_json::to_vec(header).expect("strings and integers are valid JSON");
    // The format aligns data to eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = Vec::with_capacity(8 + header.len() + data.len());
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    bytes.extend(data);
    bytes
}

/// Returns the shape and data of the u8 tensor `name`, and the file's metadata. `axes` describes the expected shape in
/// error messages.
pub(super) fn read<'a, const N: usize>(
    bytes: &'a [u8],
    name: &str,
    axes: &str,
) -> Result<([usize; N], &'a [u8], Metadata)> {
    let (_, header) = SafeTensors::read_metadata(bytes).with_context(|| format!("reading the header of {name}"))?;
    let file = SafeTensors::deserialize(bytes).with_context(|| format!("reading {name} from safetensors"))?;
    let Ok(tensor) = file.tensor(name) else {
        bail!("the safetensors file has no tensor `{name}`; it has: {}", file.names().join(", "));
    };
    ensure!(tensor.dtype() == Dtype::U8, "expected tensor `{name}` to be U8, found {:?}", tensor.dtype());
    let Ok(shape) = <[usize; N]>::try_from(tensor.shape()) else {
        bail!("expected tensor `{name}` to have shape {axes}, found {:?}", tensor.shape());
    };
    let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok((shape, tensor.data(), metadata))
}
