use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::config;
use crate::config::Device;
use crate::config::metrics::Metric;
use crate::config::{DegradeMethod, DiffusionParams, PredictionType};
use crate::data::Metadata;
use crate::data::images::{lr_metadata, to_u8};
use crate::data::samples::samples_metadata;
use crate::metrics::{crps, psnr, ssim};
use crate::random::{Purpose, stream};
use crate::store::{Artifact, Store};

const COUNT: usize = 5;

/// A comparison of arms on images of 16×16, with its own store.
struct Bed {
    store: Store,
    inputs: BTreeMap<String, Artifact>,
    params: CompareParams,
    events: Mutex<Vec<StageEvent>>,
    interrupted: AtomicBool,
    folder: tempfile::TempDir,
}

fn test_images(seed: u64) -> Images {
    let mut noise = stream(seed, Purpose::Synthetic, 0, 0);
    let smooth = (0..COUNT * 4 * 4 * 3).map(|_| noise.below(256) as u8).collect();
    resample::enlarge(&Images::new(COUNT, 4, 4, smooth), 4)
}

/// Returns K samples of each of the first images of `hr`, with independent noise.
fn noisy(hr: &Images, count: usize, samples: usize, sigma: f64) -> Samples {
    let mut noise = stream(7, Purpose::SampleStart, samples as u64, 0);
    let mut pixels = vec![];
    for i in 0..count {
        for _ in 0..samples {
            pixels.extend(hr.image(i).iter().map(|&v| to_u8(f64::from(v) + sigma * noise.normal())));
        }
    }
    Samples::new(count, samples, hr.height, hr.width, pixels)
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let params = CompareParams {
            arms: BTreeMap::new(),
            claims: BTreeMap::new(),
            family: None,
            seeds: None,
            control: None,
            claims_in_family: 0,
            has_other_families: false,
            rows: 3,
        };
        let (events, interrupted) = (Mutex::new(vec![]), AtomicBool::new(false));
        Self { store, inputs: BTreeMap::new(), params, events, interrupted, folder }
    }

    /// Adds an arm; `images` chooses the test set.
    fn arm(&mut self, name: &str, samples: &Samples, loss: &str, images: u64) -> &mut Self {
        let hr = test_images(images);
        let lr = resample::degrade(&hr, 4, DegradeMethod::Area).unwrap();
        // An arm named `regression` is a regression model.
        let objective = if name == "regression" { PredictionType::Regression } else { PredictionType::V };
        let diffusion = DiffusionParams { objective, ..Default::default() };
        let blobs = [
            (blobs::SAMPLES, samples.to_safetensors(&samples_metadata(&diffusion))),
            (blobs::TEST_HR, hr.to_safetensors(&Metadata::new())),
            (blobs::TEST_LR, lr.to_safetensors(&lr_metadata(4, DegradeMethod::Area))),
            (blobs::LOSS, format!("step,loss,heldout_loss,lr,gradient_norm\n{loss}").into_bytes()),
        ];
        let artifact = blobs.iter().map(|(blob, bytes)| (blob.to_string(), self.store.put(bytes).unwrap())).collect();
        self.params.arms.insert(name.to_string(), config::Arm::single(name, &format!("sample_{name}")));
        self.inputs.insert(format!("arms.{name}"), artifact);
        self
    }

    fn run(&self) -> anyhow::Result<Outcome> {
        self.with_context(|ctx| run(&self.params, ctx))
    }

    fn with_context<T>(&self, act: impl FnOnce(&Context) -> T) -> T {
        act(&Context {
            store: &self.store,
            inputs: self.inputs.clone(),
            sources: BTreeMap::new(),
            seed: 0,
            threads: 1,
            gpus: String::new(),
            device: Device::Cpu,
            batch_divisor: 1,
            work: self.folder.path().join("work"),
            report: &|event| self.events.lock().unwrap().push(event),
            interrupted: &|| self.interrupted.load(Ordering::Relaxed),
            launcher: None,
        })
    }

    fn error(&self) -> String {
        format!("{:#}", self.run().unwrap_err())
    }

    fn blob(&self, outcome: &Outcome, name: &str) -> Vec<u8> {
        self.store.read(&outcome.outputs[name]).unwrap()
    }
}

const LOSS: &str = "10,0.5,,0.001,1.5\n20,0.25,0.375,0.001,1.25\n30,0.125,,0.001,1\n";

/// Returns a comparison of a diffusion model and a regression model.
fn bed() -> Bed {
    let mut bed = Bed::new();
    let hr = test_images(0);
    bed.arm("diffusion", &noisy(&hr, COUNT, 4, 30.0), LOSS, 0);
    bed.arm("regression", &noisy(&hr, COUNT, 1, 12.0), "10,0.5,,0.001,1.5\n", 0);
    bed
}

#[test]
fn metrics_match_their_direct_computation() {
    let bed = bed();
    let outcome = bed.run().unwrap();
    let summary = Summary::from_json(&bed.blob(&outcome, blobs::SUMMARY)).unwrap();
    assert_eq!((summary.images, summary.samples), (COUNT, Some(4)));
    assert!(summary.notes.is_empty(), "{:?}", summary.notes);
    assert_eq!(summary.arms.keys().collect::<Vec<_>>(), ["bicubic", "diffusion", "regression"]);

    let hr = test_images(0);
    let lr = resample::degrade(&hr, 4, DegradeMethod::Area).unwrap();
    let mean = |f: &dyn Fn(usize) -> f64| (0..COUNT).map(f).sum::<f64>() / COUNT as f64;
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
    let bicubic = resample::enlarge(&lr, 4);
    near(
        summary.arms["bicubic"].figures.get(Metric::PsnrSample).unwrap(),
        mean(&|i| psnr(hr.image(i), bicubic.image(i))),
    );
    near(
        summary.arms["bicubic"].figures.get(Metric::PsnrMean).unwrap(),
        summary.arms["bicubic"].figures.get(Metric::PsnrSample).unwrap(),
    );

    let samples = noisy(&hr, COUNT, 4, 30.0);
    let len = hr.image(0).len();
    let diffusion = &summary.arms["diffusion"].figures;
    near(diffusion.get(Metric::PsnrSample).unwrap(), mean(&|i| psnr(hr.image(i), &samples.of_image(i)[..len])));
    near(
        diffusion.get(Metric::SsimSample).unwrap(),
        mean(&|i| ssim(hr.image(i), &samples.of_image(i)[..len], 16, 16).unwrap()),
    );
    let down = resample::degrade(&samples.first(0..COUNT), 4, DegradeMethod::Area).unwrap();
    near(diffusion.get(Metric::ConsistencyPsnr).unwrap(), mean(&|i| psnr(lr.image(i), down.image(i))));
    // Averaging four independent samples reduces the noise by 10·log₁₀(4) = 6 dB, except for the effect of clamping.
    let gain = diffusion.get(Metric::PsnrMean).unwrap() - diffusion.get(Metric::PsnrSample).unwrap();
    assert!((5.0..7.0).contains(&gain), "{gain}");
    assert_eq!(diffusion.get(Metric::ValLoss), Some(0.375));
    assert_eq!(summary.arms["regression"].samples, 1);
    let regression = &summary.arms["regression"].figures;
    assert_eq!(regression.get(Metric::PsnrMean).unwrap(), regression.get(Metric::PsnrSample).unwrap());
    assert_eq!(
        (regression.get(Metric::ConsistencyPsnr).unwrap(), regression.get(Metric::ValLoss)),
        (regression.get(Metric::ConsistencyPsnrMean).unwrap(), None)
    );
    assert_eq!(outcome.metrics["psnr_mean.diffusion"], diffusion.get(Metric::PsnrMean).unwrap());
    near(diffusion.get(Metric::Crps).unwrap(), mean(&|i| crps(hr.image(i), samples.of_image(i))));
    let (population, first) = (Population::new(&hr, 4), samples.first(0..COUNT));
    assert_eq!(diffusion.get(Metric::SpectrumDistance), population.distances(&first).spectrum);
    assert_eq!(diffusion.get(Metric::SlicedWasserstein), population.distances(&first).sliced_wasserstein);
    assert_eq!(summary.floors.get(Metric::SpectrumDistance), population.floor().spectrum);
    assert!(diffusion.get(Metric::Calibration).is_some() && regression.get(Metric::Calibration).is_none());
    assert!(summary.claims.is_empty());

    let csv = String::from_utf8(bed.blob(&outcome, blobs::METRICS)).unwrap();
    assert_eq!(csv.lines().count(), 1 + 3 * COUNT);
    assert!(csv.lines().nth(2).unwrap().starts_with("0,test,diffusion,,"));
}

#[test]
fn claims_are_answered_in_the_summary() {
    let mut bed = bed();
    let claim = |endpoint: &str| {
        let claim = serde_json::json!({"arm": "regression", "control": "diffusion", "endpoint": endpoint});
        serde_json::from_value(claim).unwrap()
    };
    bed.params.claims = [
        ("blurred", claim("psnr_sample")),
        ("consistent", claim("consistency_psnr")),
        ("losses", claim("steps_to_loss")),
    ]
    .map(|(name, claim)| (name.to_string(), claim))
    .into();
    let summary = Summary::from_json(&bed.blob(&bed.run().unwrap(), blobs::SUMMARY)).unwrap();
    let psnr = |arm: &str| summary.arms[arm].figures.get(Metric::ConsistencyPsnr).unwrap();
    let [blurred, consistent, losses] = &summary.claims[..] else { panic!("{:?}", summary.claims) };
    assert!(blurred.effect.is_none() && blurred.reason.as_ref().unwrap().contains("one of them draws samples"));
    assert!((consistent.effect.unwrap() - (psnr("regression") - psnr("diffusion"))).abs() < 1e-9);
    assert_eq!((consistent.n, consistent.by_design, consistent.interval), (1, true, None));
    // One of the arms has no validation loss.
    assert_eq!((losses.n, losses.effect, losses.convergence), (1, None, None));
}

#[test]
fn outputs_do_not_depend_on_threads_or_time() {
    let outputs = |threads: usize| {
        let bed = bed();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bed.run()).unwrap().outputs
    };
    assert_eq!(outputs(1).len(), 4);
    assert_eq!(outputs(1), outputs(2));
}

#[test]
fn progress_counts_every_image_of_every_arm() {
    let bed = bed();
    bed.run().unwrap();
    let events = bed.events.into_inner().unwrap();
    let counts = events.iter().map(|e| match e {
        StageEvent::Progress { done, total, unit, .. } => (*done, *total, unit.as_str()),
        other => panic!("{other:?}"),
    });
    let total = 3 * COUNT as u64;
    assert_eq!(counts.collect::<Vec<_>>(), [(5, total, "images"), (10, total, "images"), (15, total, "images")]);
}

#[test]
fn fewer_samples_than_test_images_are_enough() {
    let mut bed = Bed::new();
    bed.arm("a", &noisy(&test_images(0), 2, 2, 10.0), LOSS, 0);
    let outcome = bed.run().unwrap();
    let summary = Summary::from_json(&bed.blob(&outcome, blobs::SUMMARY)).unwrap();
    assert_eq!(summary.images, 2);
    // The picture has two rows, although three were requested.
    let png = image::load_from_memory(&bed.blob(&outcome, blobs::COMPARISON)).unwrap();
    assert!((400..500).contains(&png.height()), "{}", png.height());
}

#[test]
fn the_picture_contains_the_pixels_of_samples() {
    let bed = bed();
    let outcome = bed.run().unwrap();
    let png = image::load_from_memory(&bed.blob(&outcome, blobs::COMPARISON)).unwrap().to_rgb8();
    // The columns are HR, LR, bicubic, diffusion, its mean and regression. The fourth must contain every pixel of the
    // second sample, ten times as large.
    let samples = noisy(&test_images(0), COUNT, 4, 30.0);
    let (left, top) = (24 + 3 * 172, 24 + 21 + 26 + 160 + 38);
    for y in 0..160 {
        for x in 0..160 {
            let at = 3 * (y / 10 * 16 + x / 10);
            let expected = &samples.of_image(1)[at..at + 3];
            assert_eq!(png.get_pixel((left + x) as u32, (top + y) as u32).0, expected, "({x}, {y})");
        }
    }
    assert_eq!(png.width(), 24 + 6 * 172 - 12 + 24);
}

#[test]
fn arms_that_cannot_be_compared_are_rejected() {
    let hr = test_images(0);
    let mut other = bed();
    other.arm("z", &noisy(&hr, COUNT, 2, 5.0), LOSS, 1);
    assert!(other.error().contains("arm `diffusion` (stage `sample_diffusion`) and arm `z` (stage `sample_z`)"));
    assert!(other.error().contains("test_hr.safetensors differ"), "{}", other.error());

    let mut fewer = bed();
    fewer.arm("fewer", &noisy(&hr, 3, 2, 5.0), LOSS, 0);
    assert!(fewer.error().contains("has 3; give their sample stages the same `limit`"), "{}", fewer.error());

    let mut named = bed();
    named.arm("bicubic", &noisy(&hr, COUNT, 2, 5.0), LOSS, 0);
    assert!(named.error().contains("give it another name"), "{}", named.error());

    let mut smaller = Bed::new();
    smaller.arm("a", &noisy(&resample::degrade(&hr, 2, DegradeMethod::Area).unwrap(), COUNT, 1, 5.0), LOSS, 0);
    assert!(smaller.error().contains("8×8 do not match"), "{}", smaller.error());

    let mut broken = bed();
    broken.arm("broken", &noisy(&hr, COUNT, 1, 5.0), "ten,0.5,,,\n", 0);
    assert!(broken.error().starts_with("loss.csv of arm `broken` (stage `sample_broken`): "), "{}", broken.error());

    let mut missing = bed();
    missing.inputs.get_mut("arms.diffusion").unwrap().remove(blobs::LOSS);
    let outcome = missing.run().unwrap();
    let summary = Summary::from_json(&missing.blob(&outcome, blobs::SUMMARY)).unwrap();
    assert_eq!(summary.arms.keys().collect::<Vec<_>>(), [BICUBIC, "diffusion", "regression"]);
    assert_eq!(summary.arms["diffusion"].figures.get(Metric::ValLoss), None);
    missing.inputs.get_mut("arms.regression").unwrap().remove(blobs::SAMPLES);
    assert_eq!(missing.error(), "arm `regression` (stage `sample_regression`) has no samples.safetensors");
    assert!(Bed::new().error().contains("nothing to compare"));
}

#[test]
fn an_interruption_stops_the_comparison() {
    let bed = bed();
    bed.interrupted.store(true, Ordering::Relaxed);
    assert!(bed.run().unwrap_err().is::<Interrupted>());
}

#[test]
fn arms_of_one_training_share_a_curve() {
    let mut bed = bed();
    bed.arm("again", &noisy(&test_images(0), COUNT, 2, 20.0), LOSS, 0);
    let names: Vec<String> = bed.with_context(|ctx| {
        let arms = arms(&bed.params, ctx).unwrap();
        let measured: Vec<Measured> = arms.iter().map(|arm| Measured::named(arm.name)).collect();
        curves(&arms, &measured).into_iter().map(|curve| curve.name).collect()
    });
    assert_eq!(names, ["again, diffusion", "regression"]);
}

#[test]
fn runs_with_identical_samples_count_once() {
    let mut bed = Bed::new();
    let hr = test_images(0);
    for (arm, sigma) in [("copied", 10.0), ("varied", 20.0)] {
        let mut runs = vec![];
        for seed in 0..6 {
            let varied = if arm == "varied" { f64::from(seed) } else { 0.0 };
            bed.arm("run", &noisy(&hr, COUNT, 2, sigma + varied), LOSS, 0);
            bed.params.arms.remove("run");
            let run =
                config::ArmRun { trainings: vec![runs.len()], ..config::ArmRun::new(Some(seed.to_string()), "s") };
            let artifact = bed.inputs.remove("arms.run").unwrap();
            bed.inputs.insert(run.role(arm), artifact);
            runs.push(run);
        }
        bed.params.arms.insert(arm.to_string(), config::Arm { of: arm.to_string(), axes: vec![], runs });
    }
    let claim = serde_json::json!({"arm": "copied", "control": "bicubic", "endpoint": "psnr_mean"});
    bed.params.claims = [("any".to_string(), serde_json::from_value(claim).unwrap())].into();
    let summary = Summary::from_json(&bed.blob(&bed.run().unwrap(), blobs::SUMMARY)).unwrap();
    assert_eq!((summary.claims[0].n, summary.claims[0].pairs, summary.claims[0].by_design), (1, 6, true));
    assert_eq!(["copied", "varied"].map(|arm| summary.arms[arm].trainings), [Some(1), Some(6)]);
    assert_eq!(
        summary.notes,
        ["copied: the samples of seeds 1, 2, 3, 4, 5 are identical to those of seed 0, so these runs count once"]
    );
}

#[test]
fn arms_of_different_k_are_listed_in_a_note() {
    let mut bed = bed();
    bed.arm("single", &noisy(&test_images(0), COUNT, 1, 20.0), LOSS, 0);
    let outcome = bed.run().unwrap();
    let summary = Summary::from_json(&bed.blob(&outcome, blobs::SUMMARY)).unwrap();
    assert_eq!(summary.samples, None);
    let of = |arm: &str| (summary.arms[arm].samples, summary.arms[arm].objective);
    assert_eq!(
        ["bicubic", "diffusion", "regression", "single"].map(of),
        [(1, None), (4, Some(PredictionType::V)), (1, Some(PredictionType::Regression)), (1, Some(PredictionType::V))]
    );
    let [note] = &summary.notes[..] else { panic!("{:?}", summary.notes) };
    assert!(note.contains("1 (single), 4 (diffusion)"), "{note}");
    assert!(bed.events.lock().unwrap().contains(&StageEvent::Message { text: note.clone() }));
}

#[test]
fn a_single_draw_is_labelled_as_a_sample() {
    let notes = |objective: PredictionType, samples: usize| -> Vec<String> {
        let hr = test_images(0);
        let lr = resample::degrade(&hr, 4, DegradeMethod::Area).unwrap();
        let pairs = Pairs { hr: hr.clone(), lr, scale: 4, degradation: DegradeMethod::Area.into() };
        let diffusion = Some(DiffusionParams { objective, ..Default::default() });
        let measured = [Measured::named(BICUBIC), Measured { samples, diffusion, ..Measured::named("arm") }];
        let pictures = [(), ()].map(|()| Some(Pictures { sample: hr.clone(), mean: hr.clone() }));
        columns(&pairs, &measured, &pictures).into_iter().map(|column| column.note).collect()
    };
    assert_eq!(notes(PredictionType::V, 1)[2..], ["enlarged ×4", "one sample"]);
    assert_eq!(notes(PredictionType::V, 3)[3..], ["one sample", "mean of 3"]);
    assert_eq!(notes(PredictionType::Regression, 1)[3..], ["single output"]);
}
