//! Distances between a set of images and the set of real images.

use super::{Projections, Spectrum, directions, halves};
use crate::data::Images;

/// The distances between the distributions of a set of images and of the real images; `None` if undefined.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Distances {
    /// In dB; see `Spectrum::distance`.
    pub spectrum: Option<f64>,
    /// In 8-bit levels; see `Projections::distance`.
    pub sliced_wasserstein: Option<f64>,
}

/// The distribution of the real images.
pub struct Population {
    scale: usize,
    directions: Vec<Vec<f64>>,
    spectrum: Spectrum,
    projections: Projections,
    floor: Distances,
}

impl Population {
    /// Creates the distribution of images that are to be recovered from images that are `scale` times smaller.
    pub fn new(images: &Images, scale: usize) -> Self {
        let directions = directions();
        let measure = |images: &Images| (Spectrum::of(images), Projections::new(images, &directions));
        let (even, odd) = halves(images);
        let floor = match even.count {
            0 => Distances::default(),
            _ => distances(&measure(&even), &measure(&odd), scale),
        };
        let (spectrum, projections) = measure(images);
        Self { scale, directions, spectrum, projections, floor }
    }

    /// Returns the distances to a set of equally many images of the same size.
    pub fn distances(&self, images: &Images) -> Distances {
        let (spectrum, projections) = (Spectrum::of(images), Projections::new(images, &self.directions));
        Distances {
            spectrum: spectrum.distance(&self.spectrum, self.scale),
            sliced_wasserstein: projections.distance(&self.projections),
        }
    }

    /// Returns the distances between the two `halves` of the real images, the floor for every set of images. A half
    /// has half as many images, which vary more, and the two halves show different images. A good arm can therefore
    /// score below the floor.
    pub fn floor(&self) -> Distances {
        self.floor
    }
}

fn distances(a: &(Spectrum, Projections), b: &(Spectrum, Projections), scale: usize) -> Distances {
    Distances { spectrum: a.0.distance(&b.0, scale), sliced_wasserstein: a.1.distance(&b.1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::{assert_near, evaluation};

    #[test]
    fn real_images_have_zero_distance_and_their_halves_the_floor() {
        let f = evaluation();
        let population = Population::new(&f.hr, 2);
        let none = Distances { spectrum: Some(0.0), sliced_wasserstein: Some(0.0) };
        assert_eq!(population.distances(&f.hr), none);
        let (even, odd) = halves(&f.hr);
        let floor = population.floor();
        assert_eq!(floor, Population::new(&odd, 2).distances(&even));
        assert_near(floor.sliced_wasserstein.unwrap(), f.numbers("sliced")[1], 4.0);
        assert_eq!(Population::new(&f.hr.slice(0..1), 2).floor(), Distances::default());
    }
}
