//! Damaged and malicious pictures: a few hundred altered files, none of which may cause a panic or excessive
//! allocation. This is a separate test program, because the allocator counts the allocations of all threads.

use std::alloc::System;
use std::panic::catch_unwind;

use image::{GrayImage, RgbImage};
use srpipe::data::picture::{Format, Picture};
use srpipe::random::{Purpose, Stream, stream};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The maximum number of bytes that decoding one file may allocate in total. Up to 64 MiB of pixels are decoded from
/// any file, and JPEG files without an end marker are decoded several times.
const MAX_DECODE_BYTES: usize = 1 << 30;

/// Returns files of every format, with and without transparency, a colour profile and colours.
fn pictures() -> Vec<(&'static str, Vec<u8>)> {
    let rgb = RgbImage::from_fn(40, 24, |x, y| image::Rgb([(x * x) as u8, (y * 7 + x) as u8, (x * y) as u8]));
    let alpha = GrayImage::from_fn(40, 24, |x, y| image::Luma([(255 - x - y) as u8]));
    let mut profile = vec![7; 300];
    profile[..4].copy_from_slice(&300u32.to_be_bytes());
    profile[16..20].copy_from_slice(b"RGB ");
    profile[36..40].copy_from_slice(b"acsp");
    let plain = Picture { rgb, alpha: None, is_grey: false, profile: None, other_profile: None };
    let rich = Picture { alpha: Some(alpha), profile: Some(profile), ..plain.clone() };
    let grey = Picture { is_grey: true, ..plain.clone() };
    let mut files = vec![("progressive.jpg", include_bytes!("fixtures/progressive.jpg").to_vec())];
    for (format, names) in [
        (Format::Png, ["plain.png", "rich.png", "grey.png"]),
        (Format::Jpeg, ["plain.jpg", "rich.jpg", "grey.jpg"]),
        (Format::WebP, ["plain.webp", "rich.webp", "grey.webp"]),
    ] {
        for (name, picture) in names.into_iter().zip([&plain, &rich, &grey]) {
            files.push((name, picture.encode(format).unwrap()));
        }
    }
    files
}

/// Corrects the checksums of a PNG file's chunks. Otherwise most altered files would be rejected early.
fn fix_checksums(png: &mut [u8]) {
    let mut at = 8;
    while let Some(head) = png.get(at..at + 8) {
        let size = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        let Some(end) = at.checked_add(8).and_then(|at| at.checked_add(size)).filter(|end| end + 4 <= png.len()) else {
            return;
        };
        let mut crc = flate2::Crc::new();
        crc.update(&png[at + 4..end]);
        let sum = crc.sum().to_be_bytes();
        png[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
}

/// Returns a truncated or altered file.
fn altered(name: &str, good: &[u8], random: &mut Stream) -> Vec<u8> {
    let mut file = good.to_vec();
    match random.below(5) {
        0 => file.truncate(random.below(good.len())),
        // Lengths and sizes: a few bytes with all or almost all bits set.
        1 | 2 => {
            let at = random.below(file.len() - 4);
            let value: [u8; 4] =
                [[0xFF; 4], [0xFF, 0xFF, 0xFF, 0xF0], [0x7F, 0xFF, 0xFF, 0xFF], [0, 0, 0x40, 0]][random.below(4)];
            let len = 1 + random.below(4);
            file[at..at + len].copy_from_slice(&value[..len]);
        }
        _ => {
            for _ in 0..1 + random.below(3) {
                let at = random.below(file.len());
                file[at] ^= 1 << random.below(8);
            }
        }
    }
    if name.ends_with("png") && random.below(4) > 0 {
        fix_checksums(&mut file);
    }
    file
}

#[test]
fn damaged_pictures_cause_no_panic_and_bounded_allocation() {
    let mut random = stream(2, Purpose::Synthetic, 0, 0);
    let (mut refused, mut decoded) = (0, 0);
    for (name, good) in pictures() {
        assert!(Picture::decode(&good).is_ok(), "{name}");
        for i in 0..50 {
            let file = altered(name, &good, &mut random);
            let region = Region::new(ALLOCATOR);
            let result = catch_unwind(|| Picture::decode(&file));
            let change = region.change();
            let bytes = change.bytes_allocated + change.bytes_reallocated.max(0) as usize;
            match result {
                Err(_) => panic!("{name} {i} panics"),
                Ok(Err(_)) => refused += 1,
                Ok(Ok(_)) => decoded += 1,
            }
            assert!(bytes < MAX_DECODE_BYTES, "{name} {i} takes {bytes} bytes");
        }
    }
    assert!(refused > 100 && decoded > 50, "{refused} refused, {decoded} decoded");
}
