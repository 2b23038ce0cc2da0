//! Pictures from other programs: decodes and encodes PNG, JPEG and WebP files.
//!
//! Files are untrusted. The size that a file claims is checked against its length before memory is allocated.

mod format;
mod jpeg;
mod png;
#[cfg(test)]
mod tests;
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

pub use format::Format;

/// The maximum size of one file's decoded pixels, in bytes.
const MAX_DECODED: u64 = 1 << 30;
/// Pictures up to this decoded size, in bytes, are decoded however short the file is.
const ALWAYS_DECODED: u64 = 64 << 20;
/// Above that, the maximum ratio of decoded bytes to bytes of the file. Deflate, the strongest compression here,
/// reaches 1032.
const MAX_RATIO: u64 = 1100;
/// The maximum memory that a decoder may use for data other than pixels, in bytes: text and profiles, which are
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

/// Joins the causes of an error into one message, without those that the message already contains.
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
        Self { rgb, alpha, ..self.without_pixels() }
    }

    /// Returns a picture without pixels that has the metadata of this one.
    fn without_pixels(&self) -> Self {
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

    /// Writes the picture, without its alpha channel unless the format supports one.
    fn write(&self, mut encoder: impl ImageEncoder, format: Format, supports_alpha: bool) -> Result<()> {
        if let Some(profile) = self.profile_in(format) {
            encoder.set_icc_profile(profile.to_vec())?;
        }
        let alpha = self.alpha.as_ref().filter(|_| supports_alpha);
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

/// Returns a reader that limits the memory for metadata.
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
