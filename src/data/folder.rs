//! The user's own images: PNG, JPEG and WebP files in a folder.
//!
//! Names and subfolders do not matter: a folder is treated as the set of its files' contents. Files are ordered by
//! their digests, and duplicates are dropped. So renaming or copying a file changes neither the key nor the splits, and
//! the order is as good as shuffled. `listing` finds the files.

mod listing;

use anyhow::{Result, bail, ensure};
use image::imageops::{self, FilterType};

use super::picture::Picture;
use super::{Images, Splits};
use crate::config::{Fit, FolderParams, Limits};

pub use listing::list;

/// Decodes a file and returns its images, each `(size, size, 3)`; at least one. If only some tiles are needed, they are
/// spread over the whole picture.
pub fn images(bytes: &[u8], params: &FolderParams) -> Result<Vec<Vec<u8>>> {
    let FolderParams { size, fit, .. } = *params;
    let image = Picture::decode(bytes)?.rgb;
    let side = size as u32;
    let (width, height) = image.dimensions();
    let shorter = width.min(height);
    if fit != Fit::Cover && shorter < side {
        bail!("the picture has {width}×{height} pixels, but at least {size}×{size} are needed");
    }
    let square = |side: u32| imageops::crop_imm(&image, (width - side) / 2, (height - side) / 2, side, side).to_image();
    Ok(match fit {
        Fit::Cover if shorter == side => vec![square(side).into_raw()],
        Fit::Cover => vec![imageops::resize(&square(shorter), side, side, FilterType::Lanczos3).into_raw()],
        Fit::Crop => vec![square(side).into_raw()],
        Fit::Tiles => {
            let corners = (0..height / side).flat_map(|y| (0..width / side).map(move |x| (x * side, y * side)));
            let tile = |(x, y)| imageops::crop_imm(&image, x, y, side, side).to_image().into_raw();
            spread_out(corners.collect()).into_iter().take(params.most_of_a_split()).map(tile).collect()
        }
    })
}

/// Reorders items so that the first few are spread over all: by the fractional parts of multiples of the golden ratio,
/// each of which falls into a widest gap.
fn spread_out<T>(items: Vec<T>) -> Vec<T> {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut items: Vec<(u64, T)> = (0..).map(|i: u64| i.wrapping_mul(GOLDEN)).zip(items).collect();
    items.sort_by_key(|(rank, _)| *rank);
    items.into_iter().map(|(_, item)| item).collect()
}

/// Yields the first item of every list, then the second of every list that has one, and so on.
fn round_robin<T>(lists: Vec<Vec<T>>) -> impl Iterator<Item = T> {
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    std::iter::from_fn(move || {
        let round: Vec<T> = lists.iter_mut().filter_map(Iterator::next).collect();
        (!round.is_empty()).then_some(round)
    })
    .flatten()
}

/// Splits `files`, each a list of images: the first files for testing, the next for validation, the rest for training.
/// Then takes as many images of each split as `limit` allows, alternating between its files.
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
        let images = round_robin(files.by_ref().take(count).collect());
        let images: Vec<Vec<u8>> = images.take(limit.unwrap_or(usize::MAX)).collect();
        Images::new(images.len(), params.size, params.size, images.concat())
    };
    let Limits { train, validation: validation_limit, test: test_limit } = params.limit;
    let test = images(test, test_limit);
    let validation = images(validation, validation_limit);
    Ok(Splits { train: images(usize::MAX, train), validation, test })
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;
    use crate::data::picture::Format;

    /// Returns an image whose red channel is twice x, and whose green channel is twice y.
    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([2 * x as u8, 2 * y as u8, 7]))
    }

    fn png(rgb: RgbImage) -> Vec<u8> {
        Picture { rgb, alpha: None, is_grey: false, profile: None, other_profile: None }.encode(Format::Png).unwrap()
    }

    fn params(json: serde_json::Value) -> FolderParams {
        serde_json::from_value(json).unwrap()
    }

    fn params_with(size: usize, fit: Fit) -> FolderParams {
        FolderParams { size, fit, ..params(serde_json::json!({"path": "x"})) }
    }

    fn first_pixel(image: &[u8]) -> [u8; 3] {
        [image[0], image[1], image[2]]
    }

    #[test]
    fn every_fit_crops_the_right_region() {
        let file = png(gradient(40, 20));
        let crop = images(&file, &params_with(8, Fit::Crop)).unwrap();
        assert_eq!(crop.iter().map(|i| first_pixel(i)).collect::<Vec<_>>(), [[32, 12, 7]]);
        let tiles = images(&file, &params_with(16, Fit::Tiles)).unwrap();
        assert_eq!(tiles.iter().map(|i| first_pixel(i)).collect::<Vec<_>>(), [[0, 0, 7], [32, 0, 7]]);
        // The central 20×20 pixels, from column 10 on, unchanged because no scaling is needed.
        assert_eq!(first_pixel(&images(&file, &params_with(20, Fit::Cover)).unwrap()[0]), [20, 0, 7]);
        let half = images(&file, &params_with(10, Fit::Cover)).unwrap().remove(0);
        assert_eq!(half.len(), 300);
        // With half-pixel centres, pixel (4, 4) is between columns 18 and 19 and rows 8 and 9 of the file.
        assert_eq!(half[3 * 44..3 * 45], [37, 17, 7]);
        for fit in [Fit::Crop, Fit::Tiles] {
            assert_eq!(
                images(&file, &params_with(24, fit)).unwrap_err().to_string(),
                "the picture has 40×20 pixels, but at least 24×24 are needed"
            );
        }
        assert_eq!(images(&file, &params_with(24, Fit::Cover)).unwrap()[0].len(), 3 * 24 * 24);
    }

    #[test]
    fn the_images_of_a_file_are_in_one_split() {
        // File i has i + 1 images, whose pixels are all i.
        let files = |count: u8| (0..count).map(|i| vec![vec![i; 3]; i as usize + 1]).collect::<Vec<_>>();
        let values = |images: &Images| images.pixels.iter().step_by(3).copied().collect::<Vec<u8>>();
        let mut default_splits = params(serde_json::json!({"path": "x"}));
        default_splits.size = 1;
        let splits = split(files(4), &default_splits).unwrap();
        assert_eq!(
            [&splits.test, &splits.validation, &splits.train].map(values),
            [vec![0], vec![1, 1], vec![2, 3, 2, 3, 2, 3, 3]]
        );
        let given = params(serde_json::json!({"path": "x", "test": 2, "validation": 1, "limit": {"train": 2}}));
        let splits = split(files(4), &FolderParams { size: 1, ..given.clone() }).unwrap();
        assert_eq!(
            [&splits.test, &splits.validation, &splits.train].map(values),
            [vec![0, 1, 1], vec![2, 2, 2], vec![3, 3]]
        );
        let error = split(files(3), &given).unwrap_err().to_string();
        assert!(error.contains("leave none of 3"), "{error}");
    }

    #[test]
    fn few_tiles_are_spread_over_the_picture() {
        let file = png(gradient(120, 80));
        let limit = |n: usize| Limits { train: Some(n), validation: Some(2), test: Some(1) };
        let tiles = |n| images(&file, &FolderParams { limit: limit(n), ..params_with(8, Fit::Tiles) }).unwrap();
        let few = tiles(16);
        assert_eq!(few.len(), 16);
        // There are 15×10 tiles, and at least two are in each quarter.
        let quarter = |tile: &Vec<u8>| (tile[0] >= 120, tile[1] >= 80);
        for wanted in [(false, false), (false, true), (true, false), (true, true)] {
            assert!(few.iter().filter(|tile| quarter(tile) == wanted).count() >= 2, "{wanted:?}");
        }
        let mut all = tiles(1000);
        assert_eq!((all.len(), &all[..16]), (150, &few[..]));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 150);
    }
}
