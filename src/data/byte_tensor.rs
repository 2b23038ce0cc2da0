//! Safetensors files of one tensor of bytes, with strings in the header.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

/// The strings of a safetensors header.
pub type Metadata = BTreeMap<String, String>;

/// A file's bytes, a function of header and data alone. (The safetensors crate keeps metadata in a hash map, and so
/// writes it in a new order every time.)
pub fn write(header: &impl Serialize, data: &[u8]) -> Vec<u8> {
    let mut header = serde_json::to_vec(header).expect("strings and integers are valid JSON");
    // The format aligns its data at eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = Vec::with_capacity(8 + header.len() + data.len());
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    bytes.extend(data);
    bytes
}

/// The shape and the data of the u8 tensor `name`, with the file's metadata. `axes`: what its shape should be, for errors.
pub fn read<'a, const N: usize>(bytes: &'a [u8], name: &str, axes: &str) -> Result<([usize; N], &'a [u8], Metadata)> {
    let (_, header) = SafeTensors::read_metadata(bytes).with_context(|| format!("reading the header of {name}"))?;
    let file = SafeTensors::deserialize(bytes).with_context(|| format!("reading {name} from safetensors"))?;
    let Ok(tensor) = file.tensor(name) else {
        bail!("the safetensors file has no tensor `{name}`; it has: {}", file.names().join(", "));
    };
    ensure!(tensor.dtype() == Dtype::U8, "tensor `{name}` is {:?}; {name} are U8", tensor.dtype());
    let Ok(shape) = <[usize; N]>::try_from(tensor.shape()) else {
        bail!("tensor `{name}` has shape {:?}; {name} are {axes}", tensor.shape());
    };
    let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok((shape, tensor.data(), metadata))
}
