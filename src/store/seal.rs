//! Checksums in files that srpipe reads back and trusts: records, caches, state of interrupted work.
//!
//! A sealed file is a JSON object whose last member is `"sha256"`, the SHA-256 of every byte before that member:
//!
//! ```text
//! {"step": 3, "loss": 0.5,
//! "sha256": "<64 hexadecimal digits>"}
//! ```
//!
//! A single altered byte changes the digest or breaks the seal itself; it never gives another value. Files of older
//! versions have no seal; the reader gets a [`Seal`] and decides whether to accept them.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Digest;

const MEMBER: &[u8] = b",\n\"sha256\": \"";
const END: &[u8] = b"\"}\n";
const YAML_COMMENT: &[u8] = b"\n# sha256: ";
const MISMATCH: &str = "its content does not match its checksum";

/// Why a sealed file is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage(String);

impl Damage {
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damage {}

/// Whether a file carries a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// It has one, and the content matches.
    Intact,
    /// It has none: an older version wrote it.
    None,
}

/// Serialises `value`, a struct with at least one field, as a sealed JSON object.
pub fn seal(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    Ok(append_seal(serde_json::to_vec(value)?))
}

/// Like [`seal`], with one member per line.
pub fn seal_pretty(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    Ok(append_seal(serde_json::to_vec_pretty(value)?))
}

fn append_seal(mut json: Vec<u8>) -> Vec<u8> {
    assert_eq!(json.pop(), Some(b'}'), "only objects are sealed");
    json.truncate(json.trim_ascii_end().len());
    let digest = Digest::of(&json);
    json.extend([MEMBER, digest.as_str().as_bytes(), END].concat());
    json
}

/// Reads a sealed JSON object, or one without a seal. `T` ignores the member `sha256`.
pub fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Seal), Damage> {
    let seal = check_seal(bytes)?;
    let value = serde_json::from_slice(bytes).map_err(|error| Damage(format!("it cannot be parsed: {error}")))?;
    Ok((value, seal))
}

fn check_seal(bytes: &[u8]) -> Result<Seal, Damage> {
    match split(bytes, MEMBER, END) {
        None => Ok(Seal::None),
        Some((body, stated)) if Digest::of(body).as_str().as_bytes() == stated => Ok(Seal::Intact),
        Some(_) => Err(Damage(MISMATCH.to_string())),
    }
}

/// Splits a file into its body and the digest in the seal at its end.
fn split<'a>(bytes: &'a [u8], before: &[u8], after: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (body, tail) = bytes.split_at_checked(bytes.len().checked_sub(before.len() + 64 + after.len())?)?;
    Some((body, tail.strip_prefix(before)?.strip_suffix(after)?))
}

/// Seals a YAML text with a comment as the last line.
pub fn seal_yaml(text: &[u8]) -> Vec<u8> {
    let digest = Digest::of(text);
    [text, YAML_COMMENT, digest.as_str().as_bytes(), b"\n"].concat()
}

/// Returns the text that [`seal_yaml`] sealed, or a text without a seal.
pub fn unseal_yaml(bytes: &[u8]) -> Result<&[u8], Damage> {
    match split(bytes, YAML_COMMENT, b"\n") {
        None => Ok(bytes),
        Some((body, stated)) if Digest::of(body).as_str().as_bytes() == stated => Ok(body),
        Some(_) => Err(Damage(MISMATCH.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Record {
        name: String,
        values: Vec<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    }

    fn record() -> Record {
        Record { name: "a".to_string(), values: vec![0.5, 1e9, -3.0], note: None }
    }

    #[test]
    fn sealed_files_round_trip_and_are_json() {
        for bytes in [seal(&record()).unwrap(), seal_pretty(&record()).unwrap()] {
            assert_eq!(unseal(&bytes), Ok((record(), Seal::Intact)));
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(value["sha256"].as_str().unwrap().len(), 64);
        }
        let old = serde_json::to_vec(&record()).unwrap();
        assert_eq!(unseal(&old), Ok((record(), Seal::None)));
    }

    #[test]
    fn sealed_yaml_is_yaml_and_altered_bytes_are_detected() {
        let text = b"name: a\nstages: {}\n";
        let bytes = seal_yaml(text);
        assert_eq!(unseal_yaml(&bytes), Ok(&text[..]));
        assert_eq!(unseal_yaml(text), Ok(&text[..]));
        let parse = |bytes: &[u8]| serde_yaml::from_slice::<serde_yaml::Value>(bytes).ok();
        assert_eq!(parse(&bytes), parse(text));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut altered = bytes.clone();
                altered[at] ^= 1 << bit;
                if let Ok(body) = unseal_yaml(&altered) {
                    // A broken seal leaves the text intact, followed by the rest of the seal.
                    assert!(body.starts_with(text), "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn altered_bytes_and_truncation_are_detected() {
        let bytes = seal_pretty(&record()).unwrap();
        for at in 0..bytes.len() {
            // Without the final line feed, the file is still the same JSON value.
            assert!(
                unseal::<Record>(&bytes[..at]).is_ok_and(|(value, _)| value == record()) == (at + 1 == bytes.len())
            );
            for byte in 0..=255 {
                let mut altered = bytes.clone();
                altered[at] = byte;
                if let Ok((value, _)) = unseal::<Record>(&altered) {
                    assert_eq!(value, record(), "byte {at} set to {byte}");
                }
            }
        }
    }
}
