//! PNG files with complete pixels but without the last chunk, which only marks the end.

use std::borrow::Cow;

/// The IEND chunk (RFC 2083, 4.1.4): length, chunk type and checksum.
const END: [u8; 12] = *b"\0\0\0\0IEND\xAE\x42\x60\x82";

/// Returns the file with an IEND chunk, if it ends between two chunks or within IEND. The decoder detects missing
/// pixels.
pub(super) fn with_end(png: &[u8]) -> Cow<'_, [u8]> {
    let mut at = 8;
    while let Some(head) = png.get(at..at + 8) {
        let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if &head[4..] == b"IEND" {
            break;
        }
        // Length, chunk type and checksum.
        at += 12 + size;
    }
    match png.get(at..) {
        Some(rest) if rest.len() < END.len() && END.starts_with(rest) => Cow::Owned([&png[..at], &END].concat()),
        _ => Cow::Borrowed(png),
    }
}
