//! The training task: batches of noisy images with their conditions and targets, from pairs of high- and low-resolution
//! images.

use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use rayon::prelude::*;

use super::layers::probe;
use super::log::LayerRow;
use crate::config::{DiffusionParams, PredictionType, Target, Weights};
use crate::data::Images;
use crate::data::resample::Resampler;
use crate::diffusion::{Schedule, loss_weight, training_target};
use crate::model::{TargetSpace, interleave, normalize};
use crate::nn::{Batch, Graph, Network, OutOfMemory, TrainState};
use crate::random::{Purpose, stream};

/// The initial batch size of validation; halved if it does not fit into memory.
const VALIDATION_BATCH: usize = 64;
/// The number of validation images on which layers are probed.
const PROBED_IMAGES: usize = 8;
/// The seed of the validation times and noise, the same in every training run.
const VALIDATION_SEED: u64 = 0;

/// The minimum standard deviation of a residual that is worth scaling: a sixteenth of an 8-bit level, for images in
/// [-1, 1].
///
/// In natural images, rounding the low-resolution image to 8 bits alone causes a residual of about a quarter of a
/// level. The residual of constant images is only the rounding error of their enlargement, about 1e-16; scaling it up
/// would turn it into a visible pattern. This minimum also keeps measured scales within 1000, the maximum in a pipeline
/// file.
const MIN_DEVIATION: f64 = 0.5 / 1000.0;

/// High-resolution images and their low-resolution versions.
pub struct Pairs {
    hr: Images,
    lr: Images,
    enlarge: Resampler,
}

/// One image in [-1, 1] and its enlarged low-resolution image.
struct Pair {
    image: Vec<f64>,
    up: Vec<f64>,
}

impl Pairs {
    /// Pairs images with their low-resolution versions, in order. Fails unless all high-resolution images are square
    /// and a whole multiple of the size of the low-resolution ones.
    pub fn new(hr: Images, lr: Images) -> Result<Self> {
        ensure!(
            hr.count == lr.count && hr.count > 0,
            "found {} high-resolution and {} low-resolution images; the numbers must be equal and not 0",
            hr.count,
            lr.count
        );
        ensure!(
            hr.height.is_multiple_of(lr.height) && hr.width * lr.height == hr.height * lr.width,
            "the size {}×{} of the images is not a whole multiple of {}×{}, the size of their low-resolution versions",
            hr.height,
            hr.width,
            lr.height,
            lr.width
        );
        ensure!(hr.height == hr.width, "images of {}×{} pixels are not square", hr.width, hr.height);
        let enlarge = Resampler::enlarge(lr.height, lr.width, hr.height / lr.height);
        Ok(Self { hr, lr, enlarge })
    }

    pub fn len(&self) -> usize {
        self.hr.count
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the height and width of the high-resolution images.
    pub fn size(&self) -> usize {
        self.hr.height
    }

    /// Returns the factor between the high- and low-resolution sizes.
    pub fn scale(&self) -> usize {
        self.hr.height / self.lr.height
    }

    /// Returns pair `i`, flipped horizontally if `flip`.
    fn pair(&self, i: usize, flip: bool) -> Pair {
        let mut image: Vec<f64> = self.hr.image(i).iter().copied().map(normalize).collect();
        let mut up: Vec<f64> = self.enlarge.apply_u8(self.lr.image(i)).iter().copied().map(normalize).collect();
        if flip {
            mirror(&mut image, self.hr.width);
            mirror(&mut up, self.hr.width);
        }
        Pair { image, up }
    }

    /// Returns half the reciprocal of the residual's standard deviation: a residual scaled by it has a standard
    /// deviation of 0.5, like images in [-1, 1]. Returns 1 if the residual is negligible; see [`MIN_DEVIATION`].
    fn residual_scale(&self) -> f64 {
        let sums: Vec<f64> = (0..self.len())
            .into_par_iter()
            .map(|i| {
                let Pair { image, up } = self.pair(i, false);
                image.iter().zip(&up).map(|(v, u)| (v - u).powi(2)).sum()
            })
            .collect();
        let deviation = (sums.iter().sum::<f64>() / (self.len() * self.hr.image_len()) as f64).sqrt();
        if deviation >= MIN_DEVIATION { 0.5 / deviation } else { 1.0 }
    }
}

/// Flips an image horizontally, channels-last.
fn mirror(image: &mut [f64], width: usize) {
    for row in image.chunks_exact_mut(3 * width) {
        for x in 0..width / 2 {
            for c in 0..3 {
                row.swap(3 * x + c, 3 * (width - 1 - x) + c);
            }
        }
    }
}

/// Batches of the denoising task on training pairs, and its loss on validation pairs.
pub struct Task {
    train: Pairs,
    validation: Pairs,
    validation_images: usize,
    diffusion: DiffusionParams,
    schedule: Schedule,
    space: TargetSpace,
    flips: bool,
    seed: u64,
    /// The epochs used last, each with the order of its images.
    orders: Mutex<Vec<(u64, Arc<Vec<u32>>)>>,
}

impl Task {
    /// Creates the task. The validation loss uses the first `validation_images` pairs of `validation`, or all if there
    /// are fewer. With `flips`, half of the training pairs are flipped, at random.
    pub fn new(
        train: Pairs,
        validation: Pairs,
        diffusion: &DiffusionParams,
        flips: bool,
        validation_images: usize,
        seed: u64,
    ) -> Self {
        let mut diffusion = diffusion.clone();
        if diffusion.target == Target::Residual && diffusion.residual_scale.is_none() {
            diffusion.residual_scale = Some(train.residual_scale());
        }
        let (schedule, space) = (Schedule::new(&diffusion), TargetSpace::new(&diffusion));
        let validation_images = validation_images.min(validation.len());
        Self { train, validation, validation_images, diffusion, schedule, space, flips, seed, orders: Mutex::default() }
    }

    /// Returns the diffusion parameters with the residual scale filled in.
    pub fn diffusion(&self) -> &DiffusionParams {
        &self.diffusion
    }

    /// Returns the batch of one step: the next `size` images in an order that is reshuffled every epoch, each with its
    /// own time and noise.
    pub(super) fn batch(&self, step: u64, size: usize) -> HostBatch {
        let images = self.train.len() as u64;
        let first = step * size as u64;
        let epochs: Vec<u64> = (first / images..=(first + size as u64 - 1) / images).collect();
        let orders: Vec<Arc<Vec<u32>>> = epochs.iter().map(|&epoch| self.order(epoch)).collect();
        let examples = (0..size as u64).into_par_iter().map(|index| {
            let position = first + index;
            let order = &orders[(position / images - epochs[0]) as usize];
            let flip = self.flips && stream(self.seed, Purpose::Flip, step, index).coin();
            let pair = self.train.pair(order[(position % images) as usize] as usize, flip);
            let t = stream(self.seed, Purpose::Time, step, index).below(self.schedule.timesteps());
            let mut noise = vec![0.0; pair.image.len()];
            stream(self.seed, Purpose::TrainNoise, step, index).fill_normal(&mut noise);
            self.example(&pair, t, &noise)
        });
        HostBatch::join(examples.collect())
    }

    /// Returns the order of the images in one epoch. Caches the last two.
    fn order(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut orders = self.orders.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((_, order)) = orders.iter().find(|(cached, _)| *cached == epoch) {
            return order.clone();
        }
        let order = Arc::new(stream(self.seed, Purpose::Shuffle, epoch, 0).permutation(self.train.len()));
        // Keep two, because a batch may span two epochs.
        if orders.len() == 2 {
            orders.remove(0);
        }
        orders.push((epoch, order.clone()));
        order
    }

    /// Returns the mean square of the targets of the first batch: the loss of a network that always outputs 0.
    pub(super) fn target_power(&self, batch_size: usize) -> f64 {
        let batch = self.batch(0, batch_size);
        batch.target.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / batch.target.len() as f64
    }

    /// Returns the mean validation loss of the moving average of the weights. Times are spread evenly over the images.
    pub(super) fn val_loss(&self, network: &dyn Network) -> Result<f64> {
        let mut size = VALIDATION_BATCH;
        loop {
            match self.val_loss_in_batches(size, network) {
                // A GPU without memory for this many images may have enough for fewer.
                Err(error) if error.is::<OutOfMemory>() && size > 1 => size /= 2,
                result => return result,
            }
        }
    }

    fn val_loss_in_batches(&self, size: usize, network: &dyn Network) -> Result<f64> {
        let n = self.validation_images;
        let (mut sum, mut count) = (0.0, 0);
        for first in (0..n).step_by(size) {
            let examples = (first..n.min(first + size)).into_par_iter().map(|i| self.validation_example(i));
            let batch = HostBatch::join(examples.collect());
            let output = network.predict(Weights::Ema, &batch.x, &batch.t)?;
            sum += output.iter().zip(&batch.target).map(|(y, t)| ((y - t) as f64).powi(2)).sum::<f64>();
            count += output.len();
        }
        Ok(sum / count as f64)
    }

    /// Measures the probed layers on some of the validation images, at the same times as in
    /// [`val_loss`](Self::val_loss).
    pub(super) fn probe_layers(&self, network: &dyn Network, step: u64) -> Result<Vec<LayerRow>> {
        if network.graph().probes.is_empty() {
            return Ok(vec![]);
        }
        let (n, count) = (self.validation_images, PROBED_IMAGES.min(self.validation_images));
        let examples = (0..count).map(|j| self.validation_example((2 * j + 1) * n / (2 * count)));
        let batch = HostBatch::join(examples.collect());
        probe(network, step, &batch.x, &batch.t)
    }

    fn validation_example(&self, i: usize) -> Example {
        let pair = self.validation.pair(i, false);
        let mut noise = vec![0.0; pair.image.len()];
        stream(VALIDATION_SEED, Purpose::Validation, 0, i as u64).fill_normal(&mut noise);
        self.example(&pair, (2 * i + 1) * self.schedule.timesteps() / (2 * self.validation_images), &noise)
    }

    fn example(&self, pair: &Pair, t: usize, noise: &[f32]) -> Example {
        let objective = self.diffusion.objective;
        let up: Vec<f32> = pair.up.iter().map(|&u| u as f32).collect();
        let clean = pair.image.iter().zip(&pair.up).map(|(&v, &u)| self.space.encode(v, u));
        if objective == PredictionType::Regression {
            let target = clean.map(|c| c as f32).collect();
            return Example { x: interleave(std::iter::repeat(0.0), &up), t: 0.0, target, weight: 1.0 };
        }
        let alpha_bar = self.schedule.alpha_bar(t);
        let (a, s) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        let (noisy, target): (Vec<f32>, Vec<f32>) = clean
            .zip(noise)
            .map(|(x0, &eps)| {
                let eps = eps as f64;
                ((a * x0 + s * eps) as f32, training_target(objective, alpha_bar, x0, eps) as f32)
            })
            .unzip();
        let t = t as f32 / self.schedule.timesteps() as f32;
        let weight = loss_weight(&self.diffusion, alpha_bar) as f32;
        Example { x: interleave(noisy.into_iter(), &up), t, target, weight }
    }
}

/// One image of a batch; fields as in [`Batch`].
struct Example {
    x: Vec<f32>,
    t: f32,
    target: Vec<f32>,
    weight: f32,
}

/// The owned data of a [`Batch`].
pub(super) struct HostBatch {
    x: Vec<f32>,
    t: Vec<f32>,
    target: Vec<f32>,
    weights: Vec<f32>,
}

impl HostBatch {
    fn join(examples: Vec<Example>) -> Self {
        let joined = |of: fn(&Example) -> &[f32]| examples.iter().map(of).collect::<Vec<_>>().concat();
        Self {
            x: joined(|e| &e.x),
            t: examples.iter().map(|e| e.t).collect(),
            target: joined(|e| &e.target),
            weights: examples.iter().map(|e| e.weight).collect(),
        }
    }

    pub(super) fn view(&self) -> Batch<'_> {
        Batch { x: &self.x, t: &self.t, target: &self.target, weights: &self.weights }
    }
}

/// Returns a network's initial state. Each parameter is seeded by its name, so that arms that share a parameter start
/// with the same values.
pub fn initial_state(graph: &Graph, seed: u64) -> TrainState {
    TrainState::initial(graph, |name, n| {
        let mut rng = stream(seed, Purpose::Weights, name_hash(name), 0);
        (0..n).map(|_| rng.between(-1.0, 1.0) as f32).collect()
    })
}

/// Returns the 64-bit FNV-1a hash of a name.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ b as u64).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(count: usize) -> Pairs {
        let pixels = (0..count * 3 * 64).map(|i| (i * 37 % 251) as u8).collect();
        let hr = Images::new(count, 8, 8, pixels);
        let lr = crate::data::resample::degrade(&hr, 4, crate::config::DegradeMethod::Area).unwrap();
        Pairs::new(hr, lr).unwrap()
    }

    fn task(diffusion: DiffusionParams) -> Task {
        Task::new(pairs(5), pairs(2), &diffusion, true, 2, 3)
    }

    #[test]
    fn every_epoch_visits_every_image_once() {
        let regression = DiffusionParams { objective: PredictionType::Regression, ..Default::default() };
        let task = Task::new(pairs(5), pairs(2), &regression, false, 2, 3);
        let mut visited: Vec<Vec<u32>> = vec![];
        for step in 0..5 {
            let batch = task.batch(step, 2);
            visited.extend(batch.target.chunks(3 * 64).map(|t| t.iter().map(|v| v.to_bits()).collect()));
        }
        for epoch in visited.chunks(5) {
            let mut epoch = epoch.to_vec();
            epoch.sort();
            epoch.dedup();
            assert_eq!(epoch.len(), 5);
        }
        assert_ne!(visited[..5], visited[5..]);
    }

    #[test]
    fn residuals_are_scaled_to_a_standard_deviation_of_one_half() {
        let task = task(DiffusionParams { objective: PredictionType::Regression, ..Default::default() });
        let scale = task.diffusion().residual_scale.unwrap();
        let values: Vec<f64> = (0..5)
            .flat_map(|i| {
                let Pair { image, up } = task.train.pair(i, false);
                image.into_iter().zip(up).map(|(v, u)| (v - u) * scale).collect::<Vec<_>>()
            })
            .collect();
        let deviation = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
        assert!((deviation - 0.5).abs() < 1e-12, "{deviation}");
    }

    /// Tests every grey level: enlarging some is exact, enlarging others causes rounding errors.
    #[test]
    fn constant_images_have_residual_scale_one() {
        for level in 0..=255 {
            let pairs =
                Pairs::new(Images::new(2, 8, 8, vec![level; 2 * 192]), Images::new(2, 2, 2, vec![level; 2 * 12]));
            assert_eq!(pairs.unwrap().residual_scale(), 1.0, "level {level}");
        }
        // Nearly constant images: one value differs by one level.
        let mut pixels = vec![100; 4 * 192];
        pixels[50] = 101;
        let pairs = Pairs::new(Images::new(4, 8, 8, pixels), Images::new(4, 2, 2, vec![100; 4 * 12])).unwrap();
        assert_eq!(pairs.residual_scale(), 1.0);
        let wide = Pairs::new(Images::new(1, 4, 8, vec![0; 96]), Images::new(1, 2, 4, vec![0; 24]));
        assert!(wide.err().unwrap().to_string().contains("8×4 pixels are not square"));
    }

    #[test]
    fn batches_match_the_formula_of_the_noisy_image() {
        let task = task(DiffusionParams { objective: PredictionType::Eps, ..Default::default() });
        let batch = task.batch(4, 3);
        for index in 0..3 {
            let t = stream(3, Purpose::Time, 4, index as u64).below(1000);
            assert_eq!(batch.t[index], t as f32 / 1000.0);
            let mut noise = vec![0.0; 3 * 64];
            stream(3, Purpose::TrainNoise, 4, index as u64).fill_normal(&mut noise);
            assert_eq!(batch.target[index * 192..][..192], noise);
            // Subtracting the noise recovers an image within [-1, 1].
            let alpha_bar = task.schedule.alpha_bar(t);
            for (input, eps) in batch.x[index * 384..][..384].chunks(6).zip(noise.chunks(3)) {
                for c in 0..3 {
                    let x0 = (input[c] as f64 - (1.0 - alpha_bar).sqrt() * eps[c] as f64) / alpha_bar.sqrt();
                    let image = task.space.decode(x0, input[3 + c] as f64);
                    if alpha_bar > 1e-3 {
                        assert!(image.abs() < 1.0 + 1e-3, "{image} at t = {t}");
                    }
                }
            }
        }
    }

    #[test]
    fn mirroring_twice_restores_the_image() {
        let image: Vec<f64> = (0..24).map(|v| v as f64).collect();
        let mut twice = image.clone();
        mirror(&mut twice, 4);
        assert_eq!(twice[..3], [9.0, 10.0, 11.0]);
        mirror(&mut twice, 4);
        assert_eq!(twice, image);
    }

    #[test]
    fn flipped_pairs_equal_pairs_of_flipped_images() {
        let pairs = pairs(1);
        let mut flipped = pairs.hr.image(0).iter().map(|&v| v as f64).collect::<Vec<_>>();
        mirror(&mut flipped, 8);
        let hr = Images::new(1, 8, 8, flipped.iter().map(|&v| v as u8).collect());
        let lr = crate::data::resample::degrade(&hr, 4, crate::config::DegradeMethod::Area).unwrap();
        let (a, b) = (Pairs::new(hr, lr).unwrap().pair(0, false), pairs.pair(0, true));
        assert_eq!(a.image, b.image);
        assert!(a.up.iter().zip(&b.up).all(|(a, b)| (a - b).abs() < 1e-9));
    }
}
