//! The groups of commands in `srpipe --help`, and the examples and exit codes at the end of each command's help.

use std::fmt::Write;

use clap::builder::{StyledStr, Styles};
use clap::{Command, CommandFactory};

use super::Cli;

const EXIT_CODES: &str = "\
Exit codes:
    0  success
    1  the command failed, or a system error occurred
    2  invalid pipeline file, command line or input file; nothing was started";

/// The commands by topic, in the order of `srpipe --help`.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Start", &["init", "check", "schema"]),
    ("Run", &["run", "plan", "why", "cancel"]),
    ("Inspect", &["status", "logs", "graph", "runs", "diff"]),
    ("Results", &["report", "upscale", "gc", "verify", "pin", "unpin"]),
    ("Share", &["export", "import", "push"]),
    ("Tools", &["bench", "completions", "help"]),
];

/// The examples of each command, one per line.
const EXAMPLES: [(&str, &[&str]); 16] = [
    (
        "status",
        &[
            "srpipe status                           the latest run of every pipeline",
            "srpipe status pipelines/ablation.yaml   every stage of the pipeline",
            "srpipe status ablation --once --all     the current state, with every sweep instance",
        ],
    ),
    (
        "plan",
        &[
            "srpipe plan pipelines/ablation.yaml                     what `run` would do, and for how long",
            "srpipe plan pipelines/sweep.yaml --sweep seed=0,1,2 --all",
            "srpipe plan pipelines/ablation.yaml --force attention   what reruns if a stage is forced",
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
            "srpipe diff 20261124-091502 20261124-103010   two runs by a prefix of their ids",
            "srpipe diff quickstart ablation               the latest runs of two pipelines",
        ],
    ),
    ("graph", &["srpipe graph pipelines/ablation.yaml", "srpipe graph pipelines/sweep.yaml --format mermaid"]),
    ("check", &["srpipe check pipelines/ablation.yaml", "srpipe check pipelines/sweep.yaml --set seed=1 --json"]),
    ("logs", &["srpipe logs attention", "srpipe logs attention -f    follow the log while the stage runs"]),
    ("cancel", &["srpipe cancel ablation   the latest run of a pipeline"]),
    ("gc", &["srpipe gc --dry-run   what would be removed", "srpipe gc"]),
    ("verify", &["srpipe verify"]),
    ("export", &["srpipe export ablation ablation.tar.gz   the latest run of a pipeline"]),
    ("import", &["srpipe import ablation.tar.gz"]),
    ("push", &["srpipe push ablation   the latest run of a pipeline"]),
    ("pin", &["srpipe pin ablation   the latest run of a pipeline"]),
    ("unpin", &["srpipe unpin ablation"]),
    (
        "completions",
        &[
            "srpipe completions bash   save as ~/.local/share/bash-completion/completions/srpipe",
            "srpipe completions zsh    save as _srpipe in a folder of $fpath",
            "srpipe completions fish   save as ~/.config/fish/completions/srpipe.fish",
        ],
    ),
];

/// Returns the command-line parser with its complete help.
pub fn command() -> Command {
    let command = Cli::command();
    let template = template(&command);
    command.help_template(template).mut_subcommands(|command| {
        let examples = EXAMPLES.iter().find(|(name, _)| *name == command.get_name());
        let examples = examples.map(|(_, lines)| format!("Examples:\n  {}", lines.join("\n  ")));
        let own = command.get_after_help().map(StyledStr::to_string);
        let has_codes = own.as_ref().is_some_and(|text| text.contains("Exit codes:"));
        let codes = (!has_codes).then(|| EXIT_CODES.to_string());
        let parts: Vec<String> = examples.into_iter().chain(own).chain(codes).collect();
        command.after_help(parts.join("\n\n"))
    })
}

/// Returns the template of `srpipe --help`, which lists the commands in groups.
fn template(command: &Command) -> String {
    let styles = Styles::styled();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let names = GROUPS.iter().flat_map(|(_, names)| *names);
    let width = names.map(|name| name.len()).max().unwrap_or(0);
    let mut text = "{before-help}{about-with-newline}\n{usage-heading} {usage}\n\n".to_string();
    for (title, names) in GROUPS {
        let _ = writeln!(text, "{header}{title}:{header:#}");
        for name in names {
            // clap adds the command `help` only when it parses the arguments.
            let about = match command.find_subcommand(name).and_then(Command::get_about) {
                Some(about) => about.to_string(),
                None => "Print this message or the help of a command".to_string(),
            };
            let _ = writeln!(text, "  {literal}{name}{literal:#}{:1$}{about}", "", width + 2 - name.len());
        }
        text.push('\n');
    }
    let _ = write!(text, "{header}Options:{header:#}\n{{options}}{{after-help}}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_documents_valid_examples_and_exit_codes() {
        for sub in command().get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let help = sub.get_after_help().map(StyledStr::to_string).unwrap_or_default();
            assert!(help.contains("Exit codes:"), "{}: {help}", sub.get_name());
            let examples = help.lines().filter(|line| line.starts_with("  srpipe "));
            let examples: Vec<Vec<&str>> = examples.map(command_words).collect();
            assert!(!examples.is_empty() || sub.get_name() == "schema", "{}: {help}", sub.get_name());
            for example in examples {
                let parsed = command().try_get_matches_from(&example);
                assert!(parsed.is_ok(), "{example:?}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn every_command_is_in_one_group_of_the_help() {
        let mut command = command();
        command.build();
        let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let mut visible: Vec<&str> = visible.map(Command::get_name).collect();
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        visible.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, visible);
    }

    /// Returns the words of an example's command, without the explanation that follows two or more spaces.
    fn command_words(line: &str) -> Vec<&str> {
        let line = line.trim();
        let words = line.split_once("  ").map_or(line, |(command, _)| command).split(' ');
        words.map(|word| word.trim_matches('\'')).collect()
    }
}
