//! JPEG files without an end-of-image marker (FF D9): some cameras write a trailer in its place, and some webcams omit
//! it.
//!
//! Such a file is usable if its scans are complete. Decoders do not report whether they are; they fill in missing
//! pixels, and then the output depends on the bytes that follow. So a file is complete if decoding gives the same
//! pixels whatever is appended, and if no scan of a progressive file is missing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::store::Digest;

/// The end-of-image marker.
const END: [u8; 2] = [0xFF, 0xD9];
/// The bytes that are appended to a file without an end marker, each [`FILLER_LEN`] times. They contain no markers and
/// decode to different symbols.
const FILLERS: [u8; 4] = [0x55, 0xAA, 0x0F, 0xF0];
const FILLER_LEN: usize = 4096;
/// The number of coefficients in a block.
const COEFFICIENTS: usize = 64;

/// Returns the file with an end-of-image marker. `pixels` decodes a file and returns the digest of its pixels.
///
/// # Errors
/// Fails if the scan data are truncated.
pub(super) fn with_end(jpeg: &[u8], pixels: impl Fn(&[u8]) -> Option<Digest>) -> Result<Cow<'_, [u8]>> {
    const TRUNCATED: &str = "the file is truncated: it ends before the last pixel";
    let scans = match parse(jpeg) {
        Structure::End => return Ok(Cow::Borrowed(jpeg)),
        Structure::Unended(scans) => scans,
    };
    if !scans.are_complete() {
        bail!(TRUNCATED);
    }
    let data = &jpeg[..scans.end];
    let ended = [data, &END].concat();
    let expected = pixels(&ended);
    let is_same = |filler: u8| pixels(&[data, &[filler; FILLER_LEN], &END].concat()) == expected;
    if expected.is_none() || !FILLERS.into_iter().all(is_same) {
        bail!(TRUNCATED);
    }
    Ok(Cow::Owned(ended))
}

/// The structure of a file.
enum Structure {
    /// The file has an end-of-image marker, possibly followed by other data.
    End,
    /// The file has no end-of-image marker.
    Unended(Scans),
}

/// The scans of a file without an end-of-image marker.
#[derive(Default)]
struct Scans {
    is_progressive: bool,
    /// The identifiers of the components.
    components: Vec<u8>,
    /// The lowest bit that any scan encodes, for each component and coefficient.
    lowest_bits: BTreeMap<u8, [Option<u8>; COEFFICIENTS]>,
    /// The end of the last scan's data, excluding a trailer.
    end: usize,
}

impl Scans {
    fn are_complete(&self) -> bool {
        !self.components.is_empty()
            && self.components.iter().all(|component| {
                let bits = self.lowest_bits.get(component);
                bits.is_some_and(|bits| !self.is_progressive || bits.iter().all(|bit| *bit == Some(0)))
            })
    }

    /// Reads a frame header (ITU T.81, B.2.2), without its marker and length.
    fn read_frame(&mut self, marker: u8, header: &[u8]) {
        self.is_progressive = matches!(marker, 0xC2 | 0xC6 | 0xCA | 0xCE);
        self.components = header.get(6..).unwrap_or_default().chunks_exact(3).map(|component| component[0]).collect();
    }

    /// Reads a scan header (B.2.3), without its marker and length.
    fn read_scan(&mut self, header: &[u8]) {
        let count = header.first().map_or(0, |&count| usize::from(count));
        let Some((components, &[start, end, bits, ..])) =
            header.get(1..).and_then(|rest| rest.split_at_checked(2 * count))
        else {
            return;
        };
        for component in components.chunks_exact(2) {
            let lowest = self.lowest_bits.entry(component[0]).or_insert([None; COEFFICIENTS]);
            let band = usize::from(start).min(COEFFICIENTS)..(usize::from(end) + 1).min(COEFFICIENTS);
            if let Some(band) = lowest.get_mut(band) {
                band.fill(Some(bits & 0x0F));
            }
        }
    }
}

/// Parses a file segment by segment (ITU T.81, annex B).
fn parse(jpeg: &[u8]) -> Structure {
    let mut scans = Scans::default();
    let mut end = None;
    // After the start-of-image marker.
    let mut at = 2;
    while let Some(&[first, marker]) = jpeg.get(at..at + 2) {
        at += match (first, marker) {
            (0xFF, 0xD9) => return Structure::End,
            // Markers without a length, and a stuffed byte in scan data.
            (0xFF, 0x00 | 0x01 | 0xD0..=0xD8) => 2,
            (0xFF, 0xFF) => 1,
            (0xFF, _) => {
                let segment = jpeg.get(at + 2..).and_then(segment);
                if !scans.lowest_bits.is_empty() && (segment.is_none() || !may_follow_a_scan(marker)) {
                    // The scan's data ended here, unless an end-of-image marker follows.
                    end.get_or_insert(at);
                }
                match (marker, segment) {
                    (_, None) => jpeg.len(),
                    (_, Some(segment)) if end.is_some() => 4 + segment.len(),
                    (0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF, Some(segment)) => {
                        scans.read_frame(marker, segment);
                        4 + segment.len()
                    }
                    (0xDA, Some(segment)) => {
                        scans.read_scan(segment);
                        4 + segment.len()
                    }
                    (_, Some(segment)) => 4 + segment.len(),
                }
            }
            _ => 1,
        };
    }
    scans.end = end.unwrap_or(jpeg.len());
    // Exclude half of a marker.
    while scans.end > 0 && jpeg[scans.end - 1] == 0xFF {
        scans.end -= 1;
    }
    Structure::Unended(scans)
}

/// Returns the segment at the start of `bytes`, which begin with its length; None if it is incomplete.
fn segment(bytes: &[u8]) -> Option<&[u8]> {
    let (length, _) = bytes.split_first_chunk::<2>()?;
    bytes.get(2..usize::from(u16::from_be_bytes(*length)))
}

/// Whether a marker may follow a scan: tables, comments, the next scan, or the number of lines.
fn may_follow_a_scan(marker: u8) -> bool {
    matches!(marker, 0xC4 | 0xCC | 0xDA..=0xDF | 0xE0..=0xEF | 0xFE)
}
