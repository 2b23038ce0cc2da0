//! Serialises all parameters of a stage, for the process that runs it.
//!
//! The `Serialize` implementations skip parameters that do not change a stage's result, because stage keys are computed
//! from them. The functions here add these fields, so that deserialising gives the same values.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::config::SecretUrl;
use crate::config::StageParams;
use crate::config::{
    Cifar10Params, CommandParams, CompareParams, DegradeParams, FetchParams, FolderParams, MapsParams, SampleParams,
    SelectParams, SyntheticParams, TrainParams,
};

impl StageParams {
    /// Serialises all parameters; for `#[serde(serialize_with)]`.
    pub fn serialize_complete<S: Serializer>(params: &Self, serializer: S) -> Result<S::Ok, S::Error> {
        params.complete().serialize(serializer)
    }

    /// Like [`serialize_complete`](Self::serialize_complete), but including the secrets of URLs: only for the process
    /// that runs the stage, never for a file.
    pub fn serialize_with_secrets<S: Serializer>(params: &Self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = params.complete();
        if let (Self::Fetch(FetchParams::Cifar10(params)), Some(fields)) = (params, value.as_object_mut()) {
            let mirrors: Vec<&str> = params.mirrors.iter().map(SecretUrl::expose).collect();
            add(fields, [("url", json!(params.url.as_ref().map(SecretUrl::expose))), ("mirrors", json!(mirrors))]);
        }
        value.serialize(serializer)
    }

    /// Returns the URLs that [`complete`](Self::complete) redacts, by number: `url`, then the mirrors.
    pub fn secret_urls(&self) -> BTreeMap<usize, String> {
        let Self::Fetch(FetchParams::Cifar10(params)) = self else { return BTreeMap::new() };
        let mirrors = params.mirrors.iter().enumerate().map(|(i, mirror)| (i + 1, mirror));
        let all = params.url.iter().map(|url| (0, url)).chain(mirrors);
        all.filter(|(_, url)| url.has_secret()).map(|(i, url)| (i, url.expose().to_string())).collect()
    }

    /// Whether a URL was read from a file in which secrets are redacted.
    pub fn has_redacted_urls(&self) -> bool {
        let Self::Fetch(FetchParams::Cifar10(params)) = self else { return false };
        params.url.iter().chain(&params.mirrors).any(SecretUrl::is_redacted)
    }

    /// Restores the URLs that [`secret_urls`](Self::secret_urls) returned.
    pub fn restore_secret_urls(&mut self, secrets: &BTreeMap<usize, String>) {
        let Self::Fetch(FetchParams::Cifar10(params)) = self else { return };
        let mirrors = params.mirrors.iter_mut().enumerate().map(|(i, mirror)| (i + 1, mirror));
        for (i, url) in params.url.iter_mut().map(|url| (0, url)).chain(mirrors) {
            if let Some(secret) = secrets.get(&i).filter(|_| url.is_redacted()) {
                *url = SecretUrl::from(secret.as_str());
            }
        }
    }

    /// Returns every parameter, including those that are not part of keys. Secrets are redacted.
    pub fn complete(&self) -> Value {
        let mut value = serde_json::to_value(self).expect("parameters are valid JSON");
        let fields = value.as_object_mut().expect("parameters serialise as a map");
        // Exhaustive patterns, so that a new field does not compile until it is handled here.
        match self {
            Self::Fetch(FetchParams::Cifar10(Cifar10Params { url, mirrors, sha256, validation: _, limit: _ })) => {
                add(fields, [("url", json!(url)), ("mirrors", json!(mirrors)), ("sha256", json!(sha256))]);
            }
            Self::Fetch(FetchParams::Synthetic(SyntheticParams { train: _, validation: _, test: _ })) => {}
            Self::Fetch(FetchParams::Maps(MapsParams {
                train: _,
                validation: _,
                test: _,
                size: _,
                cell: _,
                colours: _,
                hatchings: _,
                legend: _,
            })) => {}
            Self::Fetch(FetchParams::Folder(FolderParams {
                path,
                size: _,
                fit: _,
                validation: _,
                test: _,
                broken: _,
                limit: _,
            })) => add(fields, [("path", json!(path))]),
            Self::Degrade(DegradeParams { input, scale: _, method: _, sigma: _ }) => {
                add(fields, [("input", json!(input))])
            }
            Self::Train(TrainParams { data, seed, model: _, diffusion: _, optim: _, validation: _ }) => {
                add(fields, [("data", json!(data)), ("seed", json!(seed))]);
            }
            Self::Sample(SampleParams {
                model,
                data,
                split: _,
                seed,
                sampler: _,
                samples: _,
                weights: _,
                limit: _,
                batch_size,
            }) => add(
                fields,
                [
                    ("model", json!(model)),
                    ("data", json!(data)),
                    ("seed", json!(seed)),
                    ("batch_size", json!(batch_size)),
                ],
            ),
            Self::Command(CommandParams { command: _, inputs, outputs: _, env: _, files: _, metrics: _, seed }) => {
                add(fields, [("inputs", json!(inputs)), ("seed", json!(seed))]);
            }
            Self::Select(SelectParams { from, by: _, candidates }) => {
                add(fields, [("from", json!(from))]);
                for (arm, candidate) in candidates {
                    fields["candidates"][arm]["stage"] = json!(candidate.stage);
                }
            }
            Self::Compare(CompareParams {
                arms,
                claims: _,
                family: _,
                seeds: _,
                control: _,
                claims_in_family: _,
                has_other_families: _,
                rows: _,
            }) => {
                for (name, arm) in arms {
                    for (index, run) in arm.runs.iter().enumerate() {
                        fields["arms"][name]["runs"][index]["stage"] = json!(run.stage);
                    }
                }
            }
        }
        value
    }
}

fn add<const N: usize>(fields: &mut Map<String, Value>, more: [(&str, Value); N]) {
    fields.extend(more.into_iter().map(|(name, value)| (name.to_string(), value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_survive_a_round_trip() {
        let files = [
            "{kind: fetch, dataset: cifar10, url: 'file:a.tar.gz', mirrors: [b], sha256: c, validation: 3, limit: {train: 4}}",
            "{kind: fetch, dataset: synthetic, train: 5}",
            "{kind: fetch, dataset: maps, train: 5, colours: 2, cell: 8, hatchings: 4, legend: random}",
            "{kind: fetch, dataset: folder, path: photos, size: 64, fit: tiles, test: 3, broken: skip}",
            "{kind: degrade, input: a, scale: 8, method: bicubic}",
            "{kind: train, data: a, seed: 7, model: {base_channels: 48}, optim: {lr: 0.0021304347826086954, steps: 3}}",
            "{kind: sample, model: a, data: b, seed: 8, samples: 2, batch_size: 3, limit: 4, weights: raw}",
            "{kind: sample, model: a, data: b, split: validation}",
            "{kind: compare, arms: {one: a, two: b}, rows: 3, seeds: {plan: 12, looks: 3}, control: two}",
            "{kind: command, command: [a, b], inputs: {x: s, y: s/b}, outputs: [o], env: {A: b}, files: [f], seed: 3}",
            "{kind: compare, arms: {one: a, two: b}, claims: {quality: {arm: one, control: two, margin: 2.5}}}",
            "{kind: compare, arms: {one: {of: a, axes: [{axis: b, value: c}], runs: [{seed: '0', stage: d}]}}}",
            "{kind: compare, arms: {one: {of: a, axes: [], runs: [{split: validation, is_selected: true, stage: d}]}}}",
            "{kind: select, from: a, by: crps, candidates: {one: {stage: b}, two: {stage: c}}}",
        ];
        for file in files {
            let params: StageParams = serde_yaml::from_str(file).unwrap();
            let text = params.complete().to_string();
            assert_eq!(serde_json::from_str::<StageParams>(&text).unwrap(), params, "{text}");
        }
    }
}
