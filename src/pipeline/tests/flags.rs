//! Tests of the paths of `--set` and `--sweep`.

use super::*;

#[test]
fn incomplete_paths_of_flags_are_completed() {
    let help = |set: &[&str], sweep: &[&str]| {
        let flags = Flags {
            set: set.iter().map(|s| s.to_string()).collect(),
            sweep: sweep.iter().map(|s| s.to_string()).collect(),
        };
        let errors = parse("test.yaml", SMALL, &flags).unwrap_err();
        errors
            .errors()
            .iter()
            .map(|error| (error.message.clone(), error.help.clone().unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    let of = |set: &str| help(&[set], &[]).remove(0);
    assert_eq!(
        of("optim.steps=7"),
        ("a pipeline file has no key `optim`".into(), "did you mean `defaults.train.optim.steps`?".into())
    );
    assert_eq!(of("data=x").1, "did you mean `defaults.train.data` or `defaults.sample.data`?");
    assert_eq!(of("samples.limit=3").1, "did you mean `stages.samples.limit`?");
    assert_eq!(help(&[], &["optim.lr=1,2"]).remove(0).1, "did you mean `defaults.train.optim.lr`?");
    assert_eq!(of("nonsense=1").0, "unknown key `nonsense`");
}
