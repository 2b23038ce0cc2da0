//! Tests of decoding and encoding pictures.

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
        ("progressive", include_bytes!("../../../tests/fixtures/progressive.jpg").to_vec()),
    ]
}

#[test]
fn complete_jpegs_do_not_need_an_end_marker() {
    for (name, jpeg) in jpegs() {
        let whole = Picture::decode(&jpeg).unwrap();
        // Data after the image, such as a video, is ignored.
        let with_video = [&jpeg[..], &[7, 0xFF, 0xDA, 0, 9]].concat();
        let open = &jpeg[..jpeg.len() - 2];
        assert_eq!(jpeg[jpeg.len() - 2..], [0xFF, 0xD9]);
        let trailers: [&[u8]; 5] =
            [b"", &[0; 300], b"SEFHe\0\0\0\x01\0\0\0SEFT", &[0xFF], &[0xFF, 0x02, 0xFF, 0xE1, 0xFF, 0xFF]];
        for trailer in trailers {
            assert_eq!(Picture::decode(&[open, trailer].concat()).unwrap(), whole, "{name}, {trailer:?}");
        }
        assert_eq!(Picture::decode(&with_video).unwrap(), whole, "{name}");
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
    let mut damaged = webp.clone();
    damaged[at + 4..at + 8].copy_from_slice(&0xFFFF_FFF0u32.to_le_bytes());
    // Chunks after it cannot be located.
    assert!(Picture::decode(&damaged).is_err());
    let mut appended = webp.clone();
    appended.extend(b"EXIF");
    appended.extend(0xFFFF_FFF0u32.to_le_bytes());
    let size = (appended.len() - 8) as u32;
    appended[4..8].copy_from_slice(&size.to_le_bytes());
    assert_eq!(Picture::decode(&appended).unwrap(), Picture::decode(&webp).unwrap());
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
        let near =
            |a: &Picture, by: u8| a.rgb.as_raw().iter().zip(picture.rgb.as_raw()).all(|(a, b)| a.abs_diff(*b) <= by);
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
