//! Generates maps with a legend: images on which long-range attention matters.
//!
//! A map is a grid of coloured cells, and each colour has a hatching. The hatching is too fine to survive reduction: within
//! every aligned block of 4×4 pixels, its mean is the plain colour. Only the legend, a row or column of cells at the edge,
//! tells which hatching a colour has: next to each colour, a grey cell encodes it. To reconstruct a cell, a network has to
//! find its colour in the legend, across the whole image.
//!
//! Every image is a function of the parameters, the seed, the split and the index. The code uses integers only, so the
//! bytes are identical on every machine.

use std::ops::Range;

use rayon::prelude::*;

use super::{Images, Split};
use crate::config::{LegendEdge, MapsParams};
use crate::random::{Purpose, Stream, stream};

/// The colours of cells; a map uses the first `colours` of a random order.
const PALETTE: [[i32; 3]; 6] =
    [[200, 70, 60], [70, 170, 80], [70, 100, 210], [210, 180, 70], [150, 70, 180], [60, 170, 180]];

/// The level of the background next to the legend.
const BACKGROUND: i32 = 127;

/// The levels that a hatching adds to and subtracts from a colour.
const CONTRAST: i32 = 45;

/// The darkest and the lightest level of a grey cell of the legend.
const GREYS: [i32; 2] = [20, 235];

/// Generates the maps of a split whose indices are in `range`.
pub fn generate_range(params: &MapsParams, seed: u64, split: Split, range: Range<usize>) -> Images {
    let side = params.size;
    let mut pixels = vec![0; range.len() * side * side * 3];
    pixels.par_chunks_exact_mut(side * side * 3).zip(range.clone()).for_each(|(image, index)| {
        Map::random(params, &mut stream(seed, Purpose::Maps, split as u64, index as u64)).render(image);
    });
    Images::new(range.len(), side, side, pixels)
}

/// Whether a pixel is lighter than the colour of its cell. Each hatching covers half of every aligned block of 4×4 pixels.
fn is_light(hatching: usize, x: usize, y: usize) -> bool {
    match hatching {
        // Lines of one pixel: vertical, horizontal, and a chequerboard.
        0 => x % 2 == 1,
        1 => y % 2 == 1,
        2 => (x + y) % 2 == 1,
        // Lines of two pixels: vertical, horizontal, diagonal.
        3 => x % 4 >= 2,
        4 => y % 4 >= 2,
        _ => (x + y) % 4 >= 2,
    }
}

/// An entry of the legend.
struct Entry {
    colour: [i32; 3],
    hatching: usize,
}

struct Map<'a> {
    params: &'a MapsParams,
    entries: Vec<Entry>,
    /// Whether the legend is the first column instead of the first row.
    is_left: bool,
    /// The entry of each cell, row by row; those of the legend's row or column are unused.
    cells: Vec<usize>,
    noise: Stream,
}

impl<'a> Map<'a> {
    fn random(params: &'a MapsParams, rng: &mut Stream) -> Self {
        let mut palette = PALETTE.to_vec();
        let entry =
            |_| Entry { colour: palette.swap_remove(rng.below(palette.len())), hatching: rng.below(params.hatchings) };
        let entries: Vec<Entry> = (0..params.colours).map(entry).collect();
        let is_left = match params.legend {
            LegendEdge::Top => false,
            LegendEdge::Left => true,
            LegendEdge::Random => rng.coin(),
        };
        let count = (params.size / params.cell).pow(2);
        let cells = (0..count).map(|_| rng.below(entries.len())).collect();
        // The map outlives `rng`.
        let noise = stream(rng.next_u64(), Purpose::Maps, u64::MAX, 0);
        Self { params, entries, is_left, cells, noise }
    }

    /// Renders the map into HWC pixels. Noise with a standard deviation of 2 levels makes every image distinct.
    fn render(mut self, image: &mut [u8]) {
        let side = self.params.size;
        for (index, pixel) in image.chunks_exact_mut(3).enumerate() {
            let colour = self.colour(index % side, index / side);
            for (level, value) in colour.into_iter().zip(pixel) {
                let noise = self.noise.below(5) as i32 + self.noise.below(5) as i32 - 4;
                *value = (level + noise).clamp(0, 255) as u8;
            }
        }
    }

    /// Returns the colour of a pixel without noise.
    fn colour(&self, x: usize, y: usize) -> [i32; 3] {
        let cell = self.params.cell;
        let (column, row) = (x / cell, y / cell);
        let (along, across) = if self.is_left { (row, column) } else { (column, row) };
        if across == 0 {
            // Pairs of cells: a colour, then the grey level of its hatching.
            return match self.entries.get(along / 2) {
                None => [BACKGROUND; 3],
                Some(entry) if along % 2 == 0 => entry.colour,
                Some(entry) => [self.grey(entry.hatching); 3],
            };
        }
        let entry = &self.entries[self.cells[row * (self.params.size / cell) + column]];
        let shift = if is_light(entry.hatching, x, y) { CONTRAST } else { -CONTRAST };
        entry.colour.map(|level| level + shift)
    }

    /// Returns the grey level that stands for a hatching in the legend; the first is the lightest.
    fn grey(&self, hatching: usize) -> i32 {
        let [dark, light] = GREYS;
        light - (light - dark) * hatching as i32 / (self.params.hatchings as i32 - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::DegradeMethod;
    use crate::data::resample::degrade;
    use crate::store::Digest;

    fn generate(params: &MapsParams, seed: u64, split: Split, count: usize) -> Images {
        generate_range(params, seed, split, 0..count)
    }

    #[test]
    fn a_map_is_a_function_of_seed_split_and_index() {
        let params = MapsParams::default();
        let all = generate(&params, 7, Split::Train, 40);
        assert_eq!(generate_range(&params, 7, Split::Train, 30..40), all.slice(30..40));
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one_thread.install(|| generate(&params, 7, Split::Train, 40)), all);
    }

    #[test]
    fn no_map_is_repeated_within_or_between_splits() {
        let mut seen = HashSet::new();
        for params in [MapsParams::default(), MapsParams { colours: 2, cell: 8, ..MapsParams::default() }] {
            for split in [Split::Train, Split::Validation, Split::Test] {
                let maps = generate(&params, 1, split, 1000);
                assert!((0..maps.count).all(|i| seen.insert(maps.image(i).to_vec())));
            }
        }
    }

    /// The keys of `fetch` stages do not cover the generator's code. If these bytes change, increment the version of
    /// `fetch`.
    #[test]
    fn maps_are_pinned() {
        let digest = Digest::of(&generate(&MapsParams::default(), 0, Split::Train, 64).pixels);
        assert_eq!(digest.as_str(), "8c5fa1f1faeab675955f8b80158e10cc37f05f4bafffc3827e9a7efbf4fbbeea");
    }

    #[test]
    fn hatchings_do_not_survive_reduction_and_differ_in_full_size() {
        for (i, a) in (0..6).enumerate() {
            let light = |x0: usize, y0: usize| (0..16).filter(|p| is_light(a, x0 + p % 4, y0 + p / 4)).count();
            assert!([(0, 0), (4, 8), (12, 4)].into_iter().all(|(x, y)| light(x, y) == 8), "{a}");
            assert!((0..i).all(|b| (0..16).any(|p| is_light(a, p % 4, p / 4) != is_light(b, p % 4, p / 4))));
        }
        // Without the legend, all maps with the same cells look the same after reduction, up to noise.
        let params = MapsParams::default();
        let mut rng = stream(3, Purpose::Maps, 0, 0);
        let mut map = Map::random(&params, &mut rng);
        let render = |map: &Map| {
            let colours = (0..32 * 32).flat_map(|p| map.colour(p % 32, p / 32)).map(|level| level as u8).collect();
            degrade(&Images::new(1, 32, 32, colours), 4, DegradeMethod::Area).unwrap().pixels
        };
        let before = render(&map);
        map.entries.iter_mut().for_each(|entry| entry.hatching = 1 - entry.hatching);
        let after = render(&map);
        let legend = 8 * 3;
        assert!(before[legend..] == after[legend..] && before[..legend] != after[..legend]);
    }

    #[test]
    fn the_legend_lists_every_colour_with_its_hatching() {
        let params = MapsParams { hatchings: 4, legend: LegendEdge::Left, ..MapsParams::default() };
        for index in 0..20 {
            let map = Map::random(&params, &mut stream(5, Purpose::Maps, 0, index));
            for (i, entry) in map.entries.iter().enumerate() {
                assert_eq!(map.colour(1, 8 * i + 2), entry.colour);
                assert_eq!(map.colour(1, 8 * i + 6), [map.grey(entry.hatching); 3]);
            }
            let greys: HashSet<i32> = (0..4).map(|hatching| map.grey(hatching)).collect();
            assert!(greys.len() == 4 && greys.contains(&GREYS[0]) && greys.contains(&GREYS[1]));
            let distinct: HashSet<[i32; 3]> = map.entries.iter().map(|entry| entry.colour).collect();
            assert_eq!(distinct.len(), 3);
        }
    }
}
