//! The command line: arguments, exit codes, and what people read. The only layer that prints.

mod args;
mod bench;
mod claims;
mod diff;
mod explanations;
mod facts;
mod graph;
mod groups;
mod json;
mod logs;
mod output;
mod plan;
mod progress;
mod results;
mod run;
mod runs;
mod status;
mod why;
mod words;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::pipeline::{self, Pipeline};
use crate::run::{EXIT_INTERRUPTED, InputError, exec};
use crate::train::fix_steps;

use args::{Cli, Command, FlagArgs};
use output::{Look, Paint, note, print};

/// Everything that was asked for is done.
pub const EXIT_DONE: u8 = 0;
/// A stage failed; or the machine or the store did.
pub const EXIT_FAILED: u8 = 1;
/// The pipeline file, the command line or a file it names is wrong; nothing was started.
pub const EXIT_INPUT: u8 = 2;

/// The whole program.
pub fn main() -> ExitCode {
    // clap exits with 2 of itself where arguments are wrong.
    let cli = Cli::parse();
    let code = match &cli.command {
        Command::Run(args) => run::run(args, &cli.runs_dir),
        Command::Status(args) => status::status(args, &cli.runs_dir),
        Command::Plan(args) => plan::plan(args, &cli.runs_dir),
        Command::Why(args) => why::why(args, &cli.runs_dir),
        Command::Diff(args) => diff::diff(args, &cli.runs_dir),
        Command::Runs(args) => runs::runs(args, &cli.runs_dir),
        Command::Graph(args) => graph::graph(args, &cli.runs_dir),
        Command::Check(args) => Ok(check(&args.files, &args.flags)),
        Command::Logs(args) => logs::logs(args, &cli.runs_dir),
        Command::Bench(args) => bench::bench(args),
        Command::Exec => return ExitCode::from(exec()),
    };
    ExitCode::from(code.unwrap_or_else(|error| {
        let head = Paint::stderr().paint(Look::Bad, "error:");
        match error.downcast::<Reported>() {
            Ok(Reported(code)) => code,
            Err(error) => {
                note(&format!("{head} {error:#}"));
                if error.is::<InputError>() { EXIT_INPUT } else { EXIT_FAILED }
            }
        }
    }))
}

/// An error that the user has read by now, with its exit code.
#[derive(Debug)]
struct Reported(u8);

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Reported {}

/// The pipeline of a file; what is wrong with it is shown.
fn load(file: &Path, flags: &FlagArgs) -> Result<Pipeline, Reported> {
    let mut pipeline = pipeline::load(file, &flags.flags()).map_err(|errors| {
        note(&errors.render(Paint::stderr().has_colours()));
        Reported(EXIT_INPUT)
    })?;
    fix_steps(&mut pipeline);
    Ok(pipeline)
}

fn check(files: &[std::path::PathBuf], flags: &FlagArgs) -> u8 {
    let mut code = EXIT_DONE;
    for file in files {
        match load(file, flags) {
            Ok(pipeline) => {
                print(&format!("{}: ok: {}\n", file.display(), words::count(pipeline.stages.len(), "stage")));
            }
            Err(Reported(wrong)) => code = wrong,
        }
    }
    code
}
