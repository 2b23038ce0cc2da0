//! The user's own images: PNG, JPEG and WebP files in a folder.
//!
//! What they are called and where they lie does not matter: a folder is the set of its files' contents. They are taken
//! in the order of their digests, each content once, so that another name or a copy changes neither the key nor the
//! splits, and what is in no order a camera or a person gave it is as good as shuffled.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use walkdir::WalkDir;

use super::{Images, Splits};
use crate::pipeline::params::{Fit, FolderParams, Limits};
use crate::store::Digest;

/// Endings of the files that are taken, in lower case.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
/// The most memory that decoding one file may take, in bytes: a small file can claim to be a huge image.
const MAX_DECODED: u64 = 1 << 30;

/// The image files under `folder`, sorted by path; links to folders are followed.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    ensure!(folder.is_dir(), "{} is not a folder", folder.display());
    let mut found = vec![];
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        let entry = entry.with_context(|| format!("looking through {}", folder.display()))?;
        let ending = entry.path().extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        if entry.file_type().is_file() && ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
            found.push(entry.into_path());
        }
    }
    ensure!(!found.is_empty(), "{} has no files that end in .{}", folder.display(), ENDINGS.join(", ."));
    Ok(found)
}

/// The digest of a set of files with these digests.
pub fn content(digests: &[Digest]) -> Digest {
    let mut names: Vec<String> = digests.iter().map(Digest::to_string).collect();
    names.sort_unstable();
    names.dedup();
    Digest::of(names.join("\n").as_bytes())
}

/// The images of a file, each `(size, size, 3)`; at least one.
///
/// Transparency is laid over white, 16 bits are rounded to 8, and a camera's note on how it was held is heeded.
pub fn images(bytes: &[u8], size: usize, fit: Fit) -> Result<Vec<Vec<u8>>> {
    let image = decode(bytes)?;
    let side = size as u32;
    let (width, height) = image.dimensions();
    let shorter = width.min(height);
    if fit != Fit::Cover && shorter < side {
        bail!("{width}×{height} pixels, less than {size}×{size}");
    }
    let square = |side: u32| imageops::crop_imm(&image, (width - side) / 2, (height - side) / 2, side, side).to_image();
    Ok(match fit {
        Fit::Cover if shorter == side => vec![square(side).into_raw()],
        Fit::Cover => vec![imageops::resize(&square(shorter), side, side, FilterType::Lanczos3).into_raw()],
        Fit::Crop => vec![square(side).into_raw()],
        Fit::Tiles => {
            let corners = (0..height / side).flat_map(|y| (0..width / side).map(move |x| (x * side, y * side)));
            corners.map(|(x, y)| imageops::crop_imm(&image, x, y, side, side).to_image().into_raw()).collect()
        }
    })
}

/// The first files are for testing, the next for validation, the rest for training; then the first images of each that
/// `limit` asks for. `files`: the images of each file.
pub fn split(files: Vec<Vec<Vec<u8>>>, params: &FolderParams) -> Result<Splits> {
    let count = files.len();
    let [test, validation] = [params.test, params.validation].map(|given| given.unwrap_or((count / 10).max(1)));
    ensure!(
        test.saturating_add(validation) < count,
        "{test} files for testing and {validation} for validation leave none of {count} to train on: choose smaller \
         `test` and `validation`, or add images"
    );
    let mut files = files.into_iter();
    let mut images = |count: usize, limit: Option<usize>| {
        let images: Vec<Vec<u8>> = files.by_ref().take(count).flatten().take(limit.unwrap_or(usize::MAX)).collect();
        Images::new(images.len(), params.size, params.size, images.concat())
    };
    let Limits { train, validation: of_validation, test: of_test } = params.limit;
    let test = images(test, of_test);
    let validation = images(validation, of_validation);
    Ok(Splits { train: images(usize::MAX, train), validation, test })
}

/// An image file's pixels; its format is told by its first bytes, whatever its name.
pub fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().context("reading its first bytes")?;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    ensure!(image.width() > 0 && image.height() > 0, "an image without pixels");
    if !image.color().has_alpha() {
        return Ok(image.into_rgb8());
    }
    let image = image.into_rgba8();
    Ok(RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, a] = image.get_pixel(x, y).0;
        let over_white = |v: u8| ((v as u32 * a as u32 + 255 * (255 - a as u32) + 127) / 255) as u8;
        image::Rgb([over_white(r), over_white(g), over_white(b)])
    }))
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Rgba, RgbaImage};

    use super::*;

    /// Red is twice x, green twice y.
    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([2 * x as u8, 2 * y as u8, 7]))
    }

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(vec![]);
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn png(image: RgbImage) -> Vec<u8> {
        encoded(&image.into(), ImageFormat::Png)
    }

    fn first_pixel(image: &[u8]) -> [u8; 3] {
        [image[0], image[1], image[2]]
    }

    #[test]
    fn fits_cut_where_they_say() {
        let file = png(gradient(40, 20));
        let crop = images(&file, 8, Fit::Crop).unwrap();
        assert_eq!(crop.iter().map(|i| first_pixel(i)).collect::<Vec<_>>(), [[32, 12, 7]]);
        let tiles = images(&file, 16, Fit::Tiles).unwrap();
        assert_eq!(tiles.iter().map(|i| first_pixel(i)).collect::<Vec<_>>(), [[0, 0, 7], [32, 0, 7]]);
        // The central 20×20, from column 10 on; exactly as it is where nothing is to be scaled.
        assert_eq!(first_pixel(&images(&file, 20, Fit::Cover).unwrap()[0]), [20, 0, 7]);
        let half = images(&file, 10, Fit::Cover).unwrap().remove(0);
        assert_eq!(half.len(), 300);
        // Half-pixel centres: pixel (4, 4) lies between columns 18 and 19 of the file, rows 8 and 9.
        assert_eq!(half[3 * 44..3 * 45], [37, 17, 7]);
        for fit in [Fit::Crop, Fit::Tiles] {
            assert_eq!(images(&file, 24, fit).unwrap_err().to_string(), "40×20 pixels, less than 24×24");
        }
        assert_eq!(images(&file, 24, Fit::Cover).unwrap()[0].len(), 3 * 24 * 24);
    }

    #[test]
    fn every_format_is_told_by_its_content() {
        let grey = DynamicImage::ImageRgb8(RgbImage::from_pixel(9, 9, image::Rgb([80, 80, 80])));
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let image = decode(&encoded(&grey, format)).unwrap();
            assert!(image.pixels().all(|p| p.0.iter().all(|&v| v.abs_diff(80) <= 1)), "{format:?}");
        }
        let sixteen = DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(2, 2, image::Luma([0x8080])));
        assert_eq!(decode(&encoded(&sixteen, ImageFormat::Png)).unwrap().get_pixel(1, 1).0, [128; 3]);
    }

    #[test]
    fn what_is_transparent_is_white() {
        let image = RgbaImage::from_fn(3, 1, |x, _| Rgba([0, 100, 200, [0, 128, 255][x as usize]]));
        let image = decode(&encoded(&image.into(), ImageFormat::Png)).unwrap();
        assert_eq!(image.pixels().map(|p| p.0).collect::<Vec<_>>(), [[255; 3], [127, 177, 227], [0, 100, 200]]);
    }

    #[test]
    fn what_is_no_image_is_an_error() {
        let file = png(gradient(30, 30));
        for bytes in [&b""[..], b"not an image", &file[..file.len() / 2]] {
            assert!(decode(bytes).is_err());
        }
        // A header that claims 60,000×60,000 pixels.
        let mut huge = file.clone();
        huge[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        assert!(decode(&huge).is_err());
    }

    #[test]
    fn a_folder_is_its_content() {
        let digests = ["a", "b", "c"].map(|text| Digest::of(text.as_bytes()));
        let [a, b, c] = digests.clone();
        assert_eq!(content(&digests), content(&[c.clone(), a.clone(), b.clone(), a.clone()]));
        assert_ne!(content(&digests), content(&[a, b]));
    }

    #[test]
    fn a_file_is_in_one_split() {
        // File i has i + 1 images of level i.
        let files = |count: u8| (0..count).map(|i| vec![vec![i; 3]; i as usize + 1]).collect::<Vec<_>>();
        let levels = |images: &Images| images.pixels.iter().step_by(3).copied().collect::<Vec<u8>>();
        let params = |json: serde_json::Value| serde_json::from_value::<FolderParams>(json).unwrap();
        let mut tenth = params(serde_json::json!({"path": "x"}));
        tenth.size = 1;
        let splits = split(files(4), &tenth).unwrap();
        assert_eq!(
            [&splits.test, &splits.validation, &splits.train].map(levels),
            [vec![0], vec![1, 1], vec![2, 2, 2, 3, 3, 3, 3]]
        );
        let given = params(serde_json::json!({"path": "x", "test": 2, "validation": 1, "limit": {"train": 2}}));
        let splits = split(files(4), &FolderParams { size: 1, ..given.clone() }).unwrap();
        assert_eq!(
            [&splits.test, &splits.validation, &splits.train].map(levels),
            [vec![0, 1, 1], vec![2, 2, 2], vec![3, 3]]
        );
        let error = split(files(3), &given).unwrap_err().to_string();
        assert!(error.contains("leave none of 3"), "{error}");
    }

    #[test]
    fn files_are_found_at_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(files(folder.path()).unwrap_err().to_string().contains("no files that end in .png"));
        std::fs::create_dir_all(at("b/c")).unwrap();
        for name in ["b/c/x.JPG", "a.png", "notes.txt", "z.webp", "png"] {
            std::fs::write(at(name), "").unwrap();
        }
        assert_eq!(files(folder.path()).unwrap(), ["a.png", "b/c/x.JPG", "z.webp"].map(at));
        assert!(files(&at("a.png")).unwrap_err().to_string().contains("is not a folder"));
    }
}
