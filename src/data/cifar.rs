//! The binary version of CIFAR-10 (Krizhevsky 2009): <https://www.cs.toronto.edu/~kriz/cifar.html>.
//!
//! A batch file consists of records of 3,073 bytes: a label from 0 to 9, then 32×32 red values row by row, then green,
//! then blue.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use super::{Images, Splits};
use crate::config::SecretUrl;
use crate::config::{Cifar10Params, Limits};
use crate::io::tar::{ArchiveError, Bounds, read_members};

/// The official address of the archive.
const OFFICIAL_URL: &str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz";
/// The SHA-256 of the archive at [`OFFICIAL_URL`], which has 170,052,171 bytes.
const OFFICIAL_SHA256: &str = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd";
/// The height and width of every image.
const SIDE: usize = 32;

/// The number of pixels in an image.
const PLANE: usize = SIDE * SIDE;
/// The number of bytes in a record.
const RECORD: usize = 1 + 3 * PLANE;
/// The number of records in a batch file of the official archive; smaller files are accepted.
const MAX_RECORDS: usize = 10_000;

const TRAINING: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
const TEST: &str = "test_batch.bin";

const BOUNDS: Bounds = Bounds {
    member_bytes: (MAX_RECORDS * RECORD) as u64,
    // Six full batches, and room for the small files.
    total_bytes: (7 * MAX_RECORDS * RECORD) as u64,
    members: 100,
};

/// The maximum size of an archive to download, in bytes: that of its decompressed content, because compression does not
/// make images larger.
pub const MAX_ARCHIVE_BYTES: u64 = BOUNDS.total_bytes;

/// The source of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Addresses that are tried in order; the file must have this digest.
    Web { addresses: Vec<SecretUrl>, sha256: String },
    /// A local file; its digest is checked if one is given.
    File { path: PathBuf, sha256: Option<String> },
}

/// Validates `url`, `mirrors` and `sha256` of `params`, and returns the source. Digests are converted to lower case.
pub fn source(params: &Cifar10Params) -> anyhow::Result<Source> {
    let sha256 = params.sha256.as_ref().map(|digest| digest.trim().to_ascii_lowercase());
    if let Some(digest) = &sha256 {
        let valid = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        ensure!(valid, "`sha256` must be 64 hexadecimal digits, found `{digest}`");
    }
    let official = SecretUrl::from(OFFICIAL_URL);
    let url = params.url.as_ref().unwrap_or(&official);
    if let Some(path) = file_path(url.expose()) {
        ensure!(!path.is_empty(), "`url: {url}` contains no path: write `file:PATH`");
        return Ok(Source::File { path: path.into(), sha256 });
    }
    let addresses: Vec<SecretUrl> = std::iter::once(url).chain(&params.mirrors).cloned().collect();
    for address in &addresses {
        ensure!(
            !address.is_redacted(),
            "`{address}` has `***` in place of a password or signature, because run records do not store secrets. \
             Write the whole address"
        );
        let scheme = address.expose().split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        if !matches!(scheme.as_deref(), Some("http" | "https")) {
            bail!(
                "`{address}` is not a valid address: use one that starts with https:// or http://, or `url: file:PATH`"
            );
        }
    }
    match sha256 {
        Some(sha256) => Ok(Source::Web { addresses, sha256 }),
        None if *url == official => Ok(Source::Web { addresses, sha256: OFFICIAL_SHA256.to_string() }),
        None => bail!("`url: {url}` needs `sha256`, the digest of the archive at this address"),
    }
}

/// Returns PATH from `file:PATH` or `file:///PATH`.
fn file_path(url: &str) -> Option<&str> {
    let path = url.strip_prefix("file:")?;
    Some(path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path))
}

/// Reads the `.tar.gz`; returns the training images, in the order of the batches, and the test images.
pub fn read_archive(reader: impl Read) -> Result<(Images, Images), ArchiveError> {
    let wanted = [&TRAINING[..], &[TEST]].concat();
    let parse = |_: &str, bytes: Vec<u8>| decode(&bytes).map_err(|e| e.to_string()).map(|(images, _)| images);
    let mut batches = read_members(reader, &wanted, BOUNDS, parse)?;
    let mut take = |name: &str| batches.remove(name).expect("read_members returns every requested file");
    let mut pixels = vec![];
    for name in TRAINING {
        pixels.append(&mut take(name).pixels);
    }
    Ok((Images::new(pixels.len() / (3 * PLANE), SIDE, SIDE, pixels), take(TEST)))
}

/// Decodes the images and labels of a batch file.
pub(super) fn decode(bytes: &[u8]) -> anyhow::Result<(Images, Vec<u8>)> {
    ensure!(
        !bytes.is_empty() && bytes.len().is_multiple_of(RECORD),
        "expected records of {RECORD} bytes (a label and 3x32x32 pixel values), found {} bytes",
        bytes.len()
    );
    let count = bytes.len() / RECORD;
    let mut labels = Vec::with_capacity(count);
    let mut pixels = Vec::with_capacity(count * 3 * PLANE);
    for (i, record) in bytes.chunks_exact(RECORD).enumerate() {
        let (label, planes) = (record[0], &record[1..]);
        ensure!(label <= 9, "record {i} has label {label}, but CIFAR-10's labels are 0 to 9; is this CIFAR-100?");
        labels.push(label);
        pixels.extend((0..PLANE).flat_map(|p| [planes[p], planes[PLANE + p], planes[2 * PLANE + p]]));
    }
    Ok((Images::new(count, SIDE, SIDE, pixels), labels))
}

/// Encodes a batch file. Panics unless the images are 32×32, with one label each.
pub fn encode(images: &Images, labels: &[u8]) -> Vec<u8> {
    assert_eq!((images.height, images.width, images.count), (SIDE, SIDE, labels.len()));
    let mut bytes = Vec::with_capacity(images.count * RECORD);
    for (i, &label) in labels.iter().enumerate() {
        bytes.push(label);
        for c in 0..3 {
            bytes.extend(images.image(i).iter().skip(c).step_by(3));
        }
    }
    bytes
}

/// Splits off the last `validation` training images for validation, then truncates each split to `limit`.
pub fn split(train: &Images, test: &Images, validation: usize, limit: &Limits) -> anyhow::Result<Splits> {
    let rest = train.count.checked_sub(validation).filter(|&rest| rest > 0).with_context(|| {
        format!(
            "{validation} of {} training images for validation leave none to train on: choose a smaller `validation`",
            train.count
        )
    })?;
    let first = |available: usize, limit: Option<usize>| available.min(limit.unwrap_or(available));
    Ok(Splits {
        train: train.slice(0..first(rest, limit.train)),
        validation: train.slice(rest..rest + first(validation, limit.validation)),
        test: test.slice(0..first(test.count, limit.test)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns images whose pixels are all equal to the image's index.
    fn numbered(count: usize) -> Images {
        let pixels = (0..count).flat_map(|i| std::iter::repeat_n(i as u8, 3 * PLANE)).collect();
        Images::new(count, SIDE, SIDE, pixels)
    }

    /// Returns the indices of images from `numbered`.
    fn indices(images: &Images) -> Vec<u8> {
        (0..images.count).map(|i| images.image(i)[0]).collect()
    }

    /// The layout as described on the dataset's page.
    #[test]
    fn a_record_is_a_label_and_three_colour_planes() {
        let mut record = vec![0; RECORD];
        record[0] = 9;
        record[1 + 33] = 1; // red, row 1, column 1
        record[1 + 1024 + 33] = 2; // green
        record[1 + 2048 + 33] = 3; // blue
        let (images, labels) = decode(&record).unwrap();
        assert_eq!(labels, [9]);
        assert_eq!(&images.pixels[33 * 3..34 * 3], [1, 2, 3]);
        assert_eq!(images.pixels.iter().map(|&v| v as u32).sum::<u32>(), 6);
    }

    #[test]
    fn invalid_records_are_refused() {
        for bytes in [0, 1, RECORD - 1, RECORD + 1] {
            assert!(decode(&vec![0; bytes]).unwrap_err().to_string().contains("3073"), "{bytes}");
        }
        let mut bytes = vec![0; 2 * RECORD];
        bytes[RECORD] = 10;
        let error = decode(&bytes).unwrap_err().to_string();
        assert!(error.contains("record 1 has label 10"), "{error}");
    }

    #[test]
    fn splits_take_validation_from_the_end_and_limits_from_the_start() {
        let (train, test) = (numbered(10), numbered(5));
        let splits = split(&train, &test, 3, &Limits::default()).unwrap();
        assert_eq!(indices(&splits.train), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(indices(&splits.validation), [7, 8, 9]);
        assert_eq!(indices(&splits.test), [0, 1, 2, 3, 4]);
        let limit = Limits { train: Some(2), validation: Some(1), test: Some(100) };
        let splits = split(&train, &test, 3, &limit).unwrap();
        assert_eq!(indices(&splits.train), [0, 1]);
        assert_eq!(indices(&splits.validation), [7]);
        assert_eq!(indices(&splits.test), [0, 1, 2, 3, 4]);
        for validation in [10, 11, usize::MAX] {
            let error = split(&train, &test, validation, &limit).unwrap_err().to_string();
            assert!(error.contains("smaller `validation`"), "{error}");
        }
    }

    #[test]
    fn sources_are_validated() {
        let digest = "AB".repeat(32);
        let source_of = |url: Option<&str>, mirrors: &[&str], sha256: Option<&str>| {
            source(&Cifar10Params {
                url: url.map(SecretUrl::from),
                mirrors: mirrors.iter().map(|&m| SecretUrl::from(m)).collect(),
                sha256: sha256.map(str::to_string),
                ..Default::default()
            })
            .map_err(|e| e.to_string())
        };
        let web = |addresses: &[&str], sha256: &str| {
            Ok(Source::Web {
                addresses: addresses.iter().map(|&a| SecretUrl::from(a)).collect(),
                sha256: sha256.to_string(),
            })
        };
        let lower = digest.to_lowercase();
        assert_eq!(source_of(None, &["http://m/a"], None), web(&[OFFICIAL_URL, "http://m/a"], OFFICIAL_SHA256));
        assert_eq!(source_of(Some("HTTP://x/a"), &[], Some(&digest)), web(&["HTTP://x/a"], &lower));
        let error = source_of(Some("https://u:***@x/a"), &[], Some(&digest)).unwrap_err();
        assert!(error.contains("Write the whole address"), "{error}");
        let error = source_of(Some("ftp://u:SECRET@x/a"), &[], Some(&digest)).unwrap_err();
        assert!(error.contains("ftp://***@x/a") && !error.contains("SECRET"), "{error}");
        assert!(source_of(Some("https://x/a"), &[], None).unwrap_err().contains("needs `sha256`"));
        assert!(source_of(None, &["ftp://m/a"], None).unwrap_err().contains("ftp://m/a"));
        assert!(source_of(Some("data/a.tar.gz"), &[], None).unwrap_err().contains("file:PATH"));
        assert!(source_of(Some("file:a"), &[], Some("12")).unwrap_err().contains("64 hexadecimal digits"));
        for (url, path) in [("file:a b", "a b"), ("file:/a", "/a"), ("file:///a", "/a"), ("file://a", "//a")] {
            assert_eq!(source_of(Some(url), &[], None), Ok(Source::File { path: path.into(), sha256: None }));
        }
        assert!(source_of(Some("file:"), &[], None).is_err());
    }

    proptest! {
        #[test]
        fn records_round_trip(
            labels in prop::collection::vec(0u8..10, 1..4),
            seed in prop::collection::vec(any::<u8>(), 64),
        ) {
            let pixels = (0..labels.len() * 3 * PLANE).map(|i| seed[i % 64].wrapping_mul(i as u8 | 1)).collect();
            let images = Images::new(labels.len(), SIDE, SIDE, pixels);
            let bytes = encode(&images, &labels);
            prop_assert_eq!(decode(&bytes).unwrap(), (images, labels));
        }
    }
}
