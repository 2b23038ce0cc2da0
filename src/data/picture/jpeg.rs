//! JPEG files without the mark of their end (FF D9): cameras write a trailer in its place, webcams cut it off.
//!
//! Such a file is as good as any if its scans are complete, and a decoder does not say whether they are: it makes up what
//! is missing. But then what it returns depends on the bytes that follow. So a file is complete if the last scan's pixels
//! are the same whatever is appended, and if, in a progressive file, no scan is missing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::store::Digest;

/// The mark of the end.
const END: [u8; 2] = [0xFF, 0xD9];
/// What is appended to a file without end, so many bytes of each: no marks, and bits that decode to different symbols.
const FILLERS: [u8; 4] = [0x55, 0xAA, 0x0F, 0xF0];
const FILLER_LEN: usize = 4096;
/// Coefficients of a block.
const COEFFICIENTS: usize = 64;

/// The file with an end. `pixels` decodes a file and returns the digest of its pixels.
///
/// # Errors
/// A file whose scan data are cut off.
pub fn with_end(jpeg: &[u8], pixels: impl Fn(&[u8]) -> Option<Digest>) -> Result<Cow<'_, [u8]>> {
    const CUT: &str = "the file ends before the picture does";
    let scans = match walk(jpeg) {
        Walk::End => return Ok(Cow::Borrowed(jpeg)),
        Walk::Open(scans) => scans,
    };
    if !scans.are_complete() {
        bail!(CUT);
    }
    let data = &jpeg[..scans.end];
    let ended = [data, &END].concat();
    let expected = pixels(&ended);
    let is_same = |filler: u8| pixels(&[data, &[filler; FILLER_LEN], &END].concat()) == expected;
    if expected.is_none() || !FILLERS.into_iter().all(is_same) {
        bail!(CUT);
    }
    Ok(Cow::Owned(ended))
}

enum Walk {
    /// The mark of the end was reached, whatever follows it.
    End,
    Open(Scans),
}

/// The scans of a file without end.
#[derive(Default)]
struct Scans {
    is_progressive: bool,
    /// The identifiers of the components.
    components: Vec<u8>,
    /// By component, for each coefficient the lowest bit that a scan had.
    lowest_bits: BTreeMap<u8, [Option<u8>; COEFFICIENTS]>,
    /// The end of the last scan's data, or of the trailer behind it.
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

    /// The header of a frame (ITU T.81, B.2.2), without its marker and length.
    fn frame(&mut self, marker: u8, header: &[u8]) {
        self.is_progressive = matches!(marker, 0xC2 | 0xC6 | 0xCA | 0xCE);
        self.components = header.get(6..).unwrap_or_default().chunks_exact(3).map(|component| component[0]).collect();
    }

    /// The header of a scan (B.2.3), without its marker and length.
    fn scan(&mut self, header: &[u8]) {
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

/// Goes through a file segment by segment (ITU T.81, annex B).
fn walk(jpeg: &[u8]) -> Walk {
    let mut scans = Scans::default();
    let mut end = None;
    // Behind the mark of the beginning.
    let mut at = 2;
    while let Some(&[first, marker]) = jpeg.get(at..at + 2) {
        at += match (first, marker) {
            (0xFF, 0xD9) => return Walk::End,
            // Marks without a length, and a byte of a scan that looks like one.
            (0xFF, 0x00 | 0x01 | 0xD0..=0xD8) => 2,
            (0xFF, 0xFF) => 1,
            (0xFF, _) => {
                let segment = jpeg.get(at + 2..).and_then(segment);
                if !scans.lowest_bits.is_empty() && (segment.is_none() || !may_follow_a_scan(marker)) {
                    // No segment: the scan's data ended before it, unless the mark of the end is still to come.
                    end.get_or_insert(at);
                }
                match (marker, segment) {
                    (_, None) => jpeg.len(),
                    (_, Some(segment)) if end.is_some() => 4 + segment.len(),
                    (0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF, Some(segment)) => {
                        scans.frame(marker, segment);
                        4 + segment.len()
                    }
                    (0xDA, Some(segment)) => {
                        scans.scan(segment);
                        4 + segment.len()
                    }
                    (_, Some(segment)) => 4 + segment.len(),
                }
            }
            _ => 1,
        };
    }
    scans.end = end.unwrap_or(jpeg.len());
    // Half a mark.
    while scans.end > 0 && jpeg[scans.end - 1] == 0xFF {
        scans.end -= 1;
    }
    Walk::Open(scans)
}

/// The segment at the start of `bytes`, which begin with its length; None where it is not whole.
fn segment(bytes: &[u8]) -> Option<&[u8]> {
    let (length, _) = bytes.split_first_chunk::<2>()?;
    bytes.get(2..usize::from(u16::from_be_bytes(*length)))
}

/// Tables, comments, the next scan, and the number of lines.
fn may_follow_a_scan(marker: u8) -> bool {
    matches!(marker, 0xC4 | 0xCC | 0xDA..=0xDF | 0xE0..=0xEF | 0xFE)
}
