//! Tests of rendered error messages, with snippets and help.

use super::*;

#[test]
fn all_errors_of_a_file_are_reported_at_once() {
    assert_errors(
        "\
name: my experiment
sead: 1
device: gpu
defaults:
  train: { optim: { lr: fast, warmup: 1.5 } }
  trian: {}
stages:
  photos: { kind: fetch, dataset: cifar }
  pairs: { kind: degrade, inptu: photos, scale: 3 }
  model:
    kind: train
    data: pear
    base_chanels: 16
    model: { atention: none }
    optim: { steps: 10, steps: 20 }
  samples: { kind: smaple }
",
        &[],
        r#"
error: `my experiment` is not a valid pipeline name
 --> test.yaml:1:7
  |
1 | name: my experiment
  |       ^^^^^^^^^^^^^
  |
  = help: a name consists of the letters a to z and A to Z, digits, `_`, `-` and `.`

error: unknown key `sead`
 --> test.yaml:2:1
  |
2 | sead: 1
  | ^^^^
  |
  = help: did you mean `seed`?

error: `device` must be `auto`, `cpu`, `cuda` or a numbered one such as `cuda:1`, found `gpu`
 --> test.yaml:3:9
  |
3 | device: gpu
  |         ^^^
  |
  = help: did you mean `cuda`?

error: `optim.lr` must be a number, found `fast`
 --> test.yaml:5:25
  |
5 |   train: { optim: { lr: fast, warmup: 1.5 } }
  |                         ^^^^

error: `optim.warmup` must be at most 1, found `1.5`
 --> test.yaml:5:39
  |
5 |   train: { optim: { lr: fast, warmup: 1.5 } }
  |                                       ^^^

error: unknown stage kind `trian`
 --> test.yaml:6:3
  |
6 |   trian: {}
  |   ^^^^^
  |
  = help: did you mean `train`?

error: `dataset` must be `cifar10`, `synthetic`, `maps` or `folder`, found `cifar`
 --> test.yaml:8:35
  |
8 |   photos: { kind: fetch, dataset: cifar }
  |                                   ^^^^^
  |
  = help: did you mean `cifar10`?

error: unknown key `inptu`
 --> test.yaml:9:27
  |
9 |   pairs: { kind: degrade, inptu: photos, scale: 3 }
  |                           ^^^^^
  |
  = help: did you mean `input`?

error: `scale` must be `2`, `4` or `8`, found `3`
 --> test.yaml:9:49
  |
9 |   pairs: { kind: degrade, inptu: photos, scale: 3 }
  |                                                 ^

error: `data` refers to `pear`, but there is no such stage
  --> test.yaml:12:11
   |
12 |     data: pear
   |           ^^^^
   |
   = help: the only degrade stage is `pairs`

error: unknown key `base_chanels`
  --> test.yaml:13:5
   |
13 |     base_chanels: 16
   |     ^^^^^^^^^^^^
   |
   = help: did you mean `model.base_channels`?

error: unknown key `atention` in `model`
  --> test.yaml:14:14
   |
14 |     model: { atention: none }
   |              ^^^^^^^^
   |
   = help: did you mean `attention`?

error: duplicate key `steps`
  --> test.yaml:15:25
   |
15 |     optim: { steps: 10, steps: 20 }
   |              -----      ^^^^^
   |              |
   |              first defined here

error: `kind` must be `fetch`, `degrade`, `train`, `sample`, `compare`, `select` or `command`, found `smaple`
  --> test.yaml:16:20
   |
16 |   samples: { kind: smaple }
   |                    ^^^^^^
   |
   = help: did you mean `sample`?
"#,
    );
}

#[test]
fn missing_parameters_are_named() {
    assert_errors(
        "\
description: no name, and little else
stages:
  photos: { kind: fetch }
  pairs: { kind: degrade }
  model: { train: { data: pairs } }
  samples: { kind: sample, model: model }
  empty: { kind: compare, arms: {} }
  nothing:
",
        &[],
        r#"
error: the pipeline needs `name`
 --> test.yaml:1:1
  |
1 | description: no name, and little else
  | ^

error: stage `photos` needs `dataset`
 --> test.yaml:3:3
  |
3 |   photos: { kind: fetch }
  |   ^^^^^^
  |
  = help: one of `cifar10`, `synthetic`, `maps` or `folder`

error: stage `pairs` needs `input`
 --> test.yaml:4:3
  |
4 |   pairs: { kind: degrade }
  |   ^^^^^
  |
  = help: `input`: The `fetch` stage whose images are degraded.

error: stage `model` needs `kind`
 --> test.yaml:5:3
  |
5 |   model: { train: { data: pairs } }
  |   ^^^^^
  |
  = help: did you mean `kind: train`?

error: stage `samples` needs `data`
 --> test.yaml:6:3
  |
6 |   samples: { kind: sample, model: model }
  |   ^^^^^^^
  |
  = help: `data`: The `degrade` stage whose images are super-resolved.

error: `arms` must have at least 1 entry
 --> test.yaml:7:33
  |
7 |   empty: { kind: compare, arms: {} }
  |                                 ^^

error: stage `nothing` must be a mapping, found nothing
 --> test.yaml:8:3
  |
8 |   nothing:
  |   ^^^^^^^
  |
  = help: such as `{ kind: degrade, input: photos }`
"#,
    );
}

#[test]
fn errors_in_defaults_are_reported_once() {
    assert_errors(
        "\
name: defaults
defaults:
  train: { data: pairs, optim: { steps: 1, lr: -1 } }
stages:
  images: { kind: fetch, dataset: synthetic }
  pairs: { kind: degrade, input: images }
  one: { kind: train }
  two: { kind: train }
",
        &[],
        r#"
error: `optim.lr` must be greater than 0, found `-1`
 --> test.yaml:3:48
  |
3 |   train: { data: pairs, optim: { steps: 1, lr: -1 } }
  |                                                ^^
"#,
    );
}

#[test]
fn errors_in_flags_point_at_the_flag() {
    assert_errors(
        SMALL,
        &[
            "foo",
            "stages.modle.optim.lr=1",
            "stages.model.optim.lr=fast",
            "defaults.train.model.base_chanels=16",
            "stages.pairs.scale.x=2",
            "stages.pairs.input=model",
            "stages.model.optim.betas=[0.9",
            "=3",
        ],
        r#"
error: circular dependency: `pairs` → `model` → `pairs`
 --> test.yaml:3:18
  |
3 |   train: { data: pairs, optim: { steps: 10 } }
  |                  ^^^^^
  |
  = help: this reference closes the cycle; refer to an earlier stage instead

error: `--set` needs `path=value`
 |
 | --set foo
 |       ^^^
 |
 = help: such as `--set defaults.train.optim.steps=1500`

error: there is no stage `modle`
 |
 | --set stages.modle.optim.lr=1
 |              ^^^^^
 |
 = help: did you mean `model`?

error: `optim.lr` must be a number, found `fast`
 |
 | --set stages.model.optim.lr=fast
 |                             ^^^^

error: unknown key `base_chanels` in `model`
 |
 | --set defaults.train.model.base_chanels=16
 |                            ^^^^^^^^^^^^
 |
 = help: did you mean `base_channels`?

error: `scale` must be an integer, found a mapping
 |
 | --set stages.pairs.scale.x=2
 |                    ^^^^^

error: `input` must refer to a fetch stage, but `model` is a train stage
 |
 | --set stages.pairs.input=model
 |                          ^^^^^
 |
 = help: the only fetch stage is `images`

error: not valid YAML: while parsing a flow sequence, expected ',' or ']'
 |
 | --set stages.model.optim.betas=[0.9
 |                                   ^
 |
 = help: a `,` between two entries or a closing `}` or `]` is missing, here or earlier

error: a path must consist of keys separated by dots
 |
 | --set =3
 |       ^^
 |
 = help: such as `stages.cifar.url`
"#,
    );
}

#[test]
fn names_that_are_not_plain_are_refused() {
    assert_errors(
        "\
name: ..
stages:
  ../up: { kind: fetch, dataset: synthetic }
  \"a\\nb\": { kind: fetch, dataset: synthetic }
  run.json: { kind: fetch, dataset: synthetic }
",
        &[],
        r#"
error: `..` is not a valid pipeline name
 --> test.yaml:1:7
  |
1 | name: ..
  |       ^^
  |
  = help: a name starts with a letter, a digit or `_`

error: `../up` is not a valid stage name
 --> test.yaml:3:3
  |
3 |   ../up: { kind: fetch, dataset: synthetic }
  |   ^^^^^
  |
  = help: a name consists of the letters a to z and A to Z, digits, `_`, `-` and `.`

error: `a\nb` is not a valid stage name
 --> test.yaml:4:3
  |
4 |   "a\nb": { kind: fetch, dataset: synthetic }
  |   ^^^^^^
  |
  = help: a name consists of the letters a to z and A to Z, digits, `_`, `-` and `.`

error: `run.json` is not a valid stage name
 --> test.yaml:5:3
  |
5 |   run.json: { kind: fetch, dataset: synthetic }
  |   ^^^^^^^^
  |
  = help: srpipe reserves this name
"#,
    );
}

#[test]
fn distant_spans_are_shown_in_separate_snippets() {
    let text = SMALL.to_string() + &"\n".repeat(40) + "  pairs: { kind: degrade, input: images }\n";
    assert_errors(
        &text,
        &[],
        r#"
error: duplicate key `pairs`
  --> test.yaml:50:3
   |
50 |   pairs: { kind: degrade, input: images }
   |   ^^^^^
   |
  ::: test.yaml:6:3
   |
 6 |   pairs: { kind: degrade, input: images }
   |   ----- first defined here
"#,
    );
}

#[test]
fn rendering_without_colours_has_no_escapes() {
    let errors = parse_with("name: x", &[]).unwrap_err();
    assert!(errors.render(true).contains("\u{1b}["));
    assert!(!errors.render(false).contains('\u{1b}'));
    assert_eq!(errors.to_string(), errors.render(false));
}

#[test]
fn errors_are_accessible_individually() {
    let errors = parse_with("name: x\nstage: {}\nstages: { a: 1 }", &["seed=x"]).unwrap_err();
    let found: Vec<_> = errors.errors().iter().map(|e| errors.position(e).unwrap().to_string()).collect();
    assert_eq!(found, ["test.yaml:2:1", "test.yaml:3:14", "--set seed=x"]);
    assert_eq!(errors.errors()[0].help.as_deref(), Some("did you mean `stages`?"));
}

#[test]
fn the_number_of_errors_is_limited() {
    let text = "name: x\nstages:\n".to_string() + &"  a: 1\n".repeat(1000);
    let errors = parse_with(&text, &[]).unwrap_err();
    assert_eq!(errors.errors().len(), 200);
    assert!(errors.to_string().ends_with("\n\nerror: too many errors; only the first 200 are shown"));
}

#[test]
fn a_string_in_place_of_a_mapping_gets_help() {
    let text = "name: x\nstages:\n  images: { kind: fetch, dataset: synthetic }\n  pairs: { kind: degrade, input: images }\n  \
                model: { kind: train, data: pairs, model: { attention: saga }, optim: 5 }\n";
    let errors = parse_with(text, &[]).unwrap_err();
    let help: Vec<&str> = errors.errors().iter().map(|error| error.help.as_deref().unwrap()).collect();
    assert_eq!(help[0], "write `{ kind: sagan }`");
    assert!(help[1].starts_with("valid keys: batch_size, "), "{help:?}");
}
