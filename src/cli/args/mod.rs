//! The command-line arguments and their help.

mod bench;
mod help;
mod inspect;
mod report;
mod run;
mod store;
mod user;
mod values;

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

pub use bench::{BenchArgs, BenchBackend};
pub use help::command;
pub use inspect::{CheckArgs, DiffArgs, GraphArgs, GraphFormat, LogsArgs, RunsArgs, StatusArgs};
pub use report::ReportArgs;
pub use run::{ChoiceArgs, FlagArgs, PlanArgs, RunArgs, WhyArgs};
pub use store::{ExportArgs, GcArgs, ImportArgs, PushArgs, RunIdArgs, VerifyArgs};
pub use user::{InitArgs, Template, UpscaleArgs};

/// Run super-resolution experiments from YAML. Cached results are not recomputed; interrupted runs resume.
#[derive(Debug, Parser)]
#[command(name = "srpipe", version, after_help = run::EXAMPLES, propagate_version = true)]
pub(super) struct Cli {
    /// The folder for runs and cached results.
    #[arg(long, global = true, env = "SRPIPE_RUNS", default_value = "runs", value_name = "FOLDER")]
    pub(super) runs_dir: PathBuf,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a pipeline file to start from.
    Init(InitArgs),
    /// Run the stages of a pipeline that are not cached.
    ///
    /// Ctrl-C asks running stages to save a checkpoint; the next run resumes from it. A killed run resumes from the
    /// last checkpoint that it saved.
    Run(RunArgs),
    /// Show the state of runs and stages.
    Status(StatusArgs),
    /// Show what would run, in which order, why, and for how long.
    Plan(PlanArgs),
    /// Explain why a stage would run or is cached.
    Why(WhyArgs),
    /// Compare the parameters and metrics of two runs.
    ///
    /// A run is given by its id, a unique prefix of its id, or its pipeline's name, which means the latest run.
    Diff(DiffArgs),
    /// List runs with the parameters and metrics that differ.
    ///
    /// Parameters are named by their path in the file, metrics by stage and name. A unique suffix of the name is
    /// enough.
    Runs(RunsArgs),
    /// Show the dependency graph of the stages with their states.
    Graph(GraphArgs),
    /// Validate pipeline files and report every error.
    Check(CheckArgs),
    /// Show the log of a stage of the latest run.
    Logs(LogsArgs),
    /// Cancel a run; its stages save a checkpoint to resume from.
    Cancel(RunIdArgs),
    /// Write the report of a run as one HTML file.
    ///
    /// The file is self-contained. `run` writes it to the run's folder; this command rewrites it, also for a run that
    /// has not finished.
    Report(ReportArgs),
    /// Upscale an image with a trained model.
    ///
    /// The image is sampled as a whole, in overlapping tiles of the model's training size. The tiles are blended at
    /// every step, so there are no seams. The same seed gives the same image.
    Upscale(UpscaleArgs),
    /// Measure how fast a network trains and samples on this machine.
    ///
    /// Trains the U-Net on noise for a few seconds, then runs forward passes. Training and sampling in pipelines reach
    /// the same speed. Measure on an idle machine.
    Bench(BenchArgs),
    /// Delete old runs, and results that no run refers to.
    ///
    /// Keeps active and pinned runs, the latest run of each pipeline, and all results that an active run uses.
    Gc(GcArgs),
    /// Check every result for damage; the next run recomputes damaged ones.
    ///
    /// A run checks only the size and modification time of each blob, and the content of the blobs that its stages
    /// read. Only this command finds silent disk corruption in the other blobs.
    Verify(VerifyArgs),
    /// Write a run and all its results to an archive.
    Export(ExportArgs),
    /// Add a run from an archive.
    Import(ImportArgs),
    /// Copy the results of a run to the shared cache.
    ///
    /// The shared cache is a folder or `s3://BUCKET/PREFIX`. It is set by SRPIPE_REMOTE or by `remote` in
    /// $XDG_CONFIG_HOME/srpipe/config.yaml (default: ~/.config/srpipe/config.yaml). `run` downloads cached results from
    /// it.
    Push(PushArgs),
    /// Protect a run from `gc`.
    Pin(RunIdArgs),
    /// Let `gc` delete a pinned run again.
    Unpin(RunIdArgs),
    /// Print the JSON Schema of pipeline files.
    Schema {
        /// Print the reference of pipeline files as Markdown instead.
        #[arg(long)]
        markdown: bool,
    },
    /// Print the completion script for a shell.
    Completions { shell: clap_complete::Shell },
    /// Run the stage that stdin specifies.
    #[command(hide = true)]
    Exec {
        /// In a Slurm job: the file of its batch.
        #[arg(long)]
        job: Option<PathBuf>,
    },
    /// Run a stage's program and terminate every process it started.
    #[command(hide = true)]
    Launch {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        argv: Vec<std::ffi::OsString>,
    },
    /// Replace this process with a stage's program.
    #[command(hide = true)]
    Start {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        argv: Vec<std::ffi::OsString>,
    },
}

/// Adds a hint to the error about a missing pipeline file.
pub(super) fn with_file_hint(mut error: clap::Error) -> clap::Error {
    let lacks_file = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) => {
            missing.iter().any(|name| name.starts_with("<FILE"))
        }
        _ => false,
    };
    if lacks_file {
        let hint = "pass a pipeline file; `srpipe init` writes one to start from".into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint]));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    /// Exceptions are commands that print only text, and commands that print the paths of the files they wrote.
    #[test]
    fn every_command_documents_its_json() {
        use clap::CommandFactory;
        let mut cli = Cli::command();
        cli.build();
        let visible = cli.get_subcommands_mut().filter(|command| !command.is_hide_set());
        let others = ["schema", "completions", "help", "init", "report", "upscale"];
        for command in visible.filter(|command| !others.contains(&command.get_name())) {
            let name = command.get_name().to_string();
            assert!(command.get_arguments().any(|arg| arg.get_id() == "json"), "{name}");
            let help = command.render_long_help().to_string();
            assert!(help.contains("With --json") && help.contains("\"schema\": 1"), "{name}: {help}");
        }
    }
}
