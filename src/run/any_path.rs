//! Serialises paths in JSON, including those that are not UTF-8: as a string if possible, otherwise as the list of
//! their bytes. Use with `#[serde(with = "any_path")]`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SerializedPath {
    Text(String),
    Bytes(Vec<u8>),
}

pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    let serialized = match path.to_str() {
        Some(text) => SerializedPath::Text(text.to_string()),
        None => SerializedPath::Bytes(path.as_os_str().as_bytes().to_vec()),
    };
    serialized.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Ok(match SerializedPath::deserialize(deserializer)? {
        SerializedPath::Text(text) => text.into(),
        SerializedPath::Bytes(bytes) => OsString::from_vec(bytes).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Holder(#[serde(with = "super")] PathBuf);

    #[test]
    fn paths_round_trip() {
        for (bytes, json) in [(&b"/a/\xc3\xbc"[..], "\"/a/ü\""), (b"/a\xff", "[47,97,255]"), (b"", "\"\"")] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let text = serde_json::to_string(&Holder(path.clone())).unwrap();
            assert_eq!(text, json);
            assert_eq!(serde_json::from_str::<Holder>(&text).unwrap().0, path);
        }
    }
}
