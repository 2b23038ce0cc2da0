//! Tests of the claims of a comparison.

use super::*;
use crate::config::metrics::Metric;
use crate::config::*;

/// Returns a comparison of three arms with these claims. `other` has a different prediction type.
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
fn claims_are_parsed() {
    let claims = "quality: { arm: second, control: first }, mine: { arm: first, control: bicubic, endpoint: psnr_mean, margin: 2 }";
    let pipeline = valid(&with(claims));
    let StageParams::Compare(compare) = &pipeline.stage("compare").unwrap().params else { unreachable!() };
    let [(mine, of_mine), (quality, of_quality)] = compare.claims.iter().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!((of_mine.endpoint(mine), of_mine.margin), (Some(Metric::PsnrMean), Some(2.0)));
    assert_eq!((of_quality.endpoint(quality), of_quality.margin), (Some(Metric::ValLoss), None));
    assert_eq!((of_quality.arm.as_str(), of_quality.control.as_str()), ("second", "first"));
}

#[test]
fn claims_that_the_arms_cannot_decide_are_rejected() {
    let one = |claims: &str| {
        let found = messages(&with(claims), &[]);
        let [message] = &found[..] else { panic!("{found:?}") };
        message.clone()
    };
    assert_eq!(
        one("quality: { arm: scond, control: first }"),
        "`claims.quality.arm` refers to `scond`, but there is no such arm"
    );
    assert_eq!(one("quality: { arm: first, control: first }"), "claim `quality` compares `first` with itself");
    assert_eq!(one("mine: { arm: first, control: second }"), "claim `mine` needs an `endpoint`");
    assert_eq!(one("mine: { arm: first }"), "stage `compare` needs `claims.mine.control`");
    assert_eq!(one("quality: { arm: first, control: bicubic }"), "`bicubic` is not trained and has no `val_loss`");
    assert_eq!(
        one("convergence: { arm: first, control: other }"),
        "`flops_to_loss` cannot decide between `first` and `other`: they differ in `diffusion.objective`, so \
         their validation losses are not comparable"
    );
    assert!(messages(&with("any: { arm: first, control: other, endpoint: crps }"), &[]).is_empty());
    assert_eq!(
        one("q: { arm: first, control: other, endpoint: crps, margin: 0 }"),
        "`claims.q.margin` must be greater than 0, found `0`"
    );
}

#[test]
fn endpoints_that_are_unfair_to_an_arm_are_rejected() {
    let one = |claim: &str, edit: [&str; 2]| messages(&with(&format!("q: {claim}")).replace(edit[0], edit[1]), &[]);
    let none = ["", ""];
    let one_sample = ["{ kind: sample, model: second }", "{ kind: sample, model: second, samples: 1 }"];
    assert_eq!(
        one("{ arm: first, control: bicubic, endpoint: crps }", none),
        [
            "`crps` cannot decide between `first` (draws samples, K = 4) and `bicubic` (deterministic): it needs at least two \
          samples per image from both; with one, it is only the error of that sample"
        ]
    );
    assert_eq!(
        one("{ arm: first, control: second, endpoint: energy_score }", one_sample),
        [
            "`energy_score` cannot decide between `first` (draws samples, K = 4) and `second` (draws samples, K = 1): it needs at least two \
          samples per image from both; with one, it is only the error of that sample"
        ]
    );
    assert_eq!(
        one("{ arm: first, control: bicubic, endpoint: psnr_sample }", none),
        [
            "`psnr_sample` cannot decide between `first` (draws samples, K = 4) and `bicubic` (deterministic): one of them draws \
          samples, and even a perfect sample scores lower than the mean of all possible samples"
        ]
    );
    assert_eq!(
        one("{ arm: second, control: bicubic, endpoint: psnr_mean }", one_sample),
        [
            "`psnr_mean` cannot decide between `second` (draws samples, K = 1) and `bicubic` (deterministic): it needs at least \
          two samples per image from every arm that draws samples"
        ]
    );
    assert!(one("{ arm: second, control: bicubic, endpoint: psnr_mean }", none).is_empty());
    assert!(one("{ arm: first, control: second, endpoint: psnr_sample }", one_sample).is_empty());
}

#[test]
fn arms_of_one_training_cannot_differ_in_validation_loss() {
    let shared = ["{ kind: sample, model: second }", "{ kind: sample, model: first, sampler: { steps: 2 } }"];
    let text = with("quality: { arm: first, control: second }").replace(shared[0], shared[1]);
    assert_eq!(
        messages(&text, &[]),
        ["`val_loss` cannot decide between `first` and `second`: both depend on the training run of `first`, and \
             it is measured in training"]
    );
}

/// Returns a command that replaces a `sample` stage and reads `input`.
fn program(input: &str) -> String {
    let outputs = "samples.safetensors, test_hr.safetensors, test_lr.safetensors, loss.csv";
    format!("{{ kind: command, command: [make], inputs: {{ i: {input} }}, outputs: [{outputs}] }}")
}

#[test]
fn commands_cannot_hide_a_shared_training_run() {
    let copy = |from: &str| program(from);
    let of = |first: &str, second: &str| {
        let text = with("quality: { arm: first, control: second }")
            .replace("{ kind: sample, model: first }", first)
            .replace("{ kind: sample, model: second }", second);
        format!(
            "{text}  of_first: {{ kind: sample, model: first }}\n  again: {{ kind: sample, model: first, seed: 4 }}\n"
        )
    };
    let shared = "`val_loss` cannot decide between `first` and `second`: both depend on the training run of `first`, \
                  and it is measured in training";
    assert_eq!(messages(&of(&copy("of_first"), &copy("again")), &[]), [shared]);
    assert_eq!(messages(&of(&copy("of_first"), "{ kind: sample, model: first }"), &[]), [shared]);
    // Programs that each train a network on the same data.
    assert!(messages(&of(&program("pairs"), &program("images")), &[]).is_empty());
    assert_errors(
        &of(&program("pairs"), "{ kind: sample, model: second }"),
        &[],
        "
error: `val_loss` cannot decide between `first` and `second`: the losses of `sample_first` come from a command, so their validation losses are not comparable
  --> test.yaml:14:130
   |
14 | ...mple_second, other: sample_other }, claims: { quality: { arm: first, control: second } } }
   |                                                                  ^^^^^
   |
   = help: choose an endpoint that measures images, such as `crps` or `psnr_mean`
",
    );
}

#[test]
fn validation_losses_are_compared_only_if_they_measure_the_same() {
    let of = |second: &str| {
        let text = with("quality: { arm: first, control: second }")
            .replace("second: { kind: train, model: { attention: { kind: seed } } }", second)
            .replace("data: pairs, optim", "optim")
            .replace("first: { kind: train }", "first: { kind: train, data: pairs }")
            .replace("other: { kind: train,", "other: { kind: train, data: pairs,");
        format!(
            "{text}  same: {{ kind: degrade, input: images }}\n  \
             moved: {{ kind: fetch, dataset: synthetic, train: 99 }}\n  \
             differ: {{ kind: degrade, input: moved }}\n"
        )
    };
    let differing = |second: &str| {
        let found = messages(&of(second), &[]);
        found.first().map(|message| {
            let start = "`val_loss` cannot decide between `first` and `second`: they differ in `";
            let end = "`, so their validation losses are not comparable";
            message.strip_prefix(start).and_then(|rest| rest.strip_suffix(end)).expect(message).to_string()
        })
    };
    assert_eq!(differing("second: { kind: train, data: differ }").unwrap(), "data");
    let images = "second: { kind: train, data: pairs, validation: { images: 8 } }";
    assert_eq!(differing(images).unwrap(), "validation.images");
    let schedule = "second: { kind: train, data: same, diffusion: { schedule: linear } }";
    assert_eq!(differing(schedule).unwrap(), "diffusion.schedule");
    // The same images under another name, and another weighting of the training loss.
    assert_eq!(differing("second: { kind: train, data: same, diffusion: { loss_weighting: min_snr } }"), None);
}

#[test]
fn claims_of_all_comparisons_are_one_family_unless_they_are_separated() {
    let counts = |edit: &str| -> Vec<(usize, bool)> {
        let claim = "quality: { arm: second, control: first }";
        let arms = "arms: { first: sample_first, second: sample_second }";
        let two = format!(
            "{}  again: {{ kind: compare, {arms}, claims: {{ {claim}, mine: {{ arm: first, control: second, endpoint: crps }} }}{edit} }}\n",
            with("quality: { arm: first, control: second }")
        );
        let pipeline = valid(&two);
        ["compare", "again"]
            .map(|name| match &pipeline.stage(name).unwrap().params {
                StageParams::Compare(compare) => (compare.claims_in_family, compare.has_other_families),
                _ => unreachable!(),
            })
            .into()
    };
    assert_eq!(counts(""), [(3, false), (3, false)]);
    assert_eq!(counts(", family: sampling"), [(1, true), (2, true)]);
}

#[test]
fn misspelled_arms_get_a_suggestion() {
    assert_errors(
        &with("quality: { arm: scond, control: first }"),
        &[],
        "
error: `claims.quality.arm` refers to `scond`, but there is no such arm
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
fn claims_refer_to_swept_arms_by_their_full_name() {
    let swept = |claims: &str, more: &str| {
        let text = with(claims).replace("first: { kind: train }", more);
        messages(&text, &[])
    };
    let widths = "first: { kind: train, matrix: { model.base_channels: [8, 16] } }";
    assert_eq!(
        swept("quality: { arm: first, control: second }", widths),
        ["`claims.quality.arm` refers to `first`, but there is no such arm"]
    );
    let named = "quality: { arm: 'first[base_channels=8]', control: second }";
    assert!(swept(named, widths).is_empty());
    let seeds = "first: { kind: train, matrix: { seed: [0, 1] } }";
    assert!(swept("quality: { arm: first, control: bicubic, endpoint: psnr_mean }", seeds).is_empty());
    assert_eq!(
        swept("quality: { arm: first, control: second }", seeds),
        ["arm `first` has several seeds, but arm `second` has one"]
    );
    assert_eq!(
        swept("quality: { arm: second, control: first }", seeds),
        ["arm `first` has several seeds, but arm `second` has one"]
    );
}

#[test]
fn the_control_and_the_plan_are_checked() {
    let of = |more: &str| {
        messages(
            &with("quality: { arm: second, control: first }").replace("claims: {", &format!("{more}, claims: {{")),
            &[],
        )
    };
    assert_eq!(of("control: frst"), ["`control` refers to `frst`, but there is no such arm"]);
    assert!(of("control: bicubic").is_empty() && of("seeds: { plan: 12, looks: 3 }").is_empty());
    assert_eq!(of("seeds: { plan: 5 }"), ["`seeds.plan` must be at least 6, found `5`"]);
    assert_eq!(of("seeds: { plan: 6, looks: 0 }"), ["`seeds.looks` must be at least 1, found `0`"]);
    assert!(of("seeds: { looks: 2 }")[0].contains("plan"));
    let control = |text: &str| match &valid(text).stage("compare").unwrap().params {
        StageParams::Compare(compare) => compare.control().map(str::to_string),
        _ => unreachable!(),
    };
    let claims = "quality: { arm: second, control: first }, mine: { arm: other, control: first, endpoint: crps }";
    assert_eq!(control(&with(claims)).unwrap(), "first");
    let claims = "quality: { arm: second, control: first }, mine: { arm: other, control: second, endpoint: crps }";
    assert_eq!(control(&with(claims)), None);
}

#[test]
fn a_regression_model_has_one_sample_whatever_the_parameter_is() {
    let claims = "mine: { arm: first, control: other, endpoint: crps }";
    let text = with(claims)
        .replace("objective: eps", "objective: regression")
        .replace("sample: { data: pairs }", "sample: { data: pairs, samples: 4 }");
    let found = messages(&text, &[]);
    assert!(
        found[0].starts_with("`crps` cannot decide between `first` (draws samples, K = 4) and `other` (deterministic)"),
        "{found:?}"
    );
}

#[test]
fn endpoints_of_all_images_need_noise_that_differs_between_seeds() {
    let swept = |more: &str| {
        let text = with("mine: { arm: first, control: second, endpoint: sliced_wasserstein }");
        let text = text.replace("train: { data: pairs,", "train: { matrix: { seed: [0, 1] }, data: pairs,");
        messages(&text.replace("model: first }", &format!("model: first{more} }}")), &[])
    };
    assert_eq!(swept(""), [""; 0]);
    assert_eq!(
        swept(", seed: 5"),
        [
            "`sliced_wasserstein` cannot decide claims about `first`: all its models are sampled with the same noise, seed 5"
        ]
    );
}
