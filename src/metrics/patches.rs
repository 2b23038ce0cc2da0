//! The distribution of small image patches.

use rayon::prelude::*;

use super::patch_corners;
use crate::data::Images;
use crate::random::{Purpose, stream};

/// The side of a patch in pixels.
const SIDE: usize = 7;
/// The distance between neighbouring patches: a 32×32 image has 36 patches, which cover every pixel.
const STRIDE: usize = 5;
/// The number of values in a patch.
const VALUES: usize = 3 * SIDE * SIDE;
/// The number of random directions of the sliced distance.
const DIRECTIONS: usize = 128;
/// The maximum number of patches, taken from the first images: 3,600 images of 32×32.
const MAX_PATCHES: usize = 1 << 17;

/// Returns random unit vectors in patch space: normalised Gaussian vectors, the same in every comparison.
pub(super) fn directions() -> Vec<Vec<f64>> {
    let direction = |index| {
        let mut noise = stream(0, Purpose::Projection, 0, index);
        let values: Vec<f64> = (0..VALUES).map(|_| noise.normal()).collect();
        let norm = values.iter().map(|v| v * v).sum::<f64>().sqrt();
        values.into_iter().map(|v| v / norm).collect()
    };
    (0..DIRECTIONS as u64).map(direction).collect()
}

/// The 7×7 patches of a set of images, projected onto random directions.
///
/// The mean of each channel is subtracted from a patch, which leaves its structure. The low-resolution image determines
/// the mean, and consistency with it is a metric of its own.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Projections {
    /// The sorted projections of each direction.
    sorted: Vec<Vec<f64>>,
}

impl Projections {
    /// Projects the patches, in parallel over the directions.
    pub(super) fn new(images: &Images, directions: &[Vec<f64>]) -> Self {
        let corners: Vec<usize> = patch_corners(images.height, images.width, SIDE, STRIDE).collect();
        let count = images.count.min(MAX_PATCHES / corners.len().max(1));
        let patches: Vec<[f32; VALUES]> = (0..count)
            .into_par_iter()
            .flat_map_iter(|i| corners.iter().map(move |&corner| patch(images.image(i), corner, images.width)))
            .collect();
        let project = |direction: &Vec<f64>| {
            let dot = |patch: &[f32; VALUES]| patch.iter().zip(direction).map(|(&p, d)| f64::from(p) * d).sum::<f64>();
            let mut values: Vec<f64> = patches.iter().map(dot).collect();
            values.sort_unstable_by(f64::total_cmp);
            values
        };
        Self { sorted: directions.par_iter().map(project).collect() }
    }

    /// Returns the sliced Wasserstein distance between two sets with equally many patches, in 8-bit levels: the
    /// 1-Wasserstein distance along each direction (the mean difference between the sorted projections), averaged over
    /// the directions.
    ///
    /// Returns `None` if the images are smaller than a patch.
    ///
    /// # Panics
    /// Panics if the sets differ in size.
    pub(super) fn distance(&self, other: &Self) -> Option<f64> {
        let one = |(a, b): (&Vec<f64>, &Vec<f64>)| {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64
        };
        let each: Vec<f64> = self.sorted.par_iter().zip(&other.sorted).map(one).collect();
        let mean = each.iter().sum::<f64>() / each.len() as f64;
        mean.is_finite().then_some(mean)
    }
}

/// Returns the patch whose first pixel is `corner`, minus the mean of each channel.
fn patch(image: &[u8], corner: usize, width: usize) -> [f32; VALUES] {
    let mut values = [0.0; VALUES];
    for (y, out) in values.chunks_exact_mut(3 * SIDE).enumerate() {
        let row = &image[3 * (corner + y * width)..][..3 * SIDE];
        out.iter_mut().zip(row).for_each(|(o, &v)| *o = f32::from(v));
    }
    for channel in 0..3 {
        // Sums of integers are exact.
        let mean = values[channel..].iter().step_by(3).sum::<f32>() / (SIDE * SIDE) as f32;
        values[channel..].iter_mut().step_by(3).for_each(|v| *v -= mean);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::halves;
    use crate::metrics::tests::{assert_near, evaluation};

    #[test]
    fn the_distance_matches_scipy() {
        let f = evaluation();
        let directions: Vec<Vec<f64>> = f.numbers("directions").chunks(VALUES).map(<[f64]>::to_vec).collect();
        let project = |images: &Images| Projections::new(images, &directions);
        let samples = f.samples.first(0..f.samples.count);
        let (even, odd) = halves(&f.hr);
        let expected = f.numbers("sliced");
        // Projections are stored in single precision.
        assert_near(project(&samples).distance(&project(&f.hr)).unwrap(), expected[0], 1e-5);
        assert_near(project(&even).distance(&project(&odd)).unwrap(), expected[1], 1e-5);
    }

    #[test]
    fn directions_are_fixed_unit_vectors() {
        let all = directions();
        assert_eq!((all.len(), &all), (DIRECTIONS, &directions()));
        assert_ne!(all[0], all[1]);
        for direction in all {
            assert_near(direction.iter().map(|v| v * v).sum(), 1.0, 1e-12);
        }
    }

    #[test]
    fn the_distance_depends_on_structure_but_not_on_brightness_or_order() {
        let f = evaluation();
        let project = |images: &Images| Projections::new(images, &directions());
        let shifted: Vec<u8> = f.hr.pixels.iter().map(|&v| v / 2 + 20).collect();
        let darker: Vec<u8> = f.hr.pixels.iter().map(|&v| v / 2).collect();
        let images = |pixels| Images::new(f.hr.count, f.hr.height, f.hr.width, pixels);
        let (shifted, darker) = (project(&images(shifted)), project(&images(darker)));
        assert_near(shifted.distance(&darker).unwrap(), 0.0, 1e-5);
        assert!(darker.distance(&project(&f.hr)).unwrap() > 1.0);
        let reversed = (0..f.hr.count).rev().flat_map(|i| f.hr.image(i).to_vec()).collect();
        assert_eq!(project(&images(reversed)), project(&f.hr));
        let small = project(&Images::new(1, 6, 9, vec![0; 162]));
        assert_eq!(small.distance(&small), None);
    }
}
