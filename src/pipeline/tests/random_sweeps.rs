//! Compares random matrices with a simple reference expansion.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::config::*;

/// Three parameters of a `train` stage, with possible values.
const AXES: [(&str, [u64; 4]); 3] =
    [("optim.batch_size", [1, 2, 3, 4]), ("seed", [5, 6, 7, 8]), ("model.base_channels", [8, 16, 24, 32])];

/// Parameter values by index in [`AXES`].
type Combination = BTreeMap<usize, u64>;

#[derive(Debug, Clone)]
struct Matrix {
    /// Parameter and values, in the order of the file.
    axes: Vec<(usize, Vec<u64>)>,
    exclude: Vec<Combination>,
    include: Vec<Combination>,
}

impl Matrix {
    fn yaml(&self) -> String {
        let combination = |c: &Combination| {
            let pairs: Vec<String> = c.iter().map(|(axis, value)| format!("{}: {value}", AXES[*axis].0)).collect();
            format!("{{ {} }}", pairs.join(", "))
        };
        let list = |all: &[Combination]| all.iter().map(combination).collect::<Vec<_>>().join(", ");
        let mut parts: Vec<String> =
            self.axes.iter().map(|(axis, values)| format!("{}: {values:?}", AXES[*axis].0)).collect();
        for (word, combinations) in [("exclude", &self.exclude), ("include", &self.include)] {
            if !combinations.is_empty() {
                parts.push(format!("{word}: [{}]", list(combinations)));
            }
        }
        format!("{{ {} }}", parts.join(", "))
    }

    /// Returns all combinations of the axes' values, the first axis varying slowest, without those that match an entry
    /// of `exclude`, followed by `include`. None if there are no combinations or duplicates.
    fn expand(&self) -> Option<Vec<Combination>> {
        let mut all = vec![];
        if !self.axes.is_empty() {
            all.push(Combination::new());
        }
        for (axis, values) in &self.axes {
            let with = |c: &Combination, value: u64| c.clone().into_iter().chain([(*axis, value)]).collect();
            all = all.iter().flat_map(|c| values.iter().map(|&value| with(c, value)).collect::<Vec<_>>()).collect();
        }
        let agrees = |c: &Combination, e: &Combination| e.iter().all(|(axis, value)| c.get(axis) == Some(value));
        all.retain(|c| !self.exclude.iter().any(|e| agrees(c, e)));
        for combination in &self.include {
            if all.contains(combination) {
                return None;
            }
            all.push(combination.clone());
        }
        Some(all).filter(|all| !all.is_empty())
    }
}

/// A random combination of some of the parameters.
fn any_combination(values: Vec<(usize, Vec<u64>)>) -> impl Strategy<Value = Combination> {
    let one =
        |(axis, values): (usize, Vec<u64>)| (Just(axis), prop::option::weighted(0.6, prop::sample::select(values)));
    let all: Vec<_> = values.into_iter().map(one).collect();
    let chosen = all.prop_map(|all| all.into_iter().filter_map(|(axis, value)| Some((axis, value?))).collect());
    chosen.prop_filter("a combination is not empty", |c: &Combination| !c.is_empty())
}

fn any_matrix() -> impl Strategy<Value = Matrix> {
    let values = |axis: usize| prop::sample::subsequence(AXES[axis].1.to_vec(), 0..=3).prop_shuffle();
    let axes = (values(0), values(1), values(2), Just((0..3).collect::<Vec<usize>>()).prop_shuffle());
    let axes = axes.prop_map(|(a, b, c, order)| {
        let all = [a, b, c];
        let axes = order.into_iter().map(|axis| (axis, all[axis].clone()));
        axes.filter(|(_, values)| !values.is_empty()).collect::<Vec<_>>()
    });
    axes.prop_flat_map(|axes| {
        let everything = AXES.iter().enumerate().map(|(axis, (_, values))| (axis, values.to_vec())).collect();
        let exclude = match axes.is_empty() {
            true => Just(vec![]).boxed(),
            false => prop::collection::vec(any_combination(axes.clone()), 0..4).boxed(),
        };
        let include = prop::collection::vec(any_combination(everything), 0..4);
        (Just(axes), exclude, include).prop_map(|(axes, exclude, include)| Matrix { axes, exclude, include })
    })
}

fn train_params(pipeline: &Pipeline) -> Vec<&TrainParams> {
    let params = pipeline.stages.iter().filter_map(|stage| match &stage.params {
        StageParams::Train(params) => Some(params),
        _ => None,
    });
    params.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_matrices_match_a_simple_expansion(matrix in any_matrix()) {
        let text = SMALL.replace("kind: train }", &format!("kind: train, matrix: {} }}", matrix.yaml()));
        // The samples are swept by the model.
        let parsed = parse("x.yaml", text.as_str(), &Flags::default());
        let Some(expected) = matrix.expand() else {
            prop_assert!(parsed.is_err(), "{text}");
            return Ok(());
        };
        let pipeline = parsed.map_err(|errors| TestCaseError::fail(format!("{text}\n{errors}")))?;
        let params = train_params(&pipeline);
        let found: Vec<_> =
            params.iter().map(|p| (p.optim.batch_size as u64, p.seed, p.model.base_channels as u64)).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|c| (c.get(&0).copied().unwrap_or(16), c.get(&1).copied(), c.get(&2).copied().unwrap_or(32)))
            .collect();
        prop_assert_eq!(&found, &expected, "{}", text);
        // Each model has one `sample` stage, and each of these is in exactly one arm.
        let models: Vec<&str> = pipeline.stages.iter().filter(|s| s.base == "model").map(|s| s.name.as_str()).collect();
        let samples = pipeline.stages.iter().filter_map(|stage| match &stage.params {
            StageParams::Sample(p) => Some((stage.name.as_str(), p.model.as_str())),
            _ => None,
        });
        let (samples, of): (Vec<&str>, Vec<&str>) = samples.unzip();
        prop_assert_eq!(&of, &models);
        prop_assert_eq!(models.iter().collect::<BTreeSet<_>>().len(), models.len());
        let StageParams::Compare(compare) = &pipeline.stage("compare").unwrap().params else { panic!("a comparison") };
        let mut gathered: Vec<&str> =
            compare.arms.values().flat_map(|arm| arm.runs.iter().map(|run| run.stage.as_str())).collect();
        gathered.sort_unstable();
        let mut samples = samples;
        samples.sort_unstable();
        prop_assert_eq!(gathered, samples);
    }
}
