//! Metadata of a WebP file (RFC 9649): the colour profile and EXIF data.
//!
//! The decoder's own functions allocate whatever size a chunk claims, up to 4 GB. Here a chunk that is longer than the
//! file is ignored.

/// The metadata chunks of a file; None if a chunk is missing or incomplete.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Metadata<'a> {
    pub(super) icc: Option<&'a [u8]>,
    pub(super) exif: Option<&'a [u8]>,
}

/// Returns the first complete chunk of each kind.
pub(super) fn metadata(webp: &[u8]) -> Metadata<'_> {
    let mut found = Metadata::default();
    // After "RIFF", the size, and "WEBP".
    let mut rest = webp.get(12..).unwrap_or_default();
    while let Some((head, after)) = rest.split_at_checked(8) {
        let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some(chunk) = after.get(..size) else { break };
        match &head[..4] {
            b"ICCP" => _ = found.icc.get_or_insert(chunk),
            b"EXIF" => _ = found.exif.get_or_insert(chunk),
            _ => {}
        }
        // Chunks are padded to even offsets.
        rest = after.get(size.next_multiple_of(2)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(chunks: &[(&[u8; 4], u32, &[u8])]) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WEBP".to_vec();
        for (name, size, data) in chunks {
            bytes.extend(*name);
            bytes.extend(size.to_le_bytes());
            bytes.extend(*data);
        }
        bytes
    }

    #[test]
    fn the_first_complete_chunk_is_used() {
        let bytes = file(&[(b"VP8X", 3, &[0; 4]), (b"ICCP", 2, b"ab"), (b"ICCP", 2, b"cd"), (b"EXIF", 1, b"e")]);
        assert_eq!(metadata(&bytes), Metadata { icc: Some(b"ab"), exif: Some(b"e") });
        for size in [3, 1 << 20, u32::MAX] {
            assert_eq!(metadata(&file(&[(b"ICCP", size, b"ab")])), Metadata::default());
        }
        for len in 0..bytes.len() {
            metadata(&bytes[..len]);
        }
    }
}
