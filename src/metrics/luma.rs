//! The luma of images without their border, on which super-resolution papers report PSNR and SSIM.

/// Returns the luma (ITU-R BT.601, range 16 to 235) of an image `(height, width, 3)` without the outer `crop` pixels, row
/// by row, and its height and width; `None` if nothing is left.
pub(super) fn luma(image: &[u8], height: usize, width: usize, crop: usize) -> Option<(Vec<f64>, usize, usize)> {
    assert_eq!(image.len(), 3 * height * width);
    if height <= 2 * crop || width <= 2 * crop {
        return None;
    }
    let luma = |pixel: &[u8]| {
        let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(|v| f64::from(v) / 255.0);
        16.0 + 65.481 * r + 128.553 * g + 24.966 * b
    };
    let pixels = (crop..height - crop).flat_map(|y| (crop..width - crop).map(move |x| 3 * (y * width + x)));
    Some((pixels.map(|at| luma(&image[at..])).collect(), height - 2 * crop, width - 2 * crop))
}
