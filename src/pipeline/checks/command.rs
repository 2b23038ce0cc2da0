//! A `command`'s names, paths and placeholders.

use std::collections::HashSet;

use super::super::diagnostics::{Diagnostic, Errors, Span};
use super::super::words::{did_you_mean, is_invisible, quote};
use super::Stage;
use crate::config::CommandParams;
use crate::config::command::{Placeholder, near_misses, substitute};
use crate::config::names::name_error;

pub(super) fn check(stage: Stage, params: &CommandParams, errors: &mut Errors) {
    for name in params.inputs.keys() {
        if let Some(help) = name_error(name) {
            let key = stage.entry(&format!("inputs.{name}")).0;
            let message = format!("{} cannot be the name of an input", quote(name));
            errors.push(Diagnostic::new(key, message).help(help));
        }
    }
    let mut outputs: HashSet<&str> = HashSet::new();
    for (i, name) in params.outputs.iter().enumerate() {
        let span = stage.item("outputs", i);
        if let Some(help) = name_error(name) {
            let message = format!("{} cannot be the name of an output", quote(name));
            errors.push(Diagnostic::new(span, message).help(help));
        } else if !outputs.insert(name) {
            errors.push(Diagnostic::new(span, format!("the output {} is declared twice", quote(name))));
        }
    }
    let mut files: HashSet<&str> = HashSet::new();
    for (i, path) in params.files.iter().enumerate() {
        let span = stage.item("files", i);
        if let Some(help) = path_error(path) {
            errors.push(Diagnostic::new(span, format!("{} cannot be one of `files`", quote(path))).help(help));
        } else if !files.insert(path) {
            errors.push(Diagnostic::new(span, format!("the file {} is declared twice", quote(path))));
        }
    }
    for (name, text) in &params.env {
        let (key, span) = stage.entry(&format!("env.{name}"));
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(allowed) || name.starts_with(|c: char| c.is_ascii_digit()) {
            errors.push(
                Diagnostic::new(key, format!("{} cannot be the name of a variable", quote(name)))
                    .help("letters, digits and `_`, no digit first"),
            );
        }
        check_text(params, &outputs, text, span, errors);
    }
    for (i, text) in params.command.iter().enumerate() {
        check_text(params, &outputs, text, stage.item("command", i), errors);
    }
    if params.command.first().is_some_and(String::is_empty) {
        errors.push(Diagnostic::new(stage.place("command"), "the program has no name"));
    }
    if let Some(name) = params.metrics.as_ref().filter(|name| !params.outputs.contains(name)) {
        let message = format!("`metrics` names {}, which is none of the `outputs`", quote(name));
        let help = did_you_mean(name, params.outputs.iter().map(String::as_str));
        errors.push(Diagnostic::new(stage.place("metrics"), message).maybe_help(help));
    }
}

/// What is wrong with the path of a file that is to lie in the program's folder.
fn path_error(path: &str) -> Option<&'static str> {
    const KEPT: [&str; 2] = ["inputs", "outputs"];
    if path.is_empty() || path.chars().any(is_invisible) {
        Some("a path of visible characters is needed")
    } else if path.starts_with('/') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        Some("a path relative to the working directory, without `.` and `..`: the program finds the file under it")
    } else if path.split('/').next().is_some_and(|first| KEPT.contains(&first)) {
        Some("in the program's folder, `inputs` and `outputs` have another meaning")
    } else {
        None
    }
}

fn check_text(params: &CommandParams, outputs: &HashSet<&str>, text: &str, span: Span, errors: &mut Errors) {
    if errors.is_full() {
        return;
    }
    if text.contains('\0') {
        errors.push(Diagnostic::new(span, "an argument cannot hold a NUL character"));
    }
    let is_declared = |kind: &str, name: &str| match kind {
        "inputs" => params.inputs.contains_key(name),
        _ => outputs.contains(name),
    };
    let mut check = |kind: &str, name: &str| {
        if !is_declared(kind, name) && !errors.is_full() {
            let message = format!("{} is not declared", quote(&format!("{{{kind}.{name}}}")));
            let meant = match kind {
                "inputs" => did_you_mean(name, params.inputs.keys().map(String::as_str)),
                _ => did_you_mean(name, params.outputs.iter().map(String::as_str)),
            };
            errors.push(
                Diagnostic::new(span, message).help(meant.unwrap_or_else(|| format!("declare it under `{kind}`"))),
            );
        }
        Ok::<_, std::convert::Infallible>(String::new())
    };
    let Ok(_) = substitute(text, |placeholder| match placeholder {
        Placeholder::Input(name) => check("inputs", name),
        Placeholder::Output(name) => check("outputs", name),
        Placeholder::Seed | Placeholder::Threads => Ok(String::new()),
    });
    // Scripts may contain braces of their own; single-word arguments hardly ever do.
    let is_word = !text.contains(char::is_whitespace);
    for miss in near_misses(text) {
        let is_meant = match miss.name {
            Some((_, "")) => miss.written == text,
            Some((kind, name)) => is_word || is_declared(kind, name),
            None => is_word,
        };
        if is_meant && !errors.is_full() {
            let message = format!("{} is not a placeholder", quote(miss.written));
            let help = format!(
                "did you mean {}? To pass literal braces to the program, put the text into one of `files`",
                quote(&miss.meant)
            );
            errors.push(Diagnostic::new(span, message).help(help));
        }
    }
}
