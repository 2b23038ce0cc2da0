//! Tests of errors about references between stages and about incompatible stages.

use super::*;

#[test]
fn references_must_lead_to_stages_of_the_right_kind() {
    assert_errors(
        "\
name: references
stages:
  images: { kind: fetch, dataset: synthetic }
  pairs: { kind: degrade, input: images }
  baseline: { kind: train, data: images, optim: { steps: 1 } }
  sample_baseline: { kind: sample, model: base_line, data: pairs }
  compare: { kind: compare, arms: { baseline: baseline, attention: sample_attention } }
",
        &[],
        r#"
error: `data` must refer to a degrade stage, but `images` is a fetch stage
 --> test.yaml:5:34
  |
5 |   baseline: { kind: train, data: images, optim: { steps: 1 } }
  |                                  ^^^^^^
  |
  = help: the only degrade stage is `pairs`

error: `model` refers to `base_line`, but there is no such stage
 --> test.yaml:6:43
  |
6 |   sample_baseline: { kind: sample, model: base_line, data: pairs }
  |                                           ^^^^^^^^^
  |
  = help: did you mean `baseline`?

error: `arms.baseline` must refer to a sample stage, but `baseline` is a train stage
 --> test.yaml:7:47
  |
7 |   compare: { kind: compare, arms: { baseline: baseline, attention: sample_attention } }
  |                                               ^^^^^^^^
  |
  = help: the only sample stage is `sample_baseline`

error: `arms.attention` refers to `sample_attention`, but there is no such stage
 --> test.yaml:7:68
  |
7 |   compare: { kind: compare, arms: { baseline: baseline, attention: sample_attention } }
  |                                                                    ^^^^^^^^^^^^^^^^
  |
  = help: the only sample stage is `sample_baseline`
"#,
    );
}

#[test]
fn cycles_are_reported_with_their_path() {
    assert_errors(
        "\
name: cycle
stages:
  a: { kind: degrade, input: c }
  b: { kind: train, data: a, optim: { steps: 1 } }
  c: { kind: sample, model: b, data: a }
  d: { kind: degrade, input: d }
",
        &[],
        r#"
error: `input` must refer to a fetch stage, but `c` is a sample stage
 --> test.yaml:3:30
  |
3 |   a: { kind: degrade, input: c }
  |                              ^
  |
  = help: the pipeline has no fetch stage; add one

error: circular dependency: `a` → `c` → `b` → `a`
 --> test.yaml:4:27
  |
4 |   b: { kind: train, data: a, optim: { steps: 1 } }
  |                           ^
  |
  = help: this reference closes the cycle; refer to an earlier stage instead

error: circular dependency: `a` → `c` → `a`
 --> test.yaml:5:38
  |
5 |   c: { kind: sample, model: b, data: a }
  |                                      ^
  |
  = help: this reference closes the cycle; refer to an earlier stage instead

error: `input` must refer to a fetch stage, but `d` is a degrade stage
 --> test.yaml:6:30
  |
6 |   d: { kind: degrade, input: d }
  |                              ^
  |
  = help: the pipeline has no fetch stage; add one

error: circular dependency: `d` → `d`
 --> test.yaml:6:30
  |
6 |   d: { kind: degrade, input: d }
  |                              ^
  |
  = help: this reference closes the cycle; refer to an earlier stage instead
"#,
    );
}

#[test]
fn incompatible_stages_are_refused() {
    assert_errors(
        "\
name: fit
stages:
  images: { kind: fetch, dataset: synthetic }
  four: { kind: degrade, input: images, scale: 4 }
  two: { kind: degrade, input: images, scale: 2 }
  long: { kind: train, data: four, diffusion: { timesteps: 20 }, optim: { steps: 1, epochs: 1 } }
  short: { kind: train, data: two, diffusion: { schedule: linear, timesteps: 20, beta_start: 0.1 } }
  sample_long: { kind: sample, model: long, data: two }
  sample_short: { kind: sample, model: short, data: two, sampler: { steps: 20 } }
  sample_four: { kind: sample, model: long, data: four, sampler: { steps: 20 } }
  compare: { kind: compare, arms: { bicubic: sample_short, a/b: sample_four } }
",
        &[],
        r#"
error: `optim.steps` and `optim.epochs` are mutually exclusive
 --> test.yaml:6:93
  |
6 |   long: { kind: train, data: four, diffusion: { timesteps: 20 }, optim: { steps: 1, epochs: 1 } }
  |                                                                                  - also set ^
  |
  = help: remove one of them

error: stage `short` needs `optim.steps`, `optim.epochs` or `optim.budget`
 --> test.yaml:7:3
  |
7 |   short: { kind: train, data: two, diffusion: { schedule: linear, timesteps: 20, beta_start: 0.1 } }
  |   ^^^^^
  |
  = help: such as `optim: { steps: 1500 }`, or the same under `defaults.train`

error: 20 timesteps are too few for a beta schedule: the last beta would be 1.000
 --> test.yaml:7:78
  |
7 |   short: { kind: train, data: two, diffusion: { schedule: linear, timesteps: 20, beta_start: 0.1 } }
  |                                                                              ^^
  |
  = help: use at least 21, or `schedule: cosine`

error: `diffusion.beta_start` is 0.1, greater than `diffusion.beta_end`, which is 0.02
 --> test.yaml:7:94
  |
7 |   short: { kind: train, data: two, diffusion: { schedule: linear, timesteps: 20, beta_start: 0.1 } }
  |                                                                                              ^^^
  |
  = help: noise must increase from the first step to the last

error: `sampler.steps` is 25, but `long` is trained with 20 timesteps
 --> test.yaml:8:3
  |
8 |   sample_long: { kind: sample, model: long, data: two }
  |   ^^^^^^^^^^^
  |
  = help: use at most 20 steps

error: `two` has scale 2, but `long` is trained on `four` with scale 4
 --> test.yaml:8:51
  |
6 |   long: { kind: train, data: four, diffusion: { timesteps: 20 }, optim: { steps: 1, epochs: 1 } }
  |                              ---- the training data
7 |   short: { kind: train, data: two, diffusion: { schedule: linear, timesteps: 20, beta_start: 0.1 } }
8 |   sample_long: { kind: sample, model: long, data: two }
  |                                                   ^^^
  |
  = help: use data with the scale of the model

error: the arm name `bicubic` is reserved
  --> test.yaml:11:37
   |
11 |   compare: { kind: compare, arms: { bicubic: sample_short, a/b: sample_four } }
   |                                     ^^^^^^^
   |
   = help: every comparison includes bicubic interpolation under this name

error: `a/b` is not a valid arm name
  --> test.yaml:11:60
   |
11 |   compare: { kind: compare, arms: { bicubic: sample_short, a/b: sample_four } }
   |                                                            ^^^
   |
   = help: a name consists of the letters a to z and A to Z, digits, `_`, `-` and `.`

error: arms must use the same data, but `a/b` samples from `four` and `bicubic` samples from `two`
  --> test.yaml:11:65
   |
11 |   compare: { kind: compare, arms: { bicubic: sample_short, a/b: sample_four } }
   |                                              ------------       ^^^^^^^^^^^
   |                                              |
   |                                              samples from `two`
   |
   = help: set the same `data` in the `sample` stages of all arms
"#,
    );
}

#[test]
fn models_must_match_their_images() {
    assert_errors(
        "\
name: models
defaults:
  train: { data: four, optim: { steps: 1 } }
stages:
  images: { kind: fetch, dataset: synthetic }
  four: { kind: degrade, input: images, method: bicubic }
  flat: { kind: train, model: { attention: { kind: mhsa, resolutions: [8, 4] } } }
  heads: { kind: train, model: { base_channels: 6, attention: { kind: linear, resolutions: [32] } } }
  narrow: { kind: train, model: { base_channels: 4, attention: { kind: seed, resolutions: [32] } } }
  deep: { kind: train, model: { channel_mults: [1, 1, 1, 1, 1, 1], attention: { kind: cross } } }
  parts: { kind: train, optim: { batch_size: 32, micro_batches: 5 } }
  hasty: { kind: train, optim: { budget: 45 } }
  sample: { kind: sample, model: deep, data: four, sampler: { project_lr: true } }
",
        &[],
        r#"
error: no feature map of the U-Net is 4×4
 --> test.yaml:7:71
  |
7 |   flat: { kind: train, model: { attention: { kind: mhsa, resolutions: [8, 4] } } }
  |                                                                       ^^^^^^
  |
  = help: for images of 32×32 pixels and 3 levels, the feature map sizes are: 32, 16, 8

error: 6 channels at 32×32 can't be divided among 4 heads
 --> test.yaml:8:3
  |
8 |   heads: { kind: train, model: { base_channels: 6, attention: { kind: linear, resolutions: [32] } } }
  |   ^^^^^
  |
  = help: `heads` must divide the channels of every resolution

error: the attention needs at least 8 channels at 32×32, found 4
 --> test.yaml:9:50
  |
9 |   narrow: { kind: train, model: { base_channels: 4, attention: { kind: seed, resolutions: [32] } } }
  |                                                  ^
  |
  = help: queries and keys use an eighth of the channels

error: a batch of 32 cannot be divided into 5 equal parts
  --> test.yaml:11:65
   |
11 |   parts: { kind: train, optim: { batch_size: 32, micro_batches: 5 } }
   |                                                                 ^
   |
   = help: `optim.micro_batches` must divide `optim.batch_size`

error: `optim.budget` needs `optim.gflops`
  --> test.yaml:12:42
   |
12 |   hasty: { kind: train, optim: { budget: 45 } }
   |                                          ^^
   |
   = help: such as `gflops: 200`; measure it with `srpipe bench` on the machine that the budget is meant for

error: `sampler.project_lr` needs data from a `degrade` stage with `method: area`
  --> test.yaml:13:75
   |
 6 |   four: { kind: degrade, input: images, method: bicubic }
   |                                                 ------- not `area`
...
13 |   sample: { kind: sample, model: deep, data: four, sampler: { project_lr: true } }
   |                                                                           ^^^^
   |
   = help: it corrects block means, and only `area` produces low-resolution images that are block means
"#,
    );
}

#[test]
fn arms_must_have_the_same_test_images() {
    let text = |a: &str, b: &str| {
        format!(
            "\
name: counts
stages:
  images: {{ kind: fetch, dataset: synthetic, test: 64 }}
  pairs: {{ kind: degrade, input: images }}
  model: {{ kind: train, data: pairs, optim: {{ steps: 5 }} }}
  a: {{ kind: sample, model: model, data: pairs{a} }}
  b: {{ kind: sample, model: model, data: pairs{b} }}
  compare: {{ kind: compare, arms: {{ a: a, b: b }} }}
"
        )
    };
    // A limit above the number of test images has no effect.
    valid(&text(", limit: 8", ", limit: 8"));
    valid(&text("", ", limit: 64"));
    valid(&text(", limit: 100", ", limit: 1000"));
    assert_errors(
        &text(", limit: 8", ", limit: 16"),
        &[],
        r#"
error: arms must have the same test images, but `b` has 16 and `a` has 8
 --> test.yaml:7:56
  |
6 |   a: { kind: sample, model: model, data: pairs, limit: 8 }
  |                                                        - the limit of `a`
7 |   b: { kind: sample, model: model, data: pairs, limit: 16 }
  |                                                        ^^
  |
  = help: set the same `limit` in the `sample` stages of all arms, for example in `defaults.sample`
"#,
    );
    assert_errors(
        &text(", limit: 8", ""),
        &[],
        r#"
error: arms must have the same test images, but `b` has 64 and `a` has 8
 --> test.yaml:6:56
  |
6 |   a: { kind: sample, model: model, data: pairs, limit: 8 }
  |                                                        ^
  |
  = help: set the same `limit` in the `sample` stages of all arms, for example in `defaults.sample`
"#,
    );
}
