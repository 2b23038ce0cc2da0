//! Pictures from other programs: decodes and encodes PNG, JPEG and WebP files.
//!
//! Files are untrusted. The size that a file claims is checked against its length before memory is allocated.

mod jpeg;
mod png;
mod webp;

use std::borrow::Cow;
use std::io::Cursor;

use anyhow::{Context, Result, anyhow, ensure};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::metadata::Orientation;
use image::{
    DynamicImage, ExtendedColorType, GrayImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, RgbImage,
};

use super::Images;
use super::resample::enlarge;
use crate::store::Digest;

/// The maximum size of one file's decoded pixels, in bytes.
const MAX_DECODED: u64 = 1 << 30;
/// Images up to this decoded size, in bytes, are decoded regardless of the length of the file.
const ALWAYS_DECODED: u64 = 64 << 20;
/// Above that, the maximum ratio of decoded bytes to bytes of the file. Deflate, the strongest compression here,
/// reaches 1032.
const MAX_RATIO: u64 = 1100;
/// The maximum memory that a decoder may use for data other than pixels, in bytes: texts and profiles, which are
/// compressed.
const MAX_METADATA: u64 = 64 << 20;
/// The length of an ICC profile's header (ICC.1:2022, 7.2).
const PROFILE_HEADER: usize = 128;
/// The quality of written JPEG files.
const JPEG_QUALITY: u8 = 95;

/// A picture with 8 bits per channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The colours, blended over white if the picture is transparent; three equal channels if it is greyscale.
    pub rgb: RgbImage,
    /// The alpha channel, if the file has one.
    pub alpha: Option<GrayImage>,
    pub is_grey: bool,
    /// The file's ICC colour profile, if it matches the channels.
    pub profile: Option<Vec<u8>>,
    /// The kind of the file's colour profile if it does not match the channels, such as "CMYK", or "damaged".
    pub other_profile: Option<String>,
}

/// A file format for pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Png,
    /// Without transparency.
    Jpeg,
    /// Lossless.
    WebP,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
        }
    }

    /// The maximum width and height in pixels.
    pub fn max_side(self) -> usize {
        match self {
            Self::Png => i32::MAX as usize,
            Self::Jpeg => 65_535,
            Self::WebP => 16_383,
        }
    }

    /// Whether the format can store greyscale pixels.
    fn has_grey(self) -> bool {
        self != Self::WebP
    }

    /// Returns the format for a file name extension.
    pub fn from_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }
}

/// Joins the causes of an error, without those whose text is already contained in another's.
fn deduplicate_causes(error: &anyhow::Error) -> anyhow::Error {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(cause.trim()) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{cause}");
        }
    }
    anyhow!(text)
}

impl Picture {
    /// Decodes a file. The format is detected from the first bytes. 16-bit channels are rounded to 8 bits, and the EXIF
    /// orientation is applied.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_any(bytes).map_err(|error| deduplicate_causes(&error))
    }

    fn decode_any(bytes: &[u8]) -> Result<Self> {
        let format = reader(bytes)?.format();
        let bytes = match format {
            Some(ImageFormat::Jpeg) => jpeg::with_end(bytes, digest)?,
            Some(ImageFormat::Png) => png::with_end(bytes),
            _ => Cow::Borrowed(bytes),
        };
        let mut decoder = decoder(&bytes)?;
        let (orientation, profile) = match format {
            Some(ImageFormat::WebP) => {
                let webp::Metadata { icc, exif } = webp::metadata(&bytes);
                (exif.and_then(Orientation::from_exif_chunk), icc.map(<[u8]>::to_vec))
            }
            _ => (Some(decoder.orientation()?), decoder.icc_profile().ok().flatten()),
        };
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
        ensure!(image.width() > 0 && image.height() > 0, "the image has no pixels");
        let is_grey = !image.color().has_color();
        let (profile, other_profile) = match profile.map(|profile| (profile_kind(&profile), profile)) {
            Some((Some(kind), profile)) if kind == if is_grey { "GRAY" } else { "RGB" } => (Some(profile), None),
            Some((kind, _)) => (None, Some(kind.unwrap_or_else(|| "damaged".to_string()))),
            None => (None, None),
        };
        if !image.color().has_alpha() {
            return Ok(Self { rgb: image.into_rgb8(), alpha: None, is_grey, profile, other_profile });
        }
        let image = image.into_rgba8();
        let (width, height) = image.dimensions();
        let alpha = GrayImage::from_fn(width, height, |x, y| image::Luma([image.get_pixel(x, y).0[3]]));
        let rgb = RgbImage::from_fn(width, height, |x, y| {
            let [r, g, b, a] = image.get_pixel(x, y).0;
            image::Rgb([r, g, b].map(|v| blend_over_white(v, a)))
        });
        Ok(Self { rgb, alpha: Some(alpha), is_grey, profile, other_profile })
    }

    /// Returns the colours, without the alpha channel.
    pub fn colours(&self) -> Images {
        Images::new(1, self.rgb.height() as usize, self.rgb.width() as usize, self.rgb.as_raw().clone())
    }

    /// Returns this picture `scale` times larger, with the given colours; the alpha channel is enlarged bicubically.
    pub fn enlarged(&self, colours: &Images, scale: usize) -> Self {
        let (width, height) = (colours.width as u32, colours.height as u32);
        let alpha = self.alpha.as_ref().map(|alpha| {
            // Repeat the alpha channel as three colour channels.
            let pixels = alpha.as_raw().iter().flat_map(|&a| [a; 3]).collect();
            let alpha = Images::new(1, alpha.height() as usize, alpha.width() as usize, pixels);
            let pixels = enlarge(&alpha, scale).pixels.into_iter().step_by(3).collect();
            GrayImage::from_raw(width, height, pixels).expect("one value per pixel")
        });
        let rgb = RgbImage::from_raw(width, height, colours.pixels.clone()).expect("three values per pixel");
        Self { rgb, alpha, ..self.clone_colours() }
    }

    /// Copies the metadata about the colours, without the pixels.
    fn clone_colours(&self) -> Self {
        Self {
            rgb: RgbImage::default(),
            alpha: None,
            is_grey: self.is_grey,
            profile: self.profile.clone(),
            other_profile: self.other_profile.clone(),
        }
    }

    /// Returns the colour profile to embed in a file of this format; None if the profile does not match the channels.
    fn profile_in(&self, format: Format) -> Option<&[u8]> {
        self.profile.as_deref().filter(|_| !self.is_grey || format.has_grey())
    }

    /// Returns the kind of the colour profile that is dropped when writing this format.
    pub fn dropped_profile(&self, format: Format) -> Option<&str> {
        let mismatched = self.profile.is_some() && self.profile_in(format).is_none();
        if mismatched { Some("GRAY") } else { self.other_profile.as_deref() }
    }

    /// Encodes the picture.
    pub fn encode(&self, format: Format) -> Result<Vec<u8>> {
        let mut bytes = vec![];
        match format {
            Format::Png => self.write(PngEncoder::new(&mut bytes), format, true),
            Format::Jpeg => self.write(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY), format, false),
            Format::WebP => self.write(WebPEncoder::new_lossless(&mut bytes), format, true),
        }?;
        Ok(bytes)
    }

    /// Writes the picture. `transparent`: whether the format supports an alpha channel.
    fn write(&self, mut encoder: impl ImageEncoder, format: Format, transparent: bool) -> Result<()> {
        if let Some(profile) = self.profile_in(format) {
            encoder.set_icc_profile(profile.to_vec())?;
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
                    bytes.extend(colours.iter().map(|&v| remove_white(v, a)));
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

fn reader(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().context("reading its first bytes")?;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_METADATA);
    reader.limits(limits);
    Ok(reader)
}

/// Returns a decoder that has read the header. Fails if the file is too short for the size that the header claims.
fn decoder(bytes: &[u8]) -> Result<impl ImageDecoder> {
    let decoder = reader(bytes)?.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let pixels = decoder.total_bytes();
    ensure!(pixels <= MAX_DECODED, "{width}×{height} pixels need more than 1 GiB of memory");
    ensure!(
        pixels <= ALWAYS_DECODED || pixels / MAX_RATIO <= bytes.len() as u64,
        "it claims {width}×{height} pixels, too many for a file of {} bytes",
        bytes.len()
    );
    Ok(decoder)
}

/// Returns the digest of the decoded pixels; None if they cannot be decoded.
fn digest(bytes: &[u8]) -> Option<Digest> {
    let image = DynamicImage::from_decoder(decoder(bytes).ok()?).ok()?;
    Some(Digest::of(image.as_bytes()))
}

/// Returns the channels that a colour profile describes, such as "RGB" or "CMYK"; None if it is not a valid profile.
fn profile_kind(profile: &[u8]) -> Option<String> {
    let header = profile.get(..PROFILE_HEADER)?;
    let size = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let is_profile = (PROFILE_HEADER..=profile.len()).contains(&size) && &header[36..40] == b"acsp";
    let kind = std::str::from_utf8(&header[16..20]).ok()?.trim_end();
    (is_profile && kind.bytes().all(|byte| byte.is_ascii_graphic())).then(|| kind.to_string())
}

fn mean([r, g, b]: [u8; 3]) -> u8 {
    ((r as u32 + g as u32 + b as u32 + 1) / 3) as u8
}

/// Blends a colour over white.
fn blend_over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (value as u32, alpha as u32);
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// Returns the colour that, blended over white, comes closest to `value`; the inverse of [`blend_over_white`].
fn remove_white(value: u8, alpha: u8) -> u8 {
    let (distance, alpha) = (255 * (255 - value as u32), alpha as u32);
    255 - (distance + alpha / 2).checked_div(alpha).unwrap_or(0).min(255) as u8
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
    fn formats_are_detected_from_the_content() {
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
    fn transparent_pixels_are_blended_over_white() {
        let image = RgbaImage::from_fn(3, 1, |x, _| Rgba([0, 100, 200, [0, 128, 255][x as usize]]));
        let picture = Picture::decode(&encoded(&image.into(), ImageFormat::Png)).unwrap();
        assert_eq!(picture.rgb.pixels().map(|p| p.0).collect::<Vec<_>>(), [[255; 3], [127, 177, 227], [0, 100, 200]]);
        assert_eq!(picture.alpha.unwrap().into_raw(), [0, 128, 255]);
    }

    #[test]
    fn invalid_files_are_errors() {
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
        // A smaller image, but still more than the file can hold.
        let mut large = file.clone();
        large[16..24].copy_from_slice(&[0, 0, 0x20, 0, 0, 0, 0x20, 0]);
        let mut crc = flate2::Crc::new();
        crc.update(&large[12..29]);
        large[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        let error = Picture::decode(&large).unwrap_err().to_string();
        assert!(error.contains("claims 8192×8192 pixels"), "{error}");
    }

    fn jpegs() -> Vec<(&'static str, Vec<u8>)> {
        let busy = RgbImage::from_fn(60, 44, |x, y| image::Rgb([(x * x) as u8, (y * 7 + x) as u8, (x * y) as u8]));
        vec![
            ("flat", encoded(&RgbImage::from_pixel(30, 30, image::Rgb([90, 120, 60])).into(), ImageFormat::Jpeg)),
            ("busy", encoded(&busy.clone().into(), ImageFormat::Jpeg)),
            ("grey", encoded(&DynamicImage::from(busy).into_luma8().into(), ImageFormat::Jpeg)),
            // Ten scans, written by libjpeg.
            ("progressive", include_bytes!("../../tests/fixtures/progressive.jpg").to_vec()),
        ]
    }

    #[test]
    fn complete_jpegs_do_not_need_an_end_marker() {
        for (name, jpeg) in jpegs() {
            let whole = Picture::decode(&jpeg).unwrap();
            // Data after the image, such as a video, are ignored.
            let film = [&jpeg[..], &[7, 0xFF, 0xDA, 0, 9]].concat();
            let open = &jpeg[..jpeg.len() - 2];
            assert_eq!(jpeg[jpeg.len() - 2..], [0xFF, 0xD9]);
            let trailers: [&[u8]; 5] =
                [b"", &[0; 300], b"SEFHe\0\0\0\x01\0\0\0SEFT", &[0xFF], &[0xFF, 0x02, 0xFF, 0xE1, 0xFF, 0xFF]];
            for trailer in trailers {
                assert_eq!(Picture::decode(&[open, trailer].concat()).unwrap(), whole, "{name}, {trailer:?}");
            }
            assert_eq!(Picture::decode(&film).unwrap(), whole, "{name}");
        }
    }

    #[test]
    fn truncated_jpegs_are_refused() {
        for (name, jpeg) in jpegs() {
            // The last byte may be padding only.
            let ends = (2..jpeg.len() - 3).filter(|end| name != "progressive" || end % 7 == 0);
            for end in ends {
                let cut = Picture::decode(&jpeg[..end]);
                assert!(cut.is_err(), "{name} of {} bytes, cut to {end}", jpeg.len());
            }
        }
    }

    #[test]
    fn complete_pngs_do_not_need_an_end_chunk() {
        let busy = RgbImage::from_fn(60, 44, |x, y| image::Rgb([(x * x) as u8, (y * 7 + x) as u8, (x * y) as u8]));
        let png = encoded(&busy.into(), ImageFormat::Png);
        let whole = Picture::decode(&png).unwrap();
        for cut in 1..=12 {
            assert_eq!(Picture::decode(&png[..png.len() - cut]).unwrap(), whole, "{cut}");
        }
        for cut in 13..png.len() - 8 {
            assert!(Picture::decode(&png[..png.len() - cut]).is_err(), "{cut}");
        }
        // The pixels in two chunks, the second of which is missing.
        let at = png.windows(4).position(|window| window == b"IDAT").unwrap();
        let size = u32::from_be_bytes(png[at - 4..at].try_into().unwrap()) as usize;
        let data = &png[at + 4..][..size];
        let chunk = |data: &[u8]| {
            let named = [b"IDAT", data].concat();
            let mut crc = flate2::Crc::new();
            crc.update(&named);
            [&(data.len() as u32).to_be_bytes(), &named[..], &crc.sum().to_be_bytes()].concat()
        };
        let (first, second) = data.split_at(size / 2);
        let start = &png[..at - 4];
        assert_eq!(Picture::decode(&[start, &chunk(first), &chunk(second)].concat()).unwrap(), whole);
        assert!(Picture::decode(&[start, &chunk(first)].concat()).is_err());
        assert!(Picture::decode(start).is_err());
    }

    #[test]
    fn profiles_are_kept_if_they_match_the_channels() {
        let rgb = RgbImage::new(2, 2);
        let with = |kind: &[u8; 4], grey: bool| {
            let mut bytes = vec![];
            let mut encoder = PngEncoder::new(&mut bytes);
            encoder.set_icc_profile(profile(kind)).unwrap();
            let (pixels, colour) = match grey {
                true => (vec![0; 4], ExtendedColorType::L8),
                false => (rgb.as_raw().clone(), ExtendedColorType::Rgb8),
            };
            encoder.write_image(&pixels, 2, 2, colour).unwrap();
            Picture::decode(&bytes).unwrap()
        };
        for (kind, grey, kept) in [
            (b"RGB ", false, true),
            (b"GRAY", true, true),
            (b"RGB ", true, false),
            (b"GRAY", false, false),
            (b"CMYK", false, false),
        ] {
            let picture = with(kind, grey);
            let name = std::str::from_utf8(kind).unwrap().trim_end();
            assert_eq!((picture.profile.is_some(), picture.other_profile.as_deref()), (kept, (!kept).then_some(name)));
            for format in [Format::Png, Format::Jpeg, Format::WebP] {
                // WebP has no greyscale pixels.
                let is_written = kept && !(grey && format == Format::WebP);
                let written = picture.encode(format).unwrap();
                let needle: &[u8] = if format == Format::Png { b"iCCP" } else { b"acsp" };
                let found = written.windows(4).any(|window| window == needle);
                assert_eq!(
                    (found, picture.dropped_profile(format)),
                    (is_written, (!is_written).then_some(name)),
                    "{format:?}"
                );
            }
        }
        let mut damaged = Picture { rgb, alpha: None, is_grey: false, profile: Some(vec![1; 20]), other_profile: None };
        damaged = Picture::decode(&damaged.encode(Format::Png).unwrap()).unwrap();
        assert_eq!((damaged.profile, damaged.other_profile.as_deref()), (None, Some("damaged")));
    }

    #[test]
    fn a_webp_chunk_that_claims_four_gigabytes_is_ignored() {
        let picture = Picture { profile: Some(profile(b"RGB ")), ..pictures().pop().unwrap() };
        let webp = picture.encode(Format::WebP).unwrap();
        assert!(Picture::decode(&webp).unwrap().profile.is_some());
        let at = webp.windows(4).position(|window| window == b"ICCP").unwrap();
        let mut lie = webp.clone();
        lie[at + 4..at + 8].copy_from_slice(&0xFFFF_FFF0u32.to_le_bytes());
        // Chunks after it cannot be located.
        assert!(Picture::decode(&lie).is_err());
        let mut last = webp.clone();
        last.extend(b"EXIF");
        last.extend(0xFFFF_FFF0u32.to_le_bytes());
        let size = (last.len() - 8) as u32;
        last[4..8].copy_from_slice(&size.to_le_bytes());
        assert_eq!(Picture::decode(&last).unwrap(), Picture::decode(&webp).unwrap());
    }

    /// Returns a colour profile that has only a header.
    fn profile(kind: &[u8; 4]) -> Vec<u8> {
        let mut profile = vec![0; 200];
        profile[..4].copy_from_slice(&200u32.to_be_bytes());
        profile[16..20].copy_from_slice(kind);
        profile[36..40].copy_from_slice(b"acsp");
        profile
    }

    /// Returns a picture of every kind.
    fn pictures() -> Vec<Picture> {
        let rgb = RgbImage::from_fn(7, 5, |x, y| image::Rgb([30 * x as u8, 40 * y as u8, 200]));
        let grey = RgbImage::from_fn(7, 5, |x, y| image::Rgb([(30 * x + 10 * y) as u8; 3]));
        let alpha = GrayImage::from_fn(7, 5, |x, _| image::Luma([(255 - 20 * x) as u8]));
        // Colours as they look blended over white, which limits how dark they can be.
        let over = |image: &RgbImage| {
            let mut image = image.clone();
            image.pixels_mut().zip(alpha.pixels()).for_each(|(p, a)| p.0 = p.0.map(|v| blend_over_white(v, a.0[0])));
            image
        };
        let profile = profile(b"RGB ");
        let plain = Picture { rgb: rgb.clone(), alpha: None, is_grey: false, profile: None, other_profile: None };
        vec![
            Picture { rgb: over(&rgb), alpha: Some(alpha.clone()), ..plain.clone() },
            Picture { rgb: over(&grey), alpha: Some(alpha.clone()), is_grey: true, ..plain.clone() },
            Picture { rgb: grey, is_grey: true, ..plain.clone() },
            Picture { profile: Some(profile), ..plain.clone() },
            plain,
        ]
    }

    #[test]
    fn pictures_round_trip() {
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
    fn enlarging_preserves_transparency() {
        for picture in pictures() {
            let large = picture.enlarged(&enlarge(&picture.colours(), 2), 2);
            assert_eq!((large.rgb.dimensions(), large.is_grey), ((14, 10), picture.is_grey));
            assert_eq!(large.alpha.is_some(), picture.alpha.is_some());
            if let (Some(large), Some(small)) = (&large.alpha, &picture.alpha) {
                // On a ramp, the value is halfway between two pixels.
                assert_eq!(large.dimensions(), (14, 10));
                assert!(large.get_pixel(6, 4).0[0].abs_diff(small.get_pixel(3, 2).0[0] + 5) <= 1);
            }
        }
    }

    #[test]
    fn formats_are_derived_from_the_extension() {
        assert_eq!(["png", "JPG", "jpeg", "webp"].map(|e| Format::from_extension(e).is_some()), [true; 4]);
        assert_eq!(Format::from_extension("tiff"), None);
    }
}
