//! Stores the finished images of an interrupted sampling run: a file of batches that outlives the process.
//!
//! A batch consists of its length in bytes (u64, little-endian), a SHA-256 over its offset and its bytes, and the
//! bytes. Each batch is flushed to disk before the next one starts. Incomplete or modified batches do not match their
//! digest: the file is truncated before the first of them, and these images are sampled again.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::store::open_own;

const DIGEST: usize = 32;
const HEAD: usize = 8 + DIGEST;

pub(super) struct Part {
    file: File,
    path: PathBuf,
    /// The number of bytes of images so far.
    len: usize,
}

/// The contents of an existing file.
pub(super) struct Kept {
    pub(super) pixels: Vec<u8>,
    /// The number of bytes after the last valid batch, which were truncated.
    pub(super) lost: u64,
}

impl Part {
    /// Opens or creates the file and reads its images of `image_len` bytes each, `max_len` bytes in total.
    pub(super) fn open(path: &Path, image_len: usize, max_len: usize) -> Result<(Self, Kept)> {
        let doing = || format!("reading the finished images in {}", path.display());
        let mut file =
            open_own(path, File::options().create(true).truncate(false).read(true).write(true)).with_context(doing)?;
        let mut bytes = vec![];
        file.read_to_end(&mut bytes).with_context(doing)?;
        let (mut pixels, mut rest) = (vec![], &bytes[..]);
        while let Some((batch, behind)) = first_batch(rest, pixels.len()) {
            if batch.is_empty() || !batch.len().is_multiple_of(image_len) || pixels.len() + batch.len() > max_len {
                break;
            }
            pixels.extend_from_slice(batch);
            rest = behind;
        }
        file.set_len((bytes.len() - rest.len()) as u64).with_context(doing)?;
        file.seek(SeekFrom::End(0)).with_context(doing)?;
        let part = Self { file, path: path.to_path_buf(), len: pixels.len() };
        Ok((part, Kept { pixels, lost: rest.len() as u64 }))
    }

    /// Appends a batch; it is durable when this returns.
    pub(super) fn append(&mut self, batch: &[u8]) -> Result<()> {
        let mut record = Vec::with_capacity(HEAD + batch.len());
        record.extend((batch.len() as u64).to_le_bytes());
        record.extend(digest(self.len, batch));
        record.extend(batch);
        let written = self.file.write_all(&record).and_then(|()| self.file.sync_data());
        written.with_context(|| format!("writing finished images to {}", self.path.display()))?;
        self.len += batch.len();
        Ok(())
    }
}

/// Splits off the batch at the start of `bytes`; returns it and the rest. `begin` bytes of images precede it. `None` if
/// the batch is incomplete or does not match its digest.
fn first_batch(bytes: &[u8], begin: usize) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<8>()?;
    let (expected, rest) = rest.split_at_checked(DIGEST)?;
    let (batch, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    (digest(begin, batch)[..] == *expected).then_some((batch, rest))
}

/// Includes the offset, so that a batch is only valid for the images of its own chains.
fn digest(begin: usize, batch: &[u8]) -> [u8; DIGEST] {
    Sha256::new().chain_update((begin as u64).to_le_bytes()).chain_update(batch).finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Images of 3 bytes, at most 30 of them.
    fn open(path: &Path) -> (Part, Kept) {
        Part::open(path, 3, 90).unwrap()
    }

    /// Creates a file with batches of 2, 1 and 3 images, whose pixels count up.
    fn three_batches(folder: &Path) -> (PathBuf, Vec<u8>) {
        let path = folder.join("part");
        let pixels: Vec<u8> = (1..=18).collect();
        let (mut part, kept) = open(&path);
        assert!(kept.pixels.is_empty() && kept.lost == 0);
        [0..6, 6..9, 9..18].into_iter().for_each(|range| part.append(&pixels[range]).unwrap());
        (path, pixels)
    }

    #[test]
    fn saved_batches_can_be_read_and_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut pixels) = three_batches(folder.path());
        let (mut part, kept) = open(&path);
        assert_eq!((&kept.pixels, kept.lost), (&pixels, 0));
        part.append(&[7; 3]).unwrap();
        pixels.extend([7; 3]);
        assert_eq!(open(&path).1.pixels, pixels);
    }

    proptest! {
        // Each case waits for the disk a few times.
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// After truncation or a modified byte at any position, the remaining data are whole batches as written.
        #[test]
        fn a_damaged_batch_and_those_after_it_are_discarded(at in 0usize..18 + 3 * HEAD, flip in 1u8.., cut in any::<bool>()) {
            let folder = tempfile::tempdir().unwrap();
            let (path, pixels) = three_batches(folder.path());
            let mut bytes = std::fs::read(&path).unwrap();
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            std::fs::write(&path, &bytes).unwrap();
            let ends = [0, HEAD + 6, 2 * HEAD + 9];
            let whole = ends.iter().rposition(|&end| end <= at).unwrap();
            let (mut part, kept) = open(&path);
            prop_assert_eq!(&kept.pixels, &pixels[..[0, 6, 9][whole]]);
            prop_assert_eq!(kept.lost as usize, bytes.len() - ends[whole]);
            // New batches follow the last valid one.
            part.append(&[9; 6]).unwrap();
            prop_assert_eq!(open(&path).1.pixels, [&kept.pixels[..], &[9; 6]].concat());
        }
    }

    #[test]
    fn batches_of_other_images_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = three_batches(folder.path());
        let bytes = std::fs::read(&path).unwrap();
        // The last batch in place of the first; images of another size; more images than expected.
        std::fs::write(&path, &bytes[2 * HEAD + 9..]).unwrap();
        assert!(open(&path).1.pixels.is_empty());
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Part::open(&path, 3, 9).unwrap().1.pixels.len(), 9);
        assert_eq!(Part::open(&path, 6, 90).unwrap().1.pixels.len(), 6);
    }
}
