//! Suggests a study that could decide an inconclusive claim: the command of the run, with enough seeds.

use std::collections::BTreeSet;

use clap::Parser;

use super::args::{Cli, Command};
use crate::comparison::{BICUBIC, ClaimAnswer};
use crate::config::CompareParams;
use crate::config::StageParams;
use crate::format::command_line;
use crate::pipeline::load;

/// Returns instructions to test the `claims` of the comparison `stage` with `seeds` seeds, as the text after "The full
/// study:". Suggests a command only if, with the current file, it trains each arm with that many seeds.
pub(super) fn suggest_study(command: &[String], stage: &str, claims: &[&ClaimAnswer], seeds: usize) -> String {
    let list = (0..seeds).map(|seed| seed.to_string()).collect::<Vec<_>>();
    let sweep = format!("seed={}", list.join(","));
    let mut words = without_seeds(command);
    words.extend(["--sweep".to_string(), sweep]);
    match min_trainings(&words, stage, claims) {
        Some(trainings) if trainings >= seeds => command_line(&words),
        _ => format!(
            "train all claimed arms with the same {seeds} seeds: in the pipeline file, set `matrix: {{ seed: [{}] }}` and \
             remove `seed` from their stages and `defaults`",
            list.join(", ")
        ),
    }
}

/// Returns the command line without flags that set seeds.
fn without_seeds(command: &[String]) -> Vec<String> {
    let is_seed = |value: &str| value.split_once('=').is_some_and(|(path, _)| path.rsplit('.').next() == Some("seed"));
    let mut words = vec![];
    let mut rest = command.iter().peekable();
    while let Some(word) = rest.next() {
        let is_flag = ["--set", "--sweep"].contains(&word.as_str());
        if is_flag && rest.peek().is_some_and(|value| is_seed(value)) {
            rest.next();
        } else if !["--set=", "--sweep="].iter().any(|flag| word.strip_prefix(flag).is_some_and(is_seed)) {
            words.push(word.clone());
        }
    }
    words
}

/// Returns the smallest number of training runs per arm of the claims if the command is run, or `None` if the command is
/// invalid.
fn min_trainings(command: &[String], stage: &str, claims: &[&ClaimAnswer]) -> Option<usize> {
    let Command::Run(args) = Cli::try_parse_from(command).ok()?.command else { return None };
    let pipeline = load(&args.file, &args.flags.flags()).ok()?;
    let StageParams::Compare(params) = &pipeline.stage(stage)?.params else { return None };
    let arms = claims.iter().flat_map(|claim| [&claim.arm, &claim.control]).filter(|arm| *arm != BICUBIC);
    let trainings: Option<Vec<usize>> = arms.map(|arm| count_trainings(arm, params)).collect();
    trainings?.into_iter().min()
}

/// Returns the number of different sets of training runs that an arm's runs depend on.
fn count_trainings(arm: &str, params: &CompareParams) -> Option<usize> {
    let runs = &params.arms.get(arm)?.runs;
    Some(runs.iter().map(|run| &run.trainings).collect::<BTreeSet<_>>().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_removed_from_the_command_line() {
        let command = [
            "srpipe",
            "run",
            "a.yaml",
            "--sweep",
            "seed=0,1",
            "--set=seed=3",
            "--set",
            "name=b",
            "--sweep=x=1",
            "--set",
            "stages.a.seed=3",
            "--set=defaults.train.seed=1",
        ];
        let remaining = without_seeds(&command.map(String::from));
        assert_eq!(remaining, ["srpipe", "run", "a.yaml", "--set", "name=b", "--sweep=x=1"]);
        assert_eq!(without_seeds(&["--set".to_string()]), ["--set"]);
    }
}
