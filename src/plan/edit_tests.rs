//! Changes single parameters of a file and checks which keys change. A table specifies which stages read each
//! parameter.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use super::state::preimage_without_inputs;
use super::*;
use crate::pipeline::{Flags, file_schema, parse};
use crate::store::Key;

const FILE: &str = "\
name: edits
stages:
  images: { kind: fetch, dataset: synthetic }
  maps: { kind: fetch, dataset: maps }
  archive: { kind: fetch, dataset: cifar10 }
  photos: { kind: fetch, dataset: folder, path: photos }
  pairs: { kind: degrade, input: images }
  model: { kind: train, data: pairs, optim: { steps: 10 } }
  samples: { kind: sample, model: model, data: pairs }
  compare: { kind: compare, arms: { a: samples } }
  validated: { kind: sample, model: model, data: pairs, split: validation }
  choice: { kind: compare, arms: { a: validated } }
  best: { kind: select, from: choice, by: crps }
  count: { kind: command, command: [wc, '{inputs.x}'], inputs: { x: samples }, outputs: [o] }
";

/// Every parameter of a pipeline file, with values other than its default.
const PARAMETERS: &[(&str, &[&str])] = &[
    ("description", &["words"]),
    ("seed", &["1", "2"]),
    ("device", &["cpu", "cuda"]),
    ("executor", &["local", "slurm"]),
    ("stages.images.train", &["100", "200"]),
    ("stages.images.validation", &["100"]),
    ("stages.images.test", &["100"]),
    ("stages.maps.train", &["100"]),
    ("stages.maps.validation", &["100"]),
    ("stages.maps.test", &["100"]),
    ("stages.maps.size", &["64"]),
    ("stages.maps.cell", &["8"]),
    ("stages.maps.colours", &["2", "4"]),
    ("stages.maps.hatchings", &["4", "6"]),
    ("stages.maps.legend", &["left", "random"]),
    ("stages.archive.url", &["file:a", "file:b"]),
    ("stages.archive.mirrors", &["['https://a/b']"]),
    ("stages.archive.sha256", &["0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    ("stages.archive.validation", &["500"]),
    ("stages.archive.limit.train", &["100"]),
    ("stages.archive.limit.validation", &["100"]),
    ("stages.archive.limit.test", &["100"]),
    ("stages.photos.path", &["others"]),
    ("stages.photos.size", &["64"]),
    ("stages.photos.fit", &["crop", "tiles"]),
    ("stages.photos.validation", &["5"]),
    ("stages.photos.test", &["5"]),
    ("stages.photos.broken", &["skip"]),
    ("stages.photos.limit.train", &["100"]),
    ("stages.pairs.scale", &["2", "8"]),
    ("stages.pairs.method", &["bicubic", "bilinear", "blur"]),
    ("stages.pairs.sigma", &["0.5", "3"]),
    ("stages.model.seed", &["7", "8"]),
    ("stages.model.model.base_channels", &["8", "64"]),
    ("stages.model.model.channel_mults", &["[1, 2, 2]", "[1, 2, 4, 4]"]),
    ("stages.model.model.blocks_per_level", &["2"]),
    ("stages.model.model.block", &["plain"]),
    ("stages.model.model.time_embedding", &["seed"]),
    ("stages.model.model.zero_output", &["false"]),
    ("stages.model.model.attention.kind", &["seed", "mhsa", "linear", "cross", "uniform", "conv_control"]),
    ("stages.model.model.attention.heads", &["2", "1"]),
    ("stages.model.model.attention.resolutions", &["[16]", "[16, 8]"]),
    ("stages.model.model.attention.matches", &["seed", "linear"]),
    ("stages.model.diffusion.schedule", &["linear", "sigmoid", "quadratic"]),
    ("stages.model.diffusion.timesteps", &["500", "2000"]),
    ("stages.model.diffusion.beta_start", &["2e-4", "5e-5"]),
    ("stages.model.diffusion.beta_end", &["0.03", "0.01"]),
    ("stages.model.diffusion.objective", &["eps", "x0", "regression"]),
    ("stages.model.diffusion.target", &["image"]),
    ("stages.model.diffusion.residual_scale", &["2.5", "3"]),
    ("stages.model.diffusion.loss_weighting", &["min_snr"]),
    ("stages.model.diffusion.min_snr_gamma", &["3", "4"]),
    ("stages.model.optim.lr", &["0.01", "3e-4"]),
    ("stages.model.optim.batch_size", &["32"]),
    ("stages.model.optim.micro_batches", &["2"]),
    ("stages.model.optim.steps", &["20", "30"]),
    ("stages.model.optim.epochs", &["3"]),
    ("stages.model.optim.warmup", &["0.1"]),
    ("stages.model.optim.decay", &["none"]),
    ("stages.model.optim.clip", &["2", "3"]),
    ("stages.model.optim.ema", &["0.99"]),
    ("stages.model.optim.betas", &["[0.9, 0.99]"]),
    ("stages.model.optim.weight_decay", &["0.1"]),
    ("stages.model.optim.flips", &["false"]),
    ("stages.model.validation.every", &["50"]),
    ("stages.model.validation.images", &["100"]),
    ("stages.samples.split", &["validation"]),
    ("stages.samples.seed", &["17", "18"]),
    ("stages.samples.sampler.method", &["ddpm", "dpmpp_2m"]),
    ("stages.samples.sampler.steps", &["10", "50"]),
    ("stages.samples.sampler.eta", &["0.5", "1"]),
    ("stages.samples.sampler.spacing", &["leading"]),
    ("stages.samples.sampler.project_lr", &["true"]),
    ("stages.samples.samples", &["8", "1"]),
    ("stages.samples.weights", &["raw"]),
    ("stages.samples.limit", &["10"]),
    ("stages.samples.batch_size", &["8"]),
    ("stages.compare.rows", &["4"]),
    ("stages.compare.claims", &["{ quality: { arm: a, control: bicubic, endpoint: psnr_mean } }"]),
    ("stages.compare.family", &["other"]),
    ("stages.compare.seeds", &["{ plan: 8 }", "{ plan: 8, looks: 2 }"]),
    ("stages.compare.control", &["bicubic"]),
    ("stages.best.by", &["energy_score", "psnr_mean"]),
    ("stages.count.command", &["[wc, -l, '{inputs.x}']", "[echo, '{seed}']"]),
    ("stages.count.outputs", &["[o, p]"]),
    ("stages.count.env", &["{ A: b }"]),
    ("stages.count.files", &["[script]"]),
    ("stages.count.metrics", &["o"]),
    ("stages.count.seed", &["7", "8"]),
    ("stages.model.retry", &["1", "{ lost: 2 }"]),
    ("stages.model.resources.cpus", &["2"]),
    ("stages.model.resources.memory", &["1 GB"]),
    ("stages.model.resources.gpus", &["1"]),
    ("stages.model.resources.time", &["1 h"]),
    ("stages.model.resources.partition", &["gpu"]),
    ("stages.model.resources.account", &["lab"]),
    ("stages.model.resources.qos", &["high"]),
    ("stages.model.resources.constraint", &["a100"]),
    ("stages.model.resources.extra", &["[--exclude=node7]"]),
];

/// Parameters that are not tested: they refer to stages, select other parameters, or are converted to `steps` before
/// planning.
const OTHERS: [&str; 10] = [
    "fetch.dataset",
    "degrade.input",
    "train.data",
    "sample.model",
    "sample.data",
    "compare.arms",
    "select.from",
    "command.inputs",
    "train.optim.budget",
    "train.optim.gflops",
];

/// The parameters that are set, by path; all others have their defaults.
type Given = BTreeMap<&'static str, &'static str>;

/// Returns the stages that read the parameter at `path` if the parameters in `given` are set.
fn readers(path: &str, given: &Given) -> Vec<&'static str> {
    let is = |path: &str, default: &'static str, wanted: &[&str]| wanted.contains(given.get(path).unwrap_or(&default));
    let regression = is("stages.model.diffusion.objective", "v", &["regression"]);
    let attention = |kinds: &[&str]| is("stages.model.model.attention.kind", "none", kinds);
    let uses_seed = given.get("stages.count.command").is_some_and(|command| command.contains("{seed}"));
    let only = |stage: &'static str, when: bool| if when { vec![stage] } else { vec![] };
    if path.contains(".resources.") || path.ends_with(".retry") {
        return vec![];
    }
    match path {
        "description" | "device" | "executor" | "stages.samples.batch_size" => vec![],
        "stages.archive.url" | "stages.archive.mirrors" | "stages.archive.sha256" | "stages.photos.path" => vec![],
        "seed" => {
            let own = |stage: &str| given.contains_key(format!("stages.{stage}.seed").as_str());
            // Samples have the seed of their model.
            let of_model = !own("model");
            let all = [
                ("images", true),
                ("maps", true),
                ("model", true),
                ("samples", of_model),
                ("validated", of_model),
                ("count", uses_seed),
            ];
            all.iter().filter(|(stage, reads)| *reads && !own(stage)).map(|(stage, _)| *stage).collect()
        }
        "stages.model.seed" if given.contains_key("stages.samples.seed") => vec!["model", "validated"],
        "stages.model.seed" => vec!["model", "samples", "validated"],
        "stages.count.seed" => only("count", uses_seed),
        "stages.model.diffusion.schedule"
        | "stages.model.diffusion.timesteps"
        | "stages.model.diffusion.loss_weighting" => only("model", !regression),
        "stages.model.diffusion.beta_start" | "stages.model.diffusion.beta_end" => {
            only("model", !regression && is("stages.model.diffusion.schedule", "cosine", &["linear", "quadratic"]))
        }
        "stages.model.diffusion.min_snr_gamma" => {
            only("model", !regression && is("stages.model.diffusion.loss_weighting", "none", &["min_snr"]))
        }
        "stages.model.diffusion.residual_scale" => {
            only("model", is("stages.model.diffusion.target", "residual", &["residual"]))
        }
        "stages.model.model.attention.heads" => only("model", !attention(&["none", "seed"])),
        "stages.model.model.attention.resolutions" => only("model", !attention(&["none"])),
        "stages.model.model.attention.matches" => only("model", attention(&["conv_control"])),
        // The split is also part of the summary of the comparison.
        "stages.samples.split" => vec!["samples", "compare"],
        "stages.pairs.sigma" => only("pairs", is("stages.pairs.method", "area", &["blur"])),
        "stages.samples.sampler.eta" => only("samples", is("stages.samples.sampler.method", "ddim", &["ddim"])),
        _ => {
            let stage = path.strip_prefix("stages.").and_then(|rest| rest.split('.').next());
            let names =
                ["images", "maps", "archive", "photos", "pairs", "model", "samples", "compare", "best", "count"];
            names.into_iter().filter(|name| stage == Some(name)).collect()
        }
    }
}

/// Returns a key per stage that ignores the content of inputs; None if the values are incompatible.
fn keys(given: &Given) -> Option<BTreeMap<String, Key>> {
    let set = given.iter().map(|(path, value)| format!("{path}={value}")).collect();
    let pipeline = parse("x.yaml", FILE, &Flags { set, sweep: vec![] }).ok()?;
    let key = |stage: &PlannedStage| preimage_without_inputs(stage, &Sources::new(), BackendClass::Cpu).key();
    Some(plan(&pipeline).stages.iter().map(|stage| (stage.name.clone(), key(stage))).collect())
}

/// Returns the stages whose keys differ.
fn differ(a: &BTreeMap<String, Key>, b: &BTreeMap<String, Key>) -> Vec<String> {
    a.iter().filter(|(name, key)| b[*name] != **key).map(|(name, _)| name.clone()).collect()
}

fn any_given() -> impl Strategy<Value = Given> {
    let one = |&(path, values): &(&'static str, &'static [&'static str])| prop_oneof![4 => Just(None), 1 => prop::sample::select(values).prop_map(move |value| Some((path, value)))];
    let all: Vec<_> = PARAMETERS.iter().map(one).collect();
    // Skip values that are incompatible with earlier ones.
    all.prop_map(|chosen| {
        let mut given = Given::new();
        for (path, value) in chosen.into_iter().flatten() {
            given.insert(path, value);
            if keys(&given).is_none() {
                given.remove(path);
            }
        }
        given
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_edit_changes_the_keys_of_the_stages_that_read_the_parameter(given in any_given()) {
        let before = keys(&given).expect("incompatible values are skipped");
        for (path, values) in PARAMETERS {
            let others = values.iter().map(|value| Some(*value)).chain([None]);
            for value in others.filter(|value| *value != given.get(path).copied()) {
                let mut edited = given.clone();
                match value {
                    Some(value) => edited.insert(path, value),
                    None => edited.remove(path),
                };
                let Some(after) = keys(&edited) else { continue };
                let mut expected = readers(path, &given);
                expected.sort_unstable();
                prop_assert_eq!(differ(&before, &after), expected, "{} {:?} in {:?}", path, value, given);
            }
        }
    }
}

#[test]
fn every_parameter_is_tested() {
    fn leaves(root: &Value, schema: &Value, path: &str, found: &mut BTreeSet<String>) {
        let target = schema["$ref"].as_str().and_then(|r| root.pointer(r.strip_prefix('#')?));
        let schema = target.unwrap_or(schema);
        let options = schema["oneOf"].as_array().filter(|options| options.iter().all(|o| o["properties"].is_object()));
        if let Some(options) = options {
            options.iter().for_each(|option| leaves(root, option, path, found));
        } else if let Some(properties) = schema["properties"].as_object().filter(|p| !p.is_empty()) {
            properties.iter().for_each(|(name, schema)| leaves(root, schema, &format!("{path}.{name}"), found));
        } else {
            found.insert(path.to_string());
        }
    }
    let schema = file_schema();
    let mut found = BTreeSet::new();
    for (kind, of_kind) in schema["properties"]["defaults"]["properties"].as_object().unwrap() {
        leaves(&schema, of_kind, kind, &mut found);
    }
    // Parameters of all kinds are tested in `train` only. A matrix has no value of its own.
    found.retain(|path| {
        let common = path.contains(".resources.") || path.ends_with(".retry");
        !path.contains(".matrix.") && (!common || path.starts_with("train."))
    });
    let kinds = [
        ("images", "fetch"),
        ("maps", "fetch"),
        ("archive", "fetch"),
        ("photos", "fetch"),
        ("pairs", "degrade"),
        ("model", "train"),
        ("samples", "sample"),
        ("compare", "compare"),
        ("best", "select"),
        ("count", "command"),
    ];
    let of_stage = |path: &&str| {
        let (stage, rest) = path.strip_prefix("stages.")?.split_once('.')?;
        Some(format!("{}.{rest}", kinds.iter().find(|(name, _)| *name == stage)?.1))
    };
    let edited = PARAMETERS.iter().filter_map(|(path, _)| of_stage(path));
    let tested: BTreeSet<String> = edited.chain(OTHERS.map(String::from)).collect();
    assert_eq!(found, tested);
    // Each value is valid on its own, and changes the keys of the stages that read the parameter.
    let before = keys(&Given::new()).unwrap();
    let needs_others = |path: &str| ["stages.archive.sha256", "stages.count.seed", "stages.maps.cell"].contains(&path);
    for (path, values) in PARAMETERS.iter().filter(|(path, _)| !needs_others(path)) {
        for value in *values {
            let after = keys(&[(*path, *value)].into()).unwrap_or_else(|| panic!("{path}={value}"));
            let mut expected = readers(path, &Given::new());
            expected.sort_unstable();
            assert_eq!(differ(&before, &after), expected, "{path}={value}");
        }
    }
}
