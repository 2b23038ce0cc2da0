//! Pictures of other programs: PNG, JPEG and WebP files, as they come and as they are given back.

use std::io::Cursor;

use anyhow::{Context, Result, ensure};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{
    DynamicImage, ExtendedColorType, GrayImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, RgbImage,
};

use super::Images;
use super::resample::enlarge;

/// The most memory that decoding one file may take, in bytes: a small file can claim to be a huge image.
const MAX_DECODED: u64 = 1 << 30;
/// Of JPEG files.
const QUALITY: u8 = 95;

/// A picture with 8 bits a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The colours, laid over white where the picture is transparent; three equal channels where it is grey.
    pub rgb: RgbImage,
    /// How opaque it is, where the file says.
    pub alpha: Option<GrayImage>,
    pub is_grey: bool,
    /// What the file says its colours mean (an ICC profile), where it is about such channels.
    pub profile: Option<Vec<u8>>,
}

/// What a picture is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Png,
    /// Without transparency.
    Jpeg,
    /// Without loss.
    WebP,
}

impl Format {
    /// By the ending of a file's name.
    pub fn of_ending(ending: &str) -> Option<Self> {
        match ending.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }
}

impl Picture {
    /// The format is told by the first bytes, whatever the file's name. 16 bits are rounded to 8, and a camera's note on
    /// how it was held is heeded.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        let mut reader = reader.context("reading its first bytes")?;
        let mut limits = image::Limits::default();
        limits.max_alloc = Some(MAX_DECODED);
        reader.limits(limits);
        // A decoder makes up what is missing.
        ensure!(reader.format() != Some(ImageFormat::Jpeg) || has_end(bytes), "the file ends before the picture does");
        let mut decoder = reader.into_decoder()?;
        let (width, height) = decoder.dimensions();
        ensure!(decoder.total_bytes() <= MAX_DECODED, "{width}×{height} pixels are more than 1 GiB");
        let orientation = decoder.orientation()?;
        let profile = decoder.icc_profile().ok().flatten();
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        ensure!(image.width() > 0 && image.height() > 0, "an image without pixels");
        let is_grey = !image.color().has_color();
        // Bytes 16 to 20 of a profile name the channels that it is about.
        let channels: &[u8] = if is_grey { b"GRAY" } else { b"RGB " };
        let profile = profile.filter(|profile| profile.get(16..20) == Some(channels));
        if !image.color().has_alpha() {
            return Ok(Self { rgb: image.into_rgb8(), alpha: None, is_grey, profile });
        }
        let image = image.into_rgba8();
        let (width, height) = image.dimensions();
        let alpha = GrayImage::from_fn(width, height, |x, y| image::Luma([image.get_pixel(x, y).0[3]]));
        let rgb = RgbImage::from_fn(width, height, |x, y| {
            let [r, g, b, a] = image.get_pixel(x, y).0;
            image::Rgb([r, g, b].map(|v| over_white(v, a)))
        });
        Ok(Self { rgb, alpha: Some(alpha), is_grey, profile })
    }

    /// The colours alone.
    pub fn colours(&self) -> Images {
        Images::new(1, self.rgb.height() as usize, self.rgb.width() as usize, self.rgb.as_raw().clone())
    }

    /// This picture `scale` times larger, with `colours`; its opacity is enlarged bicubically.
    pub fn enlarged(&self, colours: &Images, scale: usize) -> Self {
        let (width, height) = (colours.width as u32, colours.height as u32);
        let alpha = self.alpha.as_ref().map(|alpha| {
            // The opacity of a pixel as its three channels.
            let pixels = alpha.as_raw().iter().flat_map(|&a| [a; 3]).collect();
            let alpha = Images::new(1, alpha.height() as usize, alpha.width() as usize, pixels);
            let pixels = enlarge(&alpha, scale).pixels.into_iter().step_by(3).collect();
            GrayImage::from_raw(width, height, pixels).expect("a value a pixel")
        });
        let rgb = RgbImage::from_raw(width, height, colours.pixels.clone()).expect("three values a pixel");
        Self { rgb, alpha, is_grey: self.is_grey, profile: self.profile.clone() }
    }

    pub fn encode(&self, format: Format) -> Result<Vec<u8>> {
        let mut bytes = vec![];
        match format {
            Format::Png => self.write(PngEncoder::new(&mut bytes), true),
            Format::Jpeg => self.write(JpegEncoder::new_with_quality(&mut bytes, QUALITY), false),
            Format::WebP => self.write(WebPEncoder::new_lossless(&mut bytes), true),
        }?;
        Ok(bytes)
    }

    /// `transparent`: whether the format can be.
    fn write(&self, mut encoder: impl ImageEncoder, transparent: bool) -> Result<()> {
        if let Some(profile) = &self.profile {
            // A format that has no place for it leaves it out.
            let _ = encoder.set_icc_profile(profile.clone());
        }
        let alpha = self.alpha.as_ref().filter(|_| transparent);
        let mut bytes = vec![];
        for (i, pixel) in self.rgb.pixels().enumerate() {
            let grey = [mean(pixel.0)];
            let colours: &[u8] = if self.is_grey { &grey } else { &pixel.0 };
            match alpha {
                None => bytes.extend(colours),
                Some(alpha) => {
                    let a = alpha.as_raw()[i];
                    bytes.extend(colours.iter().map(|&v| off_white(v, a)));
                    bytes.push(a);
                }
            }
        }
        let kind = match (self.is_grey, alpha) {
            (false, None) => ExtendedColorType::Rgb8,
            (false, Some(_)) => ExtendedColorType::Rgba8,
            (true, None) => ExtendedColorType::L8,
            (true, Some(_)) => ExtendedColorType::La8,
        };
        encoder.write_image(&bytes, self.rgb.width(), self.rgb.height(), kind)?;
        Ok(())
    }
}

/// Whether a JPEG file comes to the mark of its end, whatever follows that: segment by segment (ITU T.81, annex B).
fn has_end(jpeg: &[u8]) -> bool {
    // Behind the mark of the beginning.
    let mut at = 2;
    while let Some(&[first, marker]) = jpeg.get(at..at + 2) {
        at += match (first, marker) {
            (0xFF, 0xD9) => return true,
            // Marks without a length, and a byte of a scan that looks like one.
            (0xFF, 0x00 | 0x01 | 0xD0..=0xD8) => 2,
            (0xFF, 0xFF) => 1,
            (0xFF, _) => match jpeg.get(at + 2..at + 4) {
                Some(&[high, low]) => 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
            _ => 1,
        };
    }
    false
}

fn mean([r, g, b]: [u8; 3]) -> u8 {
    ((r as u32 + g as u32 + b as u32 + 1) / 3) as u8
}

/// A colour laid over white.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (value as u32, alpha as u32);
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// The colour that gives this one when it is laid over white, or the nearest there is.
fn off_white(value: u8, alpha: u8) -> u8 {
    let (lack, alpha) = (255 * (255 - value as u32), alpha as u32);
    255 - (lack + alpha / 2).checked_div(alpha).unwrap_or(0).min(255) as u8
}

#[cfg(test)]
mod tests {
    use image::{Rgba, RgbaImage};

    use super::*;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(vec![]);
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn every_format_is_told_by_its_content() {
        let grey = DynamicImage::ImageRgb8(RgbImage::from_pixel(9, 9, image::Rgb([80, 80, 80])));
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let picture = Picture::decode(&encoded(&grey, format)).unwrap();
            assert!(picture.rgb.pixels().all(|p| p.0.iter().all(|&v| v.abs_diff(80) <= 1)), "{format:?}");
            assert!(!picture.is_grey && picture.alpha.is_none());
        }
        let sixteen = DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(2, 2, image::Luma([0x8080])));
        let picture = Picture::decode(&encoded(&sixteen, ImageFormat::Png)).unwrap();
        assert!(picture.rgb.get_pixel(1, 1).0 == [128; 3] && picture.is_grey);
    }

    #[test]
    fn what_is_transparent_is_white() {
        let image = RgbaImage::from_fn(3, 1, |x, _| Rgba([0, 100, 200, [0, 128, 255][x as usize]]));
        let picture = Picture::decode(&encoded(&image.into(), ImageFormat::Png)).unwrap();
        assert_eq!(picture.rgb.pixels().map(|p| p.0).collect::<Vec<_>>(), [[255; 3], [127, 177, 227], [0, 100, 200]]);
        assert_eq!(picture.alpha.unwrap().into_raw(), [0, 128, 255]);
    }

    #[test]
    fn what_is_no_image_is_an_error() {
        let file = encoded(&RgbImage::new(30, 30).into(), ImageFormat::Png);
        for bytes in [&b""[..], b"not an image", &file[..file.len() / 2]] {
            assert!(Picture::decode(bytes).is_err());
        }
        // A header that claims 60,000×60,000 pixels.
        let mut huge = file.clone();
        huge[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        let mut crc = flate2::Crc::new();
        crc.update(&huge[12..29]);
        huge[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        let error = Picture::decode(&huge).unwrap_err().to_string();
        assert!(error.contains("60000×60000 pixels"), "{error}");
        let jpeg = encoded(&RgbImage::new(30, 30).into(), ImageFormat::Jpeg);
        assert!(Picture::decode(&jpeg).is_ok() && Picture::decode(&jpeg[..jpeg.len() - 2]).is_err());
        // What follows the picture is not looked at, such as a film.
        assert!(Picture::decode(&[&jpeg[..], &[7, 0xFF, 0xDA, 0, 9]].concat()).is_ok());
    }

    /// A picture of every kind.
    fn pictures() -> Vec<Picture> {
        let rgb = RgbImage::from_fn(7, 5, |x, y| image::Rgb([30 * x as u8, 40 * y as u8, 200]));
        let grey = RgbImage::from_fn(7, 5, |x, y| image::Rgb([(30 * x + 10 * y) as u8; 3]));
        let alpha = GrayImage::from_fn(7, 5, |x, _| image::Luma([(255 - 20 * x) as u8]));
        // Over white, nothing is darker than what the white leaves.
        let over = |image: &RgbImage| {
            let mut image = image.clone();
            image.pixels_mut().zip(alpha.pixels()).for_each(|(p, a)| p.0 = p.0.map(|v| over_white(v, a.0[0])));
            image
        };
        let mut profile = vec![0; 200];
        profile[16..20].copy_from_slice(b"RGB ");
        let plain = Picture { rgb: rgb.clone(), alpha: None, is_grey: false, profile: None };
        vec![
            Picture { rgb: over(&rgb), alpha: Some(alpha.clone()), ..plain.clone() },
            Picture { rgb: over(&grey), alpha: Some(alpha.clone()), is_grey: true, ..plain.clone() },
            Picture { rgb: grey, is_grey: true, ..plain.clone() },
            Picture { profile: Some(profile), ..plain.clone() },
            plain,
        ]
    }

    #[test]
    fn a_picture_comes_back_as_it_was() {
        for picture in pictures() {
            let png = Picture::decode(&picture.encode(Format::Png).unwrap()).unwrap();
            assert_eq!((png.is_grey, &png.alpha, &png.profile), (picture.is_grey, &picture.alpha, &picture.profile));
            let near = |a: &Picture, by: u8| {
                a.rgb.as_raw().iter().zip(picture.rgb.as_raw()).all(|(a, b)| a.abs_diff(*b) <= by)
            };
            assert!(near(&png, 1));
            let webp = Picture::decode(&picture.encode(Format::WebP).unwrap()).unwrap();
            assert!(near(&webp, 1) && webp.alpha == picture.alpha);
            let jpeg = Picture::decode(&picture.encode(Format::Jpeg).unwrap()).unwrap();
            assert!(jpeg.alpha.is_none() && jpeg.is_grey == picture.is_grey && near(&jpeg, 40));
        }
    }

    #[test]
    fn a_larger_picture_is_as_opaque() {
        for picture in pictures() {
            let large = picture.enlarged(&enlarge(&picture.colours(), 2), 2);
            assert_eq!((large.rgb.dimensions(), large.is_grey), ((14, 10), picture.is_grey));
            assert_eq!(large.alpha.is_some(), picture.alpha.is_some());
            if let (Some(large), Some(small)) = (&large.alpha, &picture.alpha) {
                // On a ramp, halfway between two pixels.
                assert_eq!(large.dimensions(), (14, 10));
                assert!(large.get_pixel(6, 4).0[0].abs_diff(small.get_pixel(3, 2).0[0] + 5) <= 1);
            }
        }
    }

    #[test]
    fn formats_go_by_the_ending() {
        assert_eq!(["png", "JPG", "jpeg", "webp"].map(|e| Format::of_ending(e).is_some()), [true; 4]);
        assert_eq!(Format::of_ending("tiff"), None);
    }
}
