//! The claims of a comparison.

use super::*;
use crate::config::metrics::Metric;
use crate::config::*;

/// A comparison of three arms, of which `other` predicts something else, with what a test claims.
fn with(claims: &str) -> String {
    let arms = "arms: { first: sample_first, second: sample_second, other: sample_other }";
    format!(
        "\
name: claims
defaults:
  train: {{ data: pairs, optim: {{ steps: 10 }} }}
  sample: {{ data: pairs }}
stages:
  images: {{ kind: fetch, dataset: synthetic }}
  pairs: {{ kind: degrade, input: images }}
  first: {{ kind: train }}
  second: {{ kind: train, model: {{ attention: {{ kind: seed }} }} }}
  other: {{ kind: train, diffusion: {{ objective: eps }} }}
  sample_first: {{ kind: sample, model: first }}
  sample_second: {{ kind: sample, model: second }}
  sample_other: {{ kind: sample, model: other }}
  compare: {{ kind: compare, {arms}, claims: {{ {claims} }} }}
"
    )
}

#[test]
fn claims_become_values() {
    let claims =
        "quality: { arm: second, control: first }, mine: { arm: first, control: bicubic, endpoint: crps, margin: 2 }";
    let pipeline = valid(&with(claims));
    let StageParams::Compare(compare) = &pipeline.stage("compare").unwrap().params else { unreachable!() };
    let [(mine, of_mine), (quality, of_quality)] = compare.claims.iter().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!((of_mine.endpoint(mine), of_mine.margin), (Some(Metric::Crps), Some(2.0)));
    assert_eq!((of_quality.endpoint(quality), of_quality.margin), (Some(Metric::HeldoutLoss), None));
    assert_eq!((of_quality.arm.as_str(), of_quality.control.as_str()), ("second", "first"));
}

#[test]
fn a_claim_that_no_arm_can_answer_is_refused() {
    let one = |claims: &str| {
        let found = messages(&with(claims), &[]);
        let [message] = &found[..] else { panic!("{found:?}") };
        message.clone()
    };
    assert_eq!(one("quality: { arm: scond, control: first }"), "`claims.quality.arm` names `scond`, which is no arm");
    assert_eq!(one("quality: { arm: first, control: first }"), "claim `quality` holds `first` against itself");
    assert_eq!(one("mine: { arm: first, control: second }"), "claim `mine` needs an `endpoint`");
    assert_eq!(one("mine: { arm: first }"), "stage `compare` needs `claims.mine.control`");
    assert_eq!(one("quality: { arm: first, control: bicubic }"), "`bicubic` is not trained and has no `heldout_loss`");
    assert_eq!(
        one("convergence: { arm: first, control: other }"),
        "`flops_to_loss` cannot decide between `first` and `other`: they differ in `diffusion.objective`, and with it in \
         what their held-out loss measures"
    );
    assert!(messages(&with("any: { arm: first, control: other, endpoint: crps }"), &[]).is_empty());
    assert_eq!(
        one("q: { arm: first, control: other, endpoint: crps, margin: 0 }"),
        "`claims.q.margin` must be above 0, found `0`"
    );
}

#[test]
fn a_misspelt_arm_is_shown_with_what_was_meant() {
    says(
        &with("quality: { arm: scond, control: first }"),
        &[],
        "
error: `claims.quality.arm` names `scond`, which is no arm
  --> test.yaml:14:130
   |
14 | ...mple_second, other: sample_other }, claims: { quality: { arm: scond, control: first } } }
   |                                                                  ^^^^^
   |
   = help: did you mean `second`?
",
    );
}

#[test]
fn arms_of_a_sweep_are_named_with_their_values_and_paired_by_seed() {
    let swept = |claims: &str, more: &str| {
        let text = with(claims).replace("first: { kind: train }", more);
        messages(&text, &[])
    };
    let widths = "first: { kind: train, matrix: { model.base_channels: [8, 16] } }";
    assert_eq!(
        swept("quality: { arm: first, control: second }", widths),
        ["`claims.quality.arm` names `first`, which is no arm"]
    );
    let named = "quality: { arm: 'first[base_channels=8]', control: second }";
    assert!(swept(named, widths).is_empty());
    let seeds = "first: { kind: train, matrix: { seed: [0, 1] } }";
    assert!(swept("quality: { arm: first, control: bicubic, endpoint: crps }", seeds).is_empty());
    assert_eq!(
        swept("quality: { arm: first, control: second }", seeds),
        ["arm `first` has several seeds and arm `second` one"]
    );
    assert_eq!(
        swept("quality: { arm: second, control: first }", seeds),
        ["arm `first` has several seeds and arm `second` one"]
    );
}
