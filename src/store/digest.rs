//! SHA-256 digests of blobs and keys, as 64 lower-case hexadecimal digits.

use std::fmt::{self, Display, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::canonical_json;

/// The error for a string that is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseDigestError(String);

impl Display for ParseDigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected the 64 hexadecimal digits of a SHA-256, found {:?}", self.0)
    }
}

impl std::error::Error for ParseDigestError {}

/// Defines a type whose text always consists of 64 lower-case hexadecimal digits, so it is a safe file name.
macro_rules! sha256_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the SHA-256 of `bytes`.
            pub fn of(bytes: &[u8]) -> Self {
                let mut hasher = Hasher::default();
                hasher.update(bytes);
                Self(hasher.hex())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the first two digits, which name the folder that contains the file.
            pub fn shard(&self) -> &str {
                &self.0[..2]
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            /// Accepts digits of either case.
            fn from_str(text: &str) -> Result<Self, ParseDigestError> {
                if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    Ok(Self(text.to_ascii_lowercase()))
                } else {
                    Err(ParseDigestError(text.to_string()))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseDigestError;

            fn try_from(text: String) -> Result<Self, ParseDigestError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

sha256_name! {
    /// The SHA-256 of a blob's content; displayed as 64 hexadecimal digits.
    Digest
}

sha256_name! {
    /// The SHA-256 of a stage's key preimage.
    Key
}

impl Key {
    /// Returns the key of a preimage: the SHA-256 of its canonical JSON.
    pub fn of_preimage(preimage: &serde_json::Value) -> Self {
        Self::of(canonical_json(preimage).as_bytes())
    }
}

/// Computes the digest of content that is supplied in pieces.
#[derive(Default)]
pub struct Hasher(Sha256);

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    pub fn finish(self) -> Digest {
        Digest(self.hex())
    }

    fn hex(self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in sha2::Digest::finalize(self.0) {
            write!(hex, "{byte:02x}").expect("writing to a String does not fail");
        }
        hex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn digests_match_the_reference_of_fips_180_2() {
        assert_eq!(Digest::of(b"abc").as_str(), ABC);
        assert_eq!(Key::of(b"abc").to_string(), ABC);
        let mut pieces = Hasher::default();
        pieces.update(b"a");
        pieces.update(b"bc");
        assert_eq!(pieces.finish(), Digest::of(b"abc"));
    }

    #[test]
    fn only_64_hexadecimal_digits_are_parsed() {
        assert_eq!(ABC.to_uppercase().parse::<Digest>().unwrap(), Digest::of(b"abc"));
        for bad in ["", "abc", &ABC[1..], &ABC.replace('b', "g"), &format!("{}/..", &ABC[..61]), &"é".repeat(32)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
            assert!(serde_json::from_value::<Digest>(serde_json::json!(bad)).is_err(), "{bad}");
        }
        let json = serde_json::to_string(&Digest::of(b"abc")).unwrap();
        assert_eq!(json, format!("\"{ABC}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), Digest::of(b"abc"));
    }
}
