//! Claims about synthetic results, answered by complete runs. `command` stages write the samples of every arm and seed,
//! with known errors of every image.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Folder, Pipeline};
use serde::Deserialize;
use serde_json::{Value, json};
use srpipe::config::DegradeMethod;
use srpipe::data::images::lr_metadata;
use srpipe::data::resample::degrade;
use srpipe::data::{Images, Metadata, Samples};
use srpipe::random::{Purpose, stream};

/// The side of the test images, in pixels.
const SIDE: usize = 8;
/// The number of values of an image.
const VALUES: u64 = 3 * (SIDE * SIDE) as u64;
const SCALE: usize = 2;

/// The sums of squared errors of an arm's images, for each seed.
type Errors = Vec<Vec<u64>>;

/// Returns high-resolution images with values between 64 and 127, so that errors of up to 128 can be added.
fn truth(images: usize) -> Images {
    let value = |i: usize| 64 + (i * 37 + i / 7 * 11) as u8 % 64;
    Images::new(images, SIDE, SIDE, (0..images * VALUES as usize).map(value).collect())
}

/// Returns the error of an image's values, and how many of them have an error that is larger by one.
fn sizes(squared_error: u64) -> (u64, u64) {
    let size = (squared_error / VALUES).isqrt();
    (size, (squared_error - VALUES * size * size) / (2 * size + 1))
}

/// Writes the test images to `folder`, and the samples of every arm and seed to `folder/ARM/SEED`.
fn write_samples(folder: &Path, arms: &BTreeMap<String, Errors>) {
    let images = arms.values().next().unwrap()[0].len();
    let hr = truth(images);
    std::fs::create_dir_all(folder).unwrap();
    let lr = degrade(&hr, SCALE, DegradeMethod::Area).unwrap();
    std::fs::write(folder.join("test_hr.safetensors"), hr.to_safetensors(&Metadata::new())).unwrap();
    let metadata = lr_metadata(SCALE, DegradeMethod::Area);
    std::fs::write(folder.join("test_lr.safetensors"), lr.to_safetensors(&metadata)).unwrap();
    for (arm, seeds) in arms {
        for (seed, errors) in seeds.iter().enumerate() {
            let mut pixels = hr.pixels.clone();
            for (image, &error) in pixels.chunks_mut(VALUES as usize).zip(errors) {
                let (size, larger) = sizes(error);
                assert!(size < 128, "the error is too large");
                for (i, value) in image.iter_mut().enumerate() {
                    *value += (size + u64::from((i as u64) < larger)) as u8;
                }
            }
            let folder = folder.join(arm).join(seed.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            // The outputs of a command count as random draws unless their metadata declares them deterministic.
            let metadata = [("diffusion", "{\"objective\": \"regression\"}")];
            let metadata = metadata.map(|(key, value)| (key.to_string(), value.to_string())).into();
            let samples = Samples::new(images, 1, SIDE, SIDE, pixels).to_safetensors(&metadata);
            std::fs::write(folder.join("samples.safetensors"), samples).unwrap();
        }
    }
}

/// Creates a pipeline with a `command` stage for every arm, which copies what [`write_samples`] writes to `samples`.
fn pipeline(arms: &BTreeMap<String, Errors>, samples: &Path) -> Pipeline {
    let path = samples.display();
    let stage = |pipeline: Pipeline, (name, seeds): (&String, &Errors)| {
        let seeds: Vec<usize> = (0..seeds.len()).collect();
        let command = format!(
            "{{kind: command, command: [cp, '{path}/test_hr.safetensors', '{path}/test_lr.safetensors', \
             '{path}/{name}/{{seed}}/samples.safetensors', outputs/], \
             outputs: [samples.safetensors, test_hr.safetensors, test_lr.safetensors], matrix: {{seed: {seeds:?}}}}}"
        );
        pipeline.stage(name, &command)
    };
    arms.iter().fold(Pipeline::new(), stage)
}

/// Returns the claims in the summary of a comparison.
fn claims(folder: &Folder, comparison: &str) -> Vec<Value> {
    let path = folder.runs().join("p/latest").join(comparison).join("summary.json");
    let summary: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    summary["claims"].as_array().unwrap().clone()
}

/// The contents of `studies.json`.
#[derive(Deserialize)]
struct Fixture {
    arms: BTreeMap<String, Errors>,
    comparisons: BTreeMap<String, Comparison>,
}

#[derive(Deserialize)]
struct Comparison {
    family: Option<String>,
    /// The claims with their answers.
    claims: Vec<Value>,
}

impl Comparison {
    fn yaml(&self) -> String {
        let both = |claim: &Value| ["arm", "control"].map(|side| claim[side].as_str().unwrap().to_string());
        let arms: BTreeMap<String, String> = self.claims.iter().flat_map(both).map(|arm| (arm.clone(), arm)).collect();
        let of_claim = |claim: &Value| {
            let fields = ["arm", "control", "endpoint", "margin"].map(|field| (field, claim[field].clone()));
            (claim["claim"].as_str().unwrap().to_string(), BTreeMap::from(fields))
        };
        let claims: BTreeMap<_, _> = self.claims.iter().map(of_claim).collect();
        let mut stage = json!({"kind": "compare", "rows": 1, "arms": arms, "claims": claims});
        if let Some(family) = &self.family {
            stage["family"] = family.as_str().into();
        }
        stage.to_string()
    }
}

/// Fails unless two numbers, or all numbers in two lists, agree up to rounding.
fn assert_close(actual: &Value, expected: &Value, what: &str) {
    if let Some(expected) = expected.as_array() {
        expected.iter().enumerate().for_each(|(i, expected)| assert_close(&actual[i], expected, what));
        return;
    }
    let (actual, expected) = (actual.as_f64().unwrap(), expected.as_f64().unwrap());
    assert!((actual - expected).abs() < 1e-8, "{what}: {actual} is not {expected}");
}

#[test]
fn the_answers_of_a_run_match_scipy_and_statsmodels() {
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").to_string());
    let json = std::fs::read(format!("{root}/tests/fixtures/studies.json")).unwrap();
    let Fixture { arms, comparisons } = serde_json::from_slice(&json).unwrap();
    let samples = tempfile::tempdir().unwrap();
    write_samples(samples.path(), &arms);
    let pipeline = pipeline(&arms, samples.path());
    let folder = comparisons
        .iter()
        .fold(pipeline, |pipeline, (name, comparison)| pipeline.stage(&format!("of_{name}"), &comparison.yaml()));
    let folder = folder.folder();
    let run = folder.run(&[]);
    assert_eq!(run.code, Some(0), "{run}");
    for family in [
        "a, b, c, d: corrected together with 3 other claims of family four",
        "a, b, c, d: corrected together with 5 other claims without a named family",
        "null: not corrected for other claims: the family has no other claim",
    ] {
        assert!(run.stdout.contains(family), "{run}");
    }
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    for (name, comparison) in &comparisons {
        let actual = claims(&folder, &format!("of_{name}"));
        assert_eq!(actual.len(), comparison.claims.len());
        for (actual, expected) in actual.iter().zip(&comparison.claims) {
            let what = |field: &str| format!("{field} of {name}.{}", expected["claim"]);
            for field in ["claim", "arm", "control", "verdict", "beyond_margin", "n", "family_claims"] {
                assert_eq!(actual[field], expected[field], "{}", what(field));
            }
            for field in ["effect", "interval", "p", "p_holm", "p_equivalent_holm"] {
                assert_close(&actual[field], &expected[field], &what(field));
            }
            *verdicts.entry(actual["verdict"].as_str().unwrap().to_string()).or_default() += 1;
        }
    }
    let expected = [("confirmed", 9), ("equivalent", 2), ("inconclusive", 6), ("refuted", 3)];
    assert_eq!(verdicts, BTreeMap::from(expected.map(|(verdict, count)| (verdict.to_string(), count))));
}

/// The standard deviation of an arm's results over its seeds, in dB.
const SEED_SD: f64 = 0.25;
/// The standard deviation of the residual of a result, in dB.
const REST_SD: f64 = 0.1;
const IMAGES: usize = 4;
const SEEDS: usize = 6;

/// The standard error of the difference between two arms, in dB.
fn standard_error() -> f64 {
    (2.0 * (SEED_SD.powi(2) + REST_SD.powi(2) / IMAGES as f64) / SEEDS as f64).sqrt()
}

/// Returns the squared errors of arms that differ by `effects` in dB. All arms share the effects of seeds and images.
fn simulated<const N: usize>(study: u64, effects: [f64; N]) -> [Errors; N] {
    let mut noise = stream(study, Purpose::Synthetic, 2, 0);
    let of_image: Vec<f64> = (0..IMAGES).map(|_| 25.0 + 2.0 * noise.normal()).collect();
    let of_seed: Vec<f64> = (0..SEEDS).map(|_| 0.6 * noise.normal()).collect();
    effects.map(|effect| {
        let row = |seed: &f64| {
            let seed = seed + effect + SEED_SD * noise.normal();
            let psnr = of_image.iter().map(|image| image + seed + REST_SD * noise.normal());
            psnr.map(|psnr| (VALUES as f64 * 255.0_f64.powi(2) / 10.0_f64.powf(psnr / 10.0)) as u64).collect()
        };
        of_seed.iter().map(row).collect()
    })
}

/// Describes a fraction with its 95 % interval (Wilson 1927).
fn describe(count: usize, all: usize) -> String {
    let (n, z) = (all as f64, 1.959_964);
    let share = count as f64 / n;
    let middle = (share + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt() / (1.0 + z * z / n);
    format!("{:.1} % ({:.1} to {:.1} %)", 100.0 * share, 100.0 * (middle - half), 100.0 * (middle + half))
}

/// Prints the error rates of studies of two arms and their control, with six seeds and normal noise. In each study, one
/// arm equals the control and the other differs from it by the margin. Their claims are in different families.
#[test]
#[ignore = "runs 40,000 stages; prints the error rates"]
fn error_rates_of_complete_runs() {
    const FILES: u64 = 40;
    const STUDIES: u64 = 50;
    let margin = 3.0 * standard_error();
    let (mut found, mut beyond, mut equivalent, mut covered) = (0, 0, 0, 0);
    for file in 0..FILES {
        let studies = file * STUDIES..(file + 1) * STUDIES;
        let mut arms = BTreeMap::new();
        for study in studies.clone() {
            let [control, equal, better] = simulated(study, [0.0, 0.0, margin]);
            let named = [("control", control), ("equal", equal), ("better", better)];
            arms.extend(named.map(|(name, errors)| (format!("{name}{study}"), errors)));
        }
        let samples = tempfile::tempdir().unwrap();
        write_samples(samples.path(), &arms);
        let mut pipeline = pipeline(&arms, samples.path());
        for study in studies.clone() {
            // With a negligible margin, equal arms cannot be equivalent, and every difference is a false finding.
            for (arm, margin) in [("equal", 1e-6), ("better", margin)] {
                pipeline = pipeline.stage(
                    &format!("of_{arm}{study}"),
                    &format!(
                        "{{kind: compare, rows: 1, family: {arm}{study}, arms: {{a: {arm}{study}, c: control{study}}}, \
                         claims: {{any: {{arm: a, control: c, endpoint: psnr_sample, margin: {margin}}}}}}}"
                    ),
                );
            }
        }
        let folder = pipeline.folder();
        let run = folder.run(&[]);
        assert_eq!(run.code, Some(0), "{run}");
        for study in studies {
            let answer = |arm: &str| claims(&folder, &format!("of_{arm}{study}")).remove(0);
            let (equal, better) = (answer("equal"), answer("better"));
            found += usize::from(equal["verdict"] != "inconclusive");
            beyond += usize::from(better["beyond_margin"] == true);
            equivalent += usize::from(better["verdict"] == "equivalent");
            for (answer, effect) in [(equal, 0.0), (better, margin)] {
                let [low, high] = [0, 1].map(|end| answer["interval"][end].as_f64().unwrap());
                covered += usize::from((low..=high).contains(&effect));
            }
        }
        let all = ((file + 1) * STUDIES) as usize;
        println!(
            "{all} studies: false findings {}, equivalent at the margin {}, beyond the margin {}, coverage {}",
            describe(found, all),
            describe(equivalent, all),
            describe(beyond, all),
            describe(covered, 2 * all)
        );
    }
}
