//! Tests of errors about invalid values.

use super::*;

#[test]
fn types_ranges_and_options_are_checked() {
    assert_errors(
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
    validation: 100
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

error: `method` must be `area`, `bicubic`, `lanczos`, `bilinear` or `blur`, found a list
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

error: `validation` must be a mapping, found `100`
  --> test.yaml:12:17
   |
12 |     validation: 100
   |                 ^^^
   |
   = help: valid keys: every, images
"#,
    );
}

#[test]
fn a_folder_dataset_needs_a_path() {
    assert_errors(
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
    assert_errors(
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
fn an_invalid_value_does_not_hide_other_errors() {
    assert_errors(
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
    assert_errors(
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
