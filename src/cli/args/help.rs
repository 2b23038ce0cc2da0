//! What the help of every command ends with: examples where it has none of its own, and what its exit code means.

use clap::builder::StyledStr;
use clap::{Command, CommandFactory};

use super::Cli;

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  it failed, or the machine did
    2  the pipeline file, the command line or a file that it names is wrong; nothing was started";

/// By command, a line each.
const EXAMPLES: [(&str, &[&str]); 16] = [
    (
        "status",
        &[
            "srpipe status                           every pipeline's latest run; on a terminal, one that is on is followed",
            "srpipe status pipelines/ablation.yaml   every stage of the file",
            "srpipe status ablation --once --all     of the pipeline's latest run, as it is now, with every instance",
        ],
    ),
    (
        "plan",
        &[
            "srpipe plan pipelines/ablation.yaml                     what `run` would do, and how long it would take",
            "srpipe plan pipelines/sweep.yaml --sweep seed=0,1,2 --all",
            "srpipe plan pipelines/ablation.yaml --force attention   what follows when a stage runs again",
        ],
    ),
    (
        "why",
        &[
            "srpipe why pipelines/ablation.yaml attention",
            "srpipe why pipelines/ablation.yaml attention --set stages.attention.optim.lr=1e-3",
        ],
    ),
    (
        "diff",
        &[
            "srpipe diff 20261124-091502 20261124-103010   two runs by the beginning of their ids",
            "srpipe diff quickstart ablation               the latest runs of two pipelines",
        ],
    ),
    ("graph", &["srpipe graph pipelines/ablation.yaml", "srpipe graph pipelines/sweep.yaml --format mermaid"]),
    ("check", &["srpipe check pipelines/ablation.yaml", "srpipe check pipelines/sweep.yaml --set seed=1 --json"]),
    ("logs", &["srpipe logs attention", "srpipe logs attention -f    what it says while it runs"]),
    ("cancel", &["srpipe cancel ablation   the jobs of the pipeline's latest run"]),
    ("gc", &["srpipe gc --dry-run   what would be removed", "srpipe gc"]),
    ("verify", &["srpipe verify"]),
    ("export", &["srpipe export ablation ablation.tar.gz   a pipeline's latest run"]),
    ("import", &["srpipe import ablation.tar.gz"]),
    ("push", &["srpipe push ablation   the latest run of a pipeline"]),
    ("pin", &["srpipe pin ablation   the latest run of a pipeline"]),
    ("unpin", &["srpipe unpin ablation"]),
    (
        "completions",
        &[
            "srpipe completions bash   to be written to ~/.local/share/bash-completion/completions/srpipe",
            "srpipe completions zsh    to be written to a file _srpipe in a folder of $fpath",
            "srpipe completions fish   to be written to ~/.config/fish/completions/srpipe.fish",
        ],
    ),
];

/// The command line with all its help.
pub fn command() -> Command {
    Cli::command().mut_subcommands(|command| {
        let examples = EXAMPLES.iter().find(|(name, _)| *name == command.get_name());
        let examples = examples.map(|(_, lines)| format!("Examples:\n  {}", lines.join("\n  ")));
        let own = command.get_after_help().map(StyledStr::to_string);
        let is_said = own.as_ref().is_some_and(|text| text.contains("Exit codes:"));
        let codes = (!is_said).then(|| EXIT_CODES.to_string());
        let parts: Vec<String> = examples.into_iter().chain(own).chain(codes).collect();
        command.after_help(parts.join("\n\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_examples_that_can_be_typed_and_exit_codes() {
        for sub in command().get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let help = sub.get_after_help().map(StyledStr::to_string).unwrap_or_default();
            assert!(help.contains("Exit codes:"), "{}: {help}", sub.get_name());
            let examples = help.lines().filter(|line| line.starts_with("  srpipe "));
            let examples: Vec<Vec<&str>> = examples.map(words).collect();
            assert!(!examples.is_empty() || sub.get_name() == "schema", "{}: {help}", sub.get_name());
            for example in examples {
                let parsed = command().try_get_matches_from(&example);
                assert!(parsed.is_ok(), "{example:?}: {}", parsed.unwrap_err());
            }
        }
    }

    /// Those of the command; what follows two spaces or more says what it does.
    fn words(line: &str) -> Vec<&str> {
        let line = line.trim();
        let words = line.split_once("  ").map_or(line, |(command, _)| command).split(' ');
        words.map(|word| word.trim_matches('\'')).collect()
    }
}
