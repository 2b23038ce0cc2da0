//! The projection of an image onto the images that are consistent with its low-resolution image.

/// Shifts every block of `scale × scale` pixels of a square image, channels-last with 3 channels, so that its mean
/// equals the pixel of `low`. The result is the nearest image with these means.
pub fn match_means(image: &mut [f64], low: &[f64], scale: usize) {
    let size = ((image.len() / 3) as f64).sqrt() as usize;
    let small = size / scale;
    debug_assert!(image.len() == 3 * size * size && low.len() == 3 * small * small);
    for (block, low) in low.chunks_exact(3).enumerate() {
        let (y, x) = (block / small * scale, block % small * scale);
        let pixels = (y..y + scale).flat_map(|y| (x..x + scale).map(move |x| 3 * (y * size + x)));
        for (c, &mean) in low.iter().enumerate() {
            let sum: f64 = pixels.clone().map(|at| image[at + c]).sum();
            let shift = mean - sum / (scale * scale) as f64;
            pixels.clone().for_each(|at| image[at + c] += shift);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_means_become_exact_and_a_second_projection_changes_nothing() {
        let mut image: Vec<f64> = (0..8 * 8 * 3).map(|i| ((i * 37 % 101) as f64) / 50.0 - 1.0).collect();
        let low: Vec<f64> = (0..2 * 2 * 3).map(|i| i as f64 / 6.0 - 1.0).collect();
        let before = image.clone();
        match_means(&mut image, &low, 4);
        for block in 0..4 {
            for c in 0..3 {
                let at = |i: usize| 3 * ((block / 2 * 4 + i / 4) * 8 + block % 2 * 4 + i % 4) + c;
                let mean = (0..16).map(|i| image[at(i)]).sum::<f64>() / 16.0;
                assert!((mean - low[3 * block + c]).abs() < 1e-12);
                // All pixels of a block are shifted alike.
                let detail = |image: &[f64]| image[at(5)] - image[at(0)];
                assert!((detail(&image) - detail(&before)).abs() < 1e-12);
            }
        }
        let once = image.clone();
        match_means(&mut image, &low, 4);
        assert!(image.iter().zip(&once).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}
