//! Test images and the arms' outputs as PNGs embedded in the page.

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use png::{BitDepth, ColorType, Compression, Encoder};
use serde::Serialize;

use crate::comparison::BICUBIC;
use crate::config::metrics::Unit;
use crate::data::{Images, Samples, resample};
use crate::metrics::{Spectrum, mean_image, psnr};

/// An arm's outputs for the first test images, and the spectrum of all its outputs.
#[derive(Debug)]
pub struct ArmPictures {
    pub(super) name: String,
    /// The height and width of the whole images.
    whole: (usize, usize),
    /// The number K of samples per image.
    samples: usize,
    sample: Images,
    /// The second of several samples.
    another: Option<Images>,
    mean: Images,
    /// Per image and pixel, the standard deviation of the samples in 8-bit levels; empty for single outputs.
    spread: Option<Vec<Vec<f64>>>,
    spectrum: Spectrum,
}

impl ArmPictures {
    /// Takes `rows` images, or as many as there are.
    pub fn of(name: &str, samples: &Samples, rows: usize) -> Self {
        let rows = rows.min(samples.count);
        let window = Window::of(samples.height, samples.width);
        Self {
            name: name.to_string(),
            whole: (samples.height, samples.width),
            samples: samples.samples,
            sample: window.cut(&samples.first(0..rows)),
            another: (samples.samples > 1)
                .then(|| window.cut(&samples.each(0..rows, |samples, len| samples[len..2 * len].to_vec()))),
            mean: window.cut(&samples.each(0..rows, mean_image)),
            spread: (samples.samples > 1)
                .then(|| (0..rows).map(|i| window.part(&spread(samples, i), samples.width, 1)).collect()),
            spectrum: Spectrum::of(&samples.first(0..samples.count)),
        }
    }

    pub(super) fn spectrum(&self) -> &Spectrum {
        &self.spectrum
    }
}

/// The maximum side of a picture; larger images are cropped to the centre.
const MOST_SIDE: usize = 192;

/// The region of an image that is shown.
#[derive(Debug, Clone, Copy)]
struct Window {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

impl Window {
    fn of(height: usize, width: usize) -> Self {
        // Aligned with the pixels of low-resolution images for all usual factors.
        let begin = |side: usize| side.saturating_sub(MOST_SIDE) / 2 / 48 * 48;
        Self { top: begin(height), left: begin(width), height: height.min(MOST_SIDE), width: width.min(MOST_SIDE) }
    }

    /// Returns the same region of an image that is `scale` times smaller.
    fn smaller(self, scale: usize) -> Self {
        let Self { top, left, height, width } = self;
        Self { top: top / scale, left: left / scale, height: height / scale, width: width / scale }
    }

    fn cut(self, images: &Images) -> Images {
        let part = |i: usize| self.part(images.image(i), images.width, 3);
        Images::new(images.count, self.height, self.width, (0..images.count).flat_map(part).collect())
    }

    /// Crops row-major values, `each` per pixel.
    fn part<T: Copy>(self, values: &[T], width: usize, each: usize) -> Vec<T> {
        let rows = values.chunks_exact(width * each).skip(self.top).take(self.height);
        rows.flat_map(|row| &row[self.left * each..][..self.width * each]).copied().collect()
    }
}

/// The pictures of a comparison.
#[derive(Debug)]
pub struct Pictures {
    /// The height and width of the whole images.
    whole: (usize, usize),
    hr: Images,
    lr: Images,
    scale: usize,
    spectrum: Spectrum,
    bicubic: ArmPictures,
    arms: Vec<ArmPictures>,
}

impl Pictures {
    /// Takes all test images and their low-resolution versions, and shows `rows` of them. Omits arms with other images.
    pub fn new(hr: &Images, lr: &Images, scale: usize, rows: usize, arms: Vec<ArmPictures>) -> Self {
        let enlarged = resample::enlarge(lr, scale);
        let enlarged = Samples::new(enlarged.count, 1, enlarged.height, enlarged.width, enlarged.pixels);
        let rows = rows.min(hr.count).min(lr.count);
        let fits = |arm: &ArmPictures| arm.sample.count == rows && arm.whole == (hr.height, hr.width);
        let window = Window::of(hr.height, hr.width);
        Self {
            whole: (hr.height, hr.width),
            spectrum: Spectrum::of(hr),
            bicubic: ArmPictures::of(BICUBIC, &enlarged, rows),
            hr: window.cut(&hr.slice(0..rows)),
            lr: window.smaller(scale).cut(&lr.slice(0..rows)),
            scale,
            arms: arms.into_iter().filter(fits).collect(),
        }
    }

    /// The spectrum of the real images.
    pub(super) fn spectrum(&self) -> &Spectrum {
        &self.spectrum
    }

    pub(super) fn bicubic(&self) -> &ArmPictures {
        &self.bicubic
    }

    pub(super) fn arms(&self) -> &[ArmPictures] {
        &self.arms
    }

    pub(super) fn scale(&self) -> usize {
        self.scale
    }

    /// Returns the pictures as a table of at most about `size` bytes: with fewer test images if there are many arms
    /// and, if that is not enough, fewer arms.
    pub(super) fn gallery(&self, size: usize) -> anyhow::Result<Gallery> {
        let pixels = self.hr.height * self.hr.width;
        // Size in base64; a map has a palette and is mostly incompressible noise.
        let (picture, map) = (4 * pixels + 400, pixels + 400);
        let cost = |arm: &ArmPictures| if arm.samples > 1 { 3 * picture + 3 * map } else { picture + map };
        let column = self.arms.iter().chain([&self.bicubic]).map(cost).sum::<usize>() + 2 * picture;
        let images = (size / column.max(1)).clamp(1, self.hr.count.max(1)).min(self.hr.count);
        let top = self.top(images);

        let mut rows = vec![self.truth("HR", &self.hr, 1, images)?, self.truth("LR", &self.lr, self.scale, images)?];
        let (mut taken, mut left_out) = (0, 0);
        for arm in std::iter::once(&self.bicubic).chain(&self.arms) {
            taken += cost(arm) * images;
            if taken > size.max(cost(arm) * images) {
                left_out += 1;
            } else {
                rows.push(self.row(arm, images, top)?);
            }
        }
        Ok(Gallery {
            images,
            width: self.hr.width,
            height: self.hr.height,
            is_cut: (self.hr.height, self.hr.width) != self.whole,
            draws: self.arms.iter().any(|arm| arm.samples > 1),
            rows,
            left_out,
            top: format!("{top:.0}"),
            bar: uri(&self::map(&(0..=255).map(|v| f64::from(v) / 255.0 * top).collect::<Vec<_>>(), 256, top)?),
        })
    }

    /// Returns the value of the lightest map colour, in 8-bit levels; few errors are larger.
    fn top(&self, images: usize) -> f64 {
        let of_arm = |arm: &ArmPictures| -> Vec<f64> {
            (0..images).flat_map(|i| errors(self.hr.image(i), arm.sample.image(i))).collect()
        };
        let mut all: Vec<f64> = self.arms.iter().chain([&self.bicubic]).flat_map(of_arm).collect();
        all.sort_unstable_by(f64::total_cmp);
        let high = all.get(all.len() * 98 / 100).copied().unwrap_or(0.0);
        [16.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0].into_iter().find(|top| *top >= high).unwrap_or(255.0)
    }

    fn truth(&self, name: &str, images: &Images, scale: usize, count: usize) -> anyhow::Result<Row> {
        let cell = |i: usize| {
            Ok(vec![Shown {
                views: View::ALL.join(" "),
                src: uri(&rgb(images.image(i), images.width)?),
                caption: String::new(),
            }])
        };
        Ok(Row {
            name: name.to_string(),
            note: format!("{}×{}", self.whole.1 / scale, self.whole.0 / scale),
            is_arm: false,
            cells: (0..count).map(cell).collect::<anyhow::Result<_>>()?,
        })
    }

    fn row(&self, arm: &ArmPictures, count: usize, top: f64) -> anyhow::Result<Row> {
        let cell = |i: usize| -> anyhow::Result<Vec<Shown>> {
            let hr = self.hr.image(i);
            let picture = |views: &[&str], image: &[u8]| -> anyhow::Result<Shown> {
                let caption = format!("{:.2}{}", psnr(hr, image), Unit::Decibel.suffix());
                Ok(Shown { views: views.join(" "), src: uri(&rgb(image, self.hr.width)?), caption })
            };
            let map = |views: &[&str], values: &[f64]| -> anyhow::Result<Shown> {
                let caption = format!("{:.1}", root_mean_square(values));
                Ok(Shown { views: views.join(" "), src: uri(&map(values, self.hr.width, top)?), caption })
            };
            let (sample, mean) = (arm.sample.image(i), arm.mean.image(i));
            let (Some(spread), Some(another)) = (&arm.spread, &arm.another) else {
                return Ok(vec![
                    picture(&[View::SAMPLE, View::ANOTHER, View::MEAN], sample)?,
                    map(&[View::ERROR, View::MEAN_ERROR], &errors(hr, sample))?,
                ]);
            };
            Ok(vec![
                picture(&[View::SAMPLE], sample)?,
                picture(&[View::ANOTHER], another.image(i))?,
                picture(&[View::MEAN], mean)?,
                map(&[View::SPREAD], &spread[i])?,
                map(&[View::ERROR], &errors(hr, sample))?,
                map(&[View::MEAN_ERROR], &errors(hr, mean))?,
            ])
        };
        Ok(Row {
            name: arm.name.clone(),
            note: if arm.samples > 1 { format!("{} samples", arm.samples) } else { "single output".to_string() },
            is_arm: true,
            cells: (0..count).map(cell).collect::<anyhow::Result<_>>()?,
        })
    }
}

/// The views of an arm's pictures, which are also CSS classes.
struct View;

impl View {
    const SAMPLE: &str = "sample";
    const ANOTHER: &str = "another";
    const MEAN: &str = "mean";
    const SPREAD: &str = "spread";
    const ERROR: &str = "error";
    const MEAN_ERROR: &str = "mean-error";
    const ALL: [&str; 6] = [Self::SAMPLE, Self::ANOTHER, Self::MEAN, Self::SPREAD, Self::ERROR, Self::MEAN_ERROR];
}

/// A table with one row per upscaling method and one column per test image.
#[derive(Debug, Serialize)]
pub(super) struct Gallery {
    images: usize,
    width: usize,
    height: usize,
    /// Whether images are cropped to the centre.
    is_cut: bool,
    /// Whether an arm has several samples per image.
    draws: bool,
    rows: Vec<Row>,
    /// The number of arms omitted to limit the size of the page.
    left_out: usize,
    /// The value of the lightest map colour.
    top: String,
    /// The colour scale of the maps, from 0 to `top`.
    bar: String,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    note: String,
    is_arm: bool,
    /// Per test image, the pictures of each view.
    cells: Vec<Vec<Shown>>,
}

#[derive(Debug, Serialize)]
struct Shown {
    /// The views in which it is visible.
    views: String,
    src: String,
    /// PSNR, or the root mean square of a map.
    caption: String,
}

/// Returns the standard deviation (n - 1) of the samples of image `i` at each pixel, as the root mean square over the
/// channels.
fn spread(samples: &Samples, i: usize) -> Vec<f64> {
    let all = samples.of_image(i);
    let (len, n) = (all.len() / samples.samples, samples.samples as f64);
    let variance = |at: usize| {
        let values = || all[at..].iter().step_by(len).map(|&v| f64::from(v));
        let mean = values().sum::<f64>() / n;
        values().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)
    };
    (0..len / 3).map(|pixel| (0..3).map(|c| variance(3 * pixel + c)).sum::<f64>() / 3.0).map(f64::sqrt).collect()
}

/// Returns the root mean square over the channels of the difference at each pixel.
fn errors(a: &[u8], b: &[u8]) -> Vec<f64> {
    let pixels = a.chunks_exact(3).zip(b.chunks_exact(3));
    let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
    pixels.map(|(a, b)| (a.iter().zip(b).map(square).sum::<f64>() / 3.0).sqrt()).collect()
}

fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|v| v * v).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

/// The number of colours of a map; few, to save space.
const LEVELS: usize = 32;

/// From black via violet and orange to pale yellow with uniform lightness steps: inferno by Smith and van der Walt,
/// sampled at nine points.
const INFERNO: [[u8; 3]; 9] = [
    [0, 0, 4],
    [31, 12, 72],
    [85, 15, 109],
    [136, 34, 106],
    [186, 54, 85],
    [227, 89, 51],
    [249, 140, 10],
    [249, 201, 50],
    [252, 255, 164],
];

fn palette() -> Vec<u8> {
    let color = |level: usize| {
        let at = level as f64 / (LEVELS - 1) as f64 * (INFERNO.len() - 1) as f64;
        let below = (at as usize).min(INFERNO.len() - 2);
        let part = at - below as f64;
        let mix = move |c: usize| {
            let [from, to] = [INFERNO[below][c], INFERNO[below + 1][c]].map(f64::from);
            (from + part * (to - from)).round() as u8
        };
        (0..3).map(mix)
    };
    (0..LEVELS).flat_map(color).collect()
}

/// Encodes a map of values from 0 to `top` as a PNG.
pub(super) fn map(values: &[f64], width: usize, top: f64) -> anyhow::Result<Vec<u8>> {
    let level = |v: &f64| (v / top * (LEVELS - 1) as f64).round().clamp(0.0, (LEVELS - 1) as f64) as u8;
    let levels: Vec<u8> = values.iter().map(level).collect();
    encode(&levels, width, ColorType::Indexed)
}

/// Encodes an image `(height, width, 3)` as a PNG.
pub(super) fn rgb(image: &[u8], width: usize) -> anyhow::Result<Vec<u8>> {
    encode(image, width, ColorType::Rgb)
}

fn encode(pixels: &[u8], width: usize, color: ColorType) -> anyhow::Result<Vec<u8>> {
    let channels = if color == ColorType::Rgb { 3 } else { 1 };
    let mut bytes = vec![];
    let mut encoder = Encoder::new(&mut bytes, width as u32, (pixels.len() / width / channels) as u32);
    encoder.set_color(color);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::High);
    if color == ColorType::Indexed {
        encoder.set_palette(palette());
    }
    let mut writer = encoder.write_header().context("encoding a PNG")?;
    writer.write_image_data(pixels).context("encoding a PNG")?;
    writer.finish().context("encoding a PNG")?;
    Ok(bytes)
}

pub(super) fn uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: usize, samples: usize) -> Samples {
        let len = count * samples * 3 * 64;
        Samples::new(count, samples, 8, 8, (0..len).map(|i| (i * i % 251) as u8).collect())
    }

    fn pictures(arms: Vec<ArmPictures>) -> Pictures {
        let hr = samples(6, 1).first(0..6);
        let lr = Images::new(6, 4, 4, (0..6 * 48).map(|i| (i * 7 % 250) as u8).collect());
        Pictures::new(&hr, &lr, 2, 4, arms)
    }

    #[test]
    fn maps_show_errors_and_spread() {
        let two = Samples::new(1, 2, 1, 2, vec![0, 0, 0, 10, 20, 30, 2, 2, 2, 10, 20, 30]);
        assert_eq!(spread(&two, 0), [2f64.sqrt(), 0.0]);
        assert_eq!(errors(&[0, 0, 0, 5, 5, 5], &[3, 3, 3, 5, 5, 5]), [3.0, 0.0]);
        let png = map(&[0.0, 50.0, 100.0, 500.0], 2, 100.0).unwrap();
        let png = image::load_from_memory(&png).unwrap().to_rgb8();
        assert_eq!([png.get_pixel(0, 0).0, png.get_pixel(1, 1).0], [INFERNO[0], INFERNO[8]]);
        assert_eq!(png.get_pixel(0, 1), png.get_pixel(1, 1));
    }

    #[test]
    fn images_survive_encoding_as_png() {
        let images = samples(1, 1).first(0..1);
        let png = image::load_from_memory(&rgb(images.image(0), 8).unwrap()).unwrap().to_rgb8();
        assert_eq!(png.into_raw(), images.pixels);
    }

    #[test]
    fn a_gallery_has_every_arm_and_as_many_images_as_fit() {
        let arms = || (0..5).map(|i| ArmPictures::of(&format!("arm {i}"), &samples(6, 3), 4)).collect();
        let gallery = pictures(arms()).gallery(1 << 20).unwrap();
        let names: Vec<&str> = gallery.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["HR", "LR", "bicubic", "arm 0", "arm 1", "arm 2", "arm 3", "arm 4"]);
        assert_eq!((gallery.images, gallery.left_out, gallery.rows[3].cells[0].len()), (4, 0, 6));
        let tight = pictures(arms()).gallery(40_000).unwrap();
        assert!(tight.images < 4 && tight.left_out == 0, "{} {}", tight.images, tight.left_out);
        let tiny = pictures(arms()).gallery(5_000).unwrap();
        assert!(tiny.images == 1 && tiny.left_out > 0 && tiny.rows.len() > 2);
    }

    #[test]
    fn large_images_are_cropped_to_the_centre() {
        // The value of a pixel encodes its position, in steps of eight.
        let pixels = |height: usize, width: usize, scale: usize| -> Vec<u8> {
            let place = |i: usize| [(i / width * scale / 8) as u8, (i % width * scale / 8) as u8, 0];
            (0..height * width).flat_map(place).collect()
        };
        let (hr, lr) = (Images::new(1, 400, 304, pixels(400, 304, 1)), Images::new(1, 50, 38, pixels(50, 38, 8)));
        let samples = Samples::new(1, 1, 400, 304, hr.pixels.clone());
        let pictures = Pictures::new(&hr, &lr, 8, 1, vec![ArmPictures::of("a", &samples, 1)]);
        assert_eq!((pictures.hr.height, pictures.hr.width), (192, 192));
        assert_eq!((pictures.lr.height, pictures.lr.width), (24, 24));
        assert_eq!(pictures.arms[0].sample, pictures.hr);
        // (400 - 192) / 2 = 104, and 96 is a multiple of 48; (304 - 192) / 2 = 56 likewise.
        assert_eq!(pictures.hr.pixels[..2], [96 / 8, 48 / 8]);
        assert_eq!(pictures.lr.pixels[..2], [96 / 8, 48 / 8]);
        let gallery = pictures.gallery(1 << 22).unwrap();
        assert!(gallery.is_cut && gallery.left_out == 0);
        assert_eq!([&gallery.rows[0].note, &gallery.rows[1].note], ["304×400", "38×50"]);
    }

    #[test]
    fn arms_with_other_images_are_omitted() {
        let other = Samples::new(6, 1, 4, 4, vec![0; 6 * 48]);
        let pictures = pictures(vec![ArmPictures::of("other", &other, 4), ArmPictures::of("a", &samples(6, 2), 4)]);
        assert_eq!(pictures.arms().len(), 1);
    }
}
