//! Errors about invalid values and incompatible stages.

use super::*;

#[test]
fn types_ranges_and_options_are_checked() {
    says(
        "\
name: values
seed: -1
stages:
  images: { kind: fetch, dataset: synthetic, train: 0, test: 2.5 }
  pairs: { kind: degrade, input: images, method: [area] }
  model:
    kind: train
    data: pairs
    model: { base_channels: 1, attention: { kind: mhsaa } }
    diffusion: { beta_start: .nan, timesteps: 1, schedule: cosin }
    optim: { steps: '10', lr: 0, betas: [0.9, 0.99, 0.999], flips: yes, clip: -1, ema: 1 }
    heldout: 100
",
        &[],
        r#"
error: `seed` must be an integer from 0 to 18446744073709551615, found `-1`
 --> test.yaml:2:7
  |
2 | seed: -1
  |       ^^

error: `train` must be at least 1, found `0`
 --> test.yaml:4:53
  |
4 |   images: { kind: fetch, dataset: synthetic, train: 0, test: 2.5 }
  |                                                     ^

error: `test` must be an integer, found `2.5`
 --> test.yaml:4:62
  |
4 |   images: { kind: fetch, dataset: synthetic, train: 0, test: 2.5 }
  |                                                              ^^^

error: `method` must be `area`, `bicubic`, `bilinear` or `blur`, found a list
 --> test.yaml:5:50
  |
5 |   pairs: { kind: degrade, input: images, method: [area] }
  |                                                  ^^^^^^

error: `model.base_channels` must be at least 2, found `1`
 --> test.yaml:9:29
  |
9 |     model: { base_channels: 1, attention: { kind: mhsaa } }
  |                             ^

error: `model.attention.kind` must be `none`, `sagan`, `mhsa`, `linear`, `cross`, `uniform` or `conv_control`, found `mhsaa`
 --> test.yaml:9:51
  |
9 |     model: { base_channels: 1, attention: { kind: mhsaa } }
  |                                                   ^^^^^
  |
  = help: did you mean `mhsa`?

error: `diffusion.beta_start` must be a finite number, found `.nan`
  --> test.yaml:10:30
   |
10 |     diffusion: { beta_start: .nan, timesteps: 1, schedule: cosin }
   |                              ^^^^

error: `diffusion.timesteps` must be at least 2, found `1`
  --> test.yaml:10:47
   |
10 |     diffusion: { beta_start: .nan, timesteps: 1, schedule: cosin }
   |                                               ^

error: `diffusion.schedule` must be `linear`, `cosine`, `sigmoid` or `quadratic`, found `cosin`
  --> test.yaml:10:60
   |
10 |     diffusion: { beta_start: .nan, timesteps: 1, schedule: cosin }
   |                                                            ^^^^^
   |
   = help: did you mean `cosine`?

error: `optim.steps` must be an integer, found `10`
  --> test.yaml:11:21
   |
11 |     optim: { steps: '10', lr: 0, betas: [0.9, 0.99, 0.999], flips: yes, clip: -1, ema: 1 }
   |                     ^^^^
   |
   = help: remove the quotes

error: `optim.lr` must be greater than 0, found `0`
  --> test.yaml:11:31
   |
11 |     optim: { steps: '10', lr: 0, betas: [0.9, 0.99, 0.999], flips: yes, clip: -1, ema: 1 }
   |                               ^

error: `optim.betas` must be a list of 2 items, found 3 items
  --> test.yaml:11:41
   |
11 |     optim: { steps: '10', lr: 0, betas: [0.9, 0.99, 0.999], flips: yes, clip: -1, ema: 1 }
   |                                         ^^^^^^^^^^^^^^^^^^

error: `optim.flips` must be `true` or `false`, found `yes`
  --> test.yaml:11:68
   |
11 |     optim: { steps: '10', lr: 0, betas: [0.9, 0.99, 0.999], flips: yes, clip: -1, ema: 1 }
   |                                                                    ^^^
   |
   = help: did you mean `true`?

error: `optim.clip` must be greater than 0, found `-1`
  --> test.yaml:11:79
   |
11 |     optim: { steps: '10', lr: 0, betas: [0.9, 0.99, 0.999], flips: yes, clip: -1, ema: 1 }
   |                                                                               ^^

error: `optim.ema` must be at most 0.999999, found `1`
  --> test.yaml:11:88
   |
11 |     optim: { steps: '10', lr: 0, betas: [0.9, 0.99, 0.999], flips: yes, clip: -1, ema: 1 }
   |                                                                                        ^

error: `heldout` must be a mapping, found `100`
  --> test.yaml:12:14
   |
12 |     heldout: 100
   |              ^^^
   |
   = help: valid keys: every, images
"#,
    );
}

#[test]
fn references_must_lead_to_stages_of_the_right_kind() {
    says(
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
    says(
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
    says(
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
fn a_folder_dataset_needs_a_path() {
    says(
        "\
name: folders
stages:
  a: { kind: fetch, dataset: folder, path: \"\" }
  b: { kind: fetch, dataset: folder }
  c: { kind: fetch, dataset: folder, path: photos, fit: tile }
",
        &[],
        r#"
error: `path` must be a directory, found ``
 --> test.yaml:3:44
  |
3 |   a: { kind: fetch, dataset: folder, path: "" }
  |                                            ^^
  |
  = help: `.` is the current directory

error: stage `b` needs `path`
 --> test.yaml:4:3
  |
4 |   b: { kind: fetch, dataset: folder }
  |   ^
  |
  = help: `path`: The folder, relative to the working directory.

error: `fit` must be `cover`, `crop` or `tiles`, found `tile`
 --> test.yaml:5:57
  |
5 |   c: { kind: fetch, dataset: folder, path: photos, fit: tile }
  |                                                         ^^^^
  |
  = help: did you mean `tiles`?
"#,
    );
}

#[test]
fn archive_urls_are_checked() {
    says(
        "\
name: archives
stages:
  a: { kind: fetch, dataset: cifar10, url: \"https://example.org/cifar.tar.gz\" }
  b: { kind: fetch, dataset: cifar10, url: cifar.tar.gz, sha256: 12ab }
  c: { kind: fetch, dataset: cifar10, url: \"ftp://example.org/x\", mirrors: [\"https://example.org/x\", \"file:x\"] }
  d: { kind: fetch, dataset: synthetic, url: \"file:x\" }
",
        &[],
        r#"
error: an archive from the web needs `sha256`
 --> test.yaml:3:44
  |
3 |   a: { kind: fetch, dataset: cifar10, url: "https://example.org/cifar.tar.gz" }
  |                                            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: set it to the output of `sha256sum`, or remove `url` to download the official archive

error: `url` must be `https://…`, `http://…` or `file:…`, found `cifar.tar.gz`
 --> test.yaml:4:44
  |
4 |   b: { kind: fetch, dataset: cifar10, url: cifar.tar.gz, sha256: 12ab }
  |                                            ^^^^^^^^^^^^
  |
  = help: for a local file, write `file:cifar.tar.gz`

error: `sha256` must be 64 hexadecimal digits, found `12ab`
 --> test.yaml:4:66
  |
4 |   b: { kind: fetch, dataset: cifar10, url: cifar.tar.gz, sha256: 12ab }
  |                                                                  ^^^^

error: `url` must be `https://…`, `http://…` or `file:…`, found `ftp://example.org/x`
 --> test.yaml:5:44
  |
5 |   c: { kind: fetch, dataset: cifar10, url: "ftp://example.org/x", mirrors: ["https://example.org/x", "file:x"] }
  |                                            ^^^^^^^^^^^^^^^^^^^^^

error: a mirror must be `https://…` or `http://…`, found `file:x`
 --> test.yaml:5:102
  |
5 |   c: { kind: fetch, dataset: cifar10, url: "ftp://example.org/x", mirrors: ["https://example.org/x", "file:x"] }
  |                                                                                                      ^^^^^^^^

error: unknown key `url` of dataset `synthetic`
 --> test.yaml:6:41
  |
6 |   d: { kind: fetch, dataset: synthetic, url: "file:x" }
  |                                         ^^^
  |
  = help: valid keys: `dataset`, `resources`, `retry`, `test`, `train`, `validation`
"#,
    );
}

#[test]
fn models_must_match_their_images() {
    says(
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
  parts: { kind: train, optim: { batch_size: 32, accumulate: 5 } }
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
  --> test.yaml:11:62
   |
11 |   parts: { kind: train, optim: { batch_size: 32, accumulate: 5 } }
   |                                                              ^
   |
   = help: `optim.accumulate` must divide `optim.batch_size`

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
fn an_invalid_value_does_not_hide_other_errors() {
    says(
        "\
name: both
stages:
  images: { kind: fetch, dataset: synthetic }
  pairs: { kind: degrade, input: images }
  model: { kind: train, data: pairs, optim: { lr: fast, steps: 5, epochs: 3 } }
  other: { kind: train, data: pairs, optim: { steps: many } }
  samples: { kind: sample, model: model, data: pairs, sampler: { steps: 2000 } }
",
        &[],
        r#"
error: `optim.lr` must be a number, found `fast`
 --> test.yaml:5:51
  |
5 |   model: { kind: train, data: pairs, optim: { lr: fast, steps: 5, epochs: 3 } }
  |                                                   ^^^^

error: `optim.steps` and `optim.epochs` are mutually exclusive
 --> test.yaml:5:75
  |
5 |   model: { kind: train, data: pairs, optim: { lr: fast, steps: 5, epochs: 3 } }
  |                                                                - also set ^
  |
  = help: remove one of them

error: `optim.steps` must be an integer, found `many`
 --> test.yaml:6:54
  |
6 |   other: { kind: train, data: pairs, optim: { steps: many } }
  |                                                      ^^^^

error: `sampler.steps` is 2000, but `model` is trained with 1000 timesteps
 --> test.yaml:7:73
  |
7 |   samples: { kind: sample, model: model, data: pairs, sampler: { steps: 2000 } }
  |                                                                         ^^^^
  |
  = help: use at most 1000 steps
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
    says(
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
    says(
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

#[test]
fn an_unquoted_string_that_yaml_reads_as_a_mapping_gets_help() {
    let cifar = SMALL.replace("dataset: synthetic", "dataset: cifar10");
    let errors = parse_with(&cifar, &["stages.images.url=file:"]).unwrap_err();
    let [error] = errors.errors() else { panic!("{errors}") };
    assert_eq!(error.message, "`url` must be a string, found a mapping");
    let help = "YAML reads `file:` as a key: quote strings with a colon before a space or at the end";
    assert_eq!(error.help.as_deref(), Some(help));
}

#[test]
fn schedules_that_underflow_are_refused() {
    says(
        "\
name: noise
defaults: { train: { data: pairs, optim: { steps: 1 } } }
stages:
  images: { kind: fetch, dataset: synthetic }
  pairs: { kind: degrade, input: images }
  linear: { kind: train, diffusion: { schedule: linear, beta_end: 0.999 } }
  quadratic: { kind: train, diffusion: { schedule: quadratic, beta_end: 0.9 } }
  hopeless: { kind: train, diffusion: { schedule: linear, beta_start: 0.5, beta_end: 0.5 } }
  usual: { kind: train, diffusion: { schedule: linear } }
  clipped: { kind: train, diffusion: { schedule: cosine, timesteps: 100000 } }
  unread: { kind: train, diffusion: { schedule: cosine, beta_end: 0.999 } }
  single: { kind: train, diffusion: { objective: regression, schedule: linear, beta_end: 0.999 } }
",
        &[],
        r#"
error: with `diffusion.beta_end` 0.999 the noise schedule leaves nothing of the image: alpha-bar ends at 0, and the minimum is 1e-20
 --> test.yaml:6:67
  |
6 |   linear: { kind: train, diffusion: { schedule: linear, beta_end: 0.999 } }
  |                                                                   ^^^^^
  |
  = help: use a `beta_end` of at most 0.0892, or `schedule: cosine`

error: with `diffusion.beta_end` 0.9 the noise schedule leaves nothing of the image: alpha-bar ends at 7e-207, and the minimum is 1e-20
 --> test.yaml:7:73
  |
7 |   quadratic: { kind: train, diffusion: { schedule: quadratic, beta_end: 0.9 } }
  |                                                                         ^^^
  |
  = help: use a `beta_end` of at most 0.128, or `schedule: cosine`

error: with `diffusion.beta_end` 0.5 the noise schedule leaves nothing of the image: alpha-bar ends at 9e-302, and the minimum is 1e-20
 --> test.yaml:8:86
  |
8 |   hopeless: { kind: train, diffusion: { schedule: linear, beta_start: 0.5, beta_end: 0.5 } }
  |                                                                                      ^^^
  |
  = help: use a smaller `beta_start` and `beta_end` (such as 0.0001 and 0.02), or `schedule: cosine`
"#,
    );
}
