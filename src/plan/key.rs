//! The preimage of a stage's key: everything that its result depends on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::StageKind;
use crate::store::{Action, Artifact, Digest, Key};

/// The version of [`Preimage`] and of its serialisation. Changing it changes every key.
pub(super) const KEY_FORMAT: u32 = 1;

/// A class of devices. Results of different classes agree only up to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendClass {
    /// Equal keys have bit-identical results.
    Cpu,
    /// GPUs sum in the order in which their threads finish, so the last bits differ between runs.
    Cuda,
}

impl BackendClass {
    /// Whether a repeated run gives bit-identical results.
    pub fn is_exact(self) -> bool {
        self == Self::Cpu
    }
}

/// Everything that a stage's result depends on. It is hashed into the key, and recorded in the action to explain why a
/// key changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preimage {
    /// [`KEY_FORMAT`]
    pub(super) format: u32,
    pub kind: StageKind,
    /// [`StageKind::version`]
    pub(super) code_version: u32,
    /// The parameters that change the result, with defaults filled in.
    pub params: Value,
    /// Only for stages that draw random numbers.
    pub seed: Option<u64>,
    /// Only for stages that run a network.
    pub backend: Option<BackendClass>,
    /// The digests of the blobs that the stage reads from other stages, by role and name.
    pub inputs: BTreeMap<String, BTreeMap<String, Digest>>,
    /// The digests of external content, by role.
    pub sources: BTreeMap<String, Digest>,
}

impl Preimage {
    pub(super) fn key(&self) -> Key {
        Key::of_preimage(&self.to_value())
    }

    /// Returns the JSON that [`Action::preimage`] contains.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("preimages are valid JSON")
    }

    /// Fails unless the names in `outputs` are those that a stage of this kind produces.
    pub fn check_outputs(&self, outputs: &Artifact) -> Result<(), String> {
        let declared: Vec<&str> = match self.kind {
            kind if kind.is_user_defined() => {
                let declared = self.params.get("outputs").and_then(Value::as_array).into_iter().flatten();
                declared.filter_map(Value::as_str).collect()
            }
            kind => kind.outputs().to_vec(),
        };
        let optional = self.kind.optional_outputs();
        if let Some(missing) = declared.iter().find(|name| !outputs.contains_key(**name)) {
            return Err(format!("the output {missing} is missing"));
        }
        match outputs.keys().find(|name| !declared.contains(&name.as_str()) && !optional.contains(&name.as_str())) {
            Some(unknown) => Err(format!("unexpected output {unknown}: a {} stage does not produce it", self.kind)),
            None => Ok(()),
        }
    }

    /// Returns the preimage of an action; None if another version of srpipe wrote it in another format.
    pub fn of(action: &Action) -> Option<Self> {
        Self::deserialize(&action.preimage).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Blobs, *};
    use crate::store::canonical_json;

    fn preimage(params: &StageParams) -> Preimage {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let inputs = params.inputs().into_iter().map(|input| {
            let blobs = match input.blobs {
                Blobs::All => vec!["blob".into()],
                Blobs::Only(names) => names,
            };
            (input.role, blobs.iter().map(|name| (name.to_string(), digest(name))).collect())
        });
        Preimage {
            format: KEY_FORMAT,
            kind: params.kind(),
            code_version: params.kind().version(),
            params: params.to_semantic_json(),
            seed: params.seed(7),
            backend: params.runs_network().then_some(BackendClass::Cpu),
            inputs: inputs.collect(),
            sources: match params {
                StageParams::Fetch(FetchParams::Cifar10(_)) => [("archive".to_string(), digest("archive"))].into(),
                _ => BTreeMap::new(),
            },
        }
    }

    fn params(value: Value) -> StageParams {
        serde_json::from_value(value).unwrap()
    }

    fn one_of_each() -> Vec<StageParams> {
        [
            json!({"kind": "fetch", "dataset": "cifar10", "limit": {"train": 100}}),
            json!({"kind": "fetch", "dataset": "synthetic"}),
            json!({"kind": "degrade", "input": "x"}),
            json!({"kind": "train", "data": "x", "optim": {"steps": 1500}}),
            json!({"kind": "sample", "model": "x", "data": "y"}),
            json!({"kind": "compare", "arms": {"a": "x", "b": "y"}}),
            json!({"kind": "command", "command": ["a", "{inputs.x}"], "inputs": {"x": "s/b", "y": "s"}, "outputs": ["o"]}),
        ]
        .map(params)
        .into()
    }

    /// These keys may only change together with [`KEY_FORMAT`] or [`StageKind::version`], or if a parameter is added.
    /// Users then have to recompute their results.
    #[test]
    fn golden_keys() {
        let keys: Vec<String> = one_of_each().iter().map(|p| preimage(p).key().to_string()).collect();
        assert_eq!(keys, GOLDEN);
    }

    const GOLDEN: [&str; 7] = [
        "98ede84f9cddefcf79bde48aceb773d546a1f30ab8d07c746b2f12eed2795d2f",
        "b3ac8e97a72ad7b7e53b5a1f7555e95e2b0350ed945452ae728230ade6850f2c",
        "1cf700583cbe96b35c45230ae157e123fef7caf125dcae28f149bc5be661f3c9",
        "3d72ace8e6d481eb5dbcafce6dbef21d3076857156d898873467c5a475492d78",
        "481bfd51bb425f2309c3936751797bef5eb6de769707e58013d6937607a1b404",
        "3c1f1d2a018d031476a4934989b5d6e2ba2162635ca968bdecaad908a53feb62",
        "7faefbab6a935353c6f69c320e385bbecd8c653385aa595861e36da5c18fc51a",
    ];

    #[test]
    fn what_is_hashed_is_readable() {
        let degrade = preimage(&params(json!({"kind": "degrade", "input": "cifar", "scale": 2})));
        let digest = |name: &str| Digest::of(name.as_bytes()).to_string();
        let expected = format!(
            concat!(
                r#"{{"backend":null,"code_version":1,"format":1,"inputs":{{"input":{{"test_hr.safetensors":"{}","#,
                r#""train_hr.safetensors":"{}","validation_hr.safetensors":"{}"}}}},"kind":"degrade","#,
                r#""params":{{"method":"area","scale":2}},"seed":null,"sources":{{}}}}"#
            ),
            digest("test_hr.safetensors"),
            digest("train_hr.safetensors"),
            digest("validation_hr.safetensors"),
        );
        assert_eq!(canonical_json(&degrade.to_value()), expected);
        assert_eq!(degrade.key(), Key::of(expected.as_bytes()));
    }

    #[test]
    fn a_preimage_keeps_its_key_in_a_round_trip() {
        for params in one_of_each() {
            let preimage = preimage(&params);
            let text = serde_json::to_string_pretty(&preimage.to_value()).unwrap();
            let back: Preimage = serde_json::from_str(&text).unwrap();
            assert_eq!(back, preimage);
            assert_eq!(back.key(), preimage.key());
        }
    }

    #[test]
    fn an_action_in_another_format_has_no_preimage() {
        let preimage = preimage(&one_of_each()[0]);
        let action = |preimage| Action {
            preimage,
            outputs: BTreeMap::new(),
            metrics: BTreeMap::new(),
            cost: crate::store::Cost::default(),
        };
        assert_eq!(Preimage::of(&action(preimage.to_value())), Some(preimage.clone()));
        let mut newer = preimage.to_value();
        newer["colour"] = json!("blue");
        assert_eq!(Preimage::of(&action(newer)), None);
        assert_eq!(Preimage::of(&action(Value::Null)), None);
    }

    #[test]
    fn every_field_changes_the_key() {
        let base = preimage(&one_of_each()[3]);
        let digest = Digest::of(b"other");
        let others = [
            Preimage { format: 2, ..base.clone() },
            Preimage { kind: StageKind::Sample, ..base.clone() },
            Preimage { code_version: base.code_version + 1, ..base.clone() },
            Preimage { params: json!({}), ..base.clone() },
            Preimage { seed: Some(8), ..base.clone() },
            Preimage { seed: None, ..base.clone() },
            Preimage { backend: Some(BackendClass::Cuda), ..base.clone() },
            Preimage { inputs: BTreeMap::new(), ..base.clone() },
            Preimage { sources: [("archive".to_string(), digest)].into(), ..base.clone() },
        ];
        let mut keys: Vec<Key> = others.iter().chain([&base]).map(Preimage::key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), others.len() + 1);
    }
}
