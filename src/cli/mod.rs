//! The command line: arguments, output and exit codes. The only layer that writes to the terminal.

mod args;
mod bench;
mod claims;
mod cluster;
mod diff;
mod explanations;
mod graph;
mod groups;
mod init;
mod json;
mod layout;
mod logs;
mod lookup;
mod output;
mod output_file;
mod plan;
mod power;
mod progress;
mod report;
mod results;
mod run;
mod run_values;
mod runs;
mod settings;
mod share;
mod stage_view;
mod status;
mod store;
mod suggest_study;
mod upscale;
mod why;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::FromArgMatches;
use serde_json::{Value, json};

use crate::config::InputError;
use crate::format;
use crate::pipeline::{self, Pipeline};
use crate::run::{EXIT_INTERRUPTED, exec};
use crate::stages::processes;
use crate::train::fix_steps;

use args::{CheckArgs, Cli, Command, FlagArgs};
use output::{Look, Paint, is_output_complete, note, print, print_json, sanitize};

/// The exit code of a command that succeeded.
const EXIT_DONE: u8 = 0;
/// The exit code if a stage failed, or if a system or store error occurred.
const EXIT_FAILED: u8 = 1;
/// The exit code if the pipeline file, the command line or an input file is invalid. Nothing was started.
const EXIT_INPUT: u8 = 2;
/// The exit code if a stage's program was not found.
const EXIT_NO_PROGRAM: u8 = 127;
/// The exit code if a stage's program was found but cannot be executed.
const EXIT_CANNOT_EXECUTE: u8 = 126;

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let matches = args::command().try_get_matches().map_err(args::with_file_hint);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(print_help_or_error(&error)),
    };
    let code = match &cli.command {
        Command::Init(args) => init::init(args),
        Command::Run(args) => run::run(args, &cli.runs_dir),
        Command::Status(args) => status::status(args, &cli.runs_dir),
        Command::Plan(args) => plan::plan(args, &cli.runs_dir),
        Command::Why(args) => why::why(args, &cli.runs_dir),
        Command::Diff(args) => diff::diff(args, &cli.runs_dir),
        Command::Runs(args) => runs::runs(args, &cli.runs_dir),
        Command::Graph(args) => graph::graph(args, &cli.runs_dir),
        Command::Check(args) => Ok(check(args)),
        Command::Logs(args) => logs::logs(args, &cli.runs_dir),
        Command::Cancel(args) => cluster::cancel(args, &cli.runs_dir),
        Command::Report(args) => report::report(args, &cli.runs_dir),
        Command::Upscale(args) => upscale::upscale(args, &cli.runs_dir),
        Command::Bench(args) => bench::bench(args),
        Command::Gc(args) => store::gc(args, &cli.runs_dir),
        Command::Verify(args) => store::verify(args, &cli.runs_dir),
        Command::Export(args) => share::export(args, &cli.runs_dir),
        Command::Import(args) => share::import(args, &cli.runs_dir),
        Command::Push(args) => share::push(args, &cli.runs_dir),
        Command::Pin(args) => store::pin(args, &cli.runs_dir, true),
        Command::Unpin(args) => store::pin(args, &cli.runs_dir, false),
        Command::Schema { markdown } => {
            match markdown {
                true => print(&pipeline::reference()),
                false => print_json(&pipeline::file_schema()),
            }
            Ok(EXIT_DONE)
        }
        Command::Completions { shell } => {
            let mut text = vec![];
            clap_complete::generate(*shell, &mut args::command(), "srpipe", &mut text);
            print(&String::from_utf8_lossy(&text));
            Ok(EXIT_DONE)
        }
        Command::Exec { job } => return ExitCode::from(exec(job.as_deref())),
        Command::Launch { argv } => match processes::supervise(argv) {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
        Command::Start { argv } => {
            let error = processes::start(argv);
            note(&sanitize(&format!("error: {error:#}")));
            return ExitCode::from(start_error_code(&error));
        }
    };
    let code = code.unwrap_or_else(|error| {
        let head = Paint::stderr().paint(Look::Bad, "error:");
        match error.downcast::<Reported>() {
            Ok(Reported(code)) => code,
            Err(error) => {
                note(&format!("{head} {}", sanitize(&format!("{error:#}"))));
                if error.is::<InputError>() { EXIT_INPUT } else { EXIT_FAILED }
            }
        }
    });
    ExitCode::from(if code == EXIT_DONE && !is_output_complete() { EXIT_FAILED } else { code })
}

/// Prints clap's output: help and version to stdout, argument errors to stderr. Returns the exit code.
fn print_help_or_error(error: &clap::Error) -> u8 {
    let written = error.print().and_then(|()| std::io::stdout().flush());
    if error.use_stderr() {
        return EXIT_INPUT;
    }
    output::report_write_error(written);
    if is_output_complete() { EXIT_DONE } else { EXIT_FAILED }
}

/// Returns the exit code of a program that cannot be started, following the shell convention.
fn start_error_code(error: &anyhow::Error) -> u8 {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    if kind == Some(std::io::ErrorKind::NotFound) { EXIT_NO_PROGRAM } else { EXIT_CANNOT_EXECUTE }
}

/// An error that was already printed, with its exit code.
#[derive(Debug)]
struct Reported(u8);

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Reported {}

/// Loads the pipeline of a file and prints its errors.
fn load(file: &Path, flags: &FlagArgs) -> Result<Pipeline, Reported> {
    let mut pipeline = pipeline::load(file, &flags.flags()).map_err(|errors| {
        note(&errors.render(Paint::stderr().has_colours()));
        Reported(EXIT_INPUT)
    })?;
    fix_steps(&mut pipeline);
    Ok(pipeline)
}

/// Validates pipeline files.
fn check(args: &CheckArgs) -> u8 {
    if args.json {
        return check_json(args);
    }
    let mut code = EXIT_DONE;
    for file in &args.files {
        match load(file, &args.flags) {
            Ok(pipeline) => {
                print(&format!("{}: ok: {}\n", file.display(), format::count(pipeline.stages.len(), "stage")));
            }
            Err(Reported(exit_code)) => code = exit_code,
        }
    }
    code
}

/// Validates pipeline files, and prints the errors as JSON.
fn check_json(args: &CheckArgs) -> u8 {
    let mut code = EXIT_DONE;
    let files = args.files.iter().map(|file| match pipeline::load(file, &args.flags.flags()) {
        Ok(pipeline) => json!({"file": format::path(file), "stages": pipeline.stages.len(), "errors": []}),
        Err(errors) => {
            code = EXIT_INPUT;
            let error = |error: &pipeline::Diagnostic| {
                let position = errors.position(error).map(|position| position.to_string());
                json!({"message": error.message, "place": position, "help": error.help})
            };
            let all: Vec<Value> = errors.errors().iter().map(error).collect();
            json!({"file": format::path(file), "stages": null, "errors": all})
        }
    });
    let files: Vec<Value> = files.collect();
    print_json(&json!({"schema": 1, "files": files}));
    code
}
