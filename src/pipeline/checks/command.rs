//! Checks the names, paths and placeholders of a `command` stage.

use std::collections::HashSet;

use super::super::diagnostics::{Diagnostic, Errors, Span};
use super::super::text::{did_you_mean, is_invisible, quote};
use super::Stage;
use crate::config::CommandParams;
use crate::config::command::{Placeholder, near_misses, substitute};
use crate::config::names::name_error;

pub(super) fn check(stage: Stage, params: &CommandParams, errors: &mut Errors) {
    for name in params.inputs.keys() {
        if let Some(help) = name_error(name) {
            let key = stage.spans(&format!("inputs.{name}")).0;
            let message = format!("{} is not a valid input name", quote(name));
            errors.push(Diagnostic::new(key, message).help(help));
        }
    }
    let mut outputs: HashSet<&str> = HashSet::new();
    for (i, name) in params.outputs.iter().enumerate() {
        let span = stage.item_span("outputs", i);
        if let Some(help) = name_error(name) {
            let message = format!("{} is not a valid output name", quote(name));
            errors.push(Diagnostic::new(span, message).help(help));
        } else if !outputs.insert(name) {
            errors.push(Diagnostic::new(span, format!("the output {} is declared twice", quote(name))));
        }
    }
    let mut files: HashSet<&str> = HashSet::new();
    for (i, path) in params.files.iter().enumerate() {
        let span = stage.item_span("files", i);
        if let Some(help) = path_error(path) {
            errors.push(Diagnostic::new(span, format!("{} is not a valid path in `files`", quote(path))).help(help));
        } else if !files.insert(path) {
            errors.push(Diagnostic::new(span, format!("the file {} is declared twice", quote(path))));
        }
    }
    for (name, text) in &params.env {
        let (key, span) = stage.spans(&format!("env.{name}"));
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(allowed) || name.starts_with(|c: char| c.is_ascii_digit()) {
            errors.push(
                Diagnostic::new(key, format!("{} is not a valid variable name", quote(name)))
                    .help("use letters, digits and `_`, not starting with a digit"),
            );
        }
        check_text(params, &outputs, text, span, errors);
    }
    for (i, text) in params.command.iter().enumerate() {
        check_text(params, &outputs, text, stage.item_span("command", i), errors);
    }
    if params.command.first().is_some_and(String::is_empty) {
        errors.push(Diagnostic::new(stage.span("command"), "the name of the program is empty"));
    }
    if let Some(name) = params.metrics.as_ref().filter(|name| !params.outputs.contains(name)) {
        let message = format!("`metrics` refers to {}, which is not one of the `outputs`", quote(name));
        let help = did_you_mean(name, params.outputs.iter().map(String::as_str));
        errors.push(Diagnostic::new(stage.span("metrics"), message).maybe_help(help));
    }
}

/// Returns the reason why a path is invalid in `files`; None if it is valid.
fn path_error(path: &str) -> Option<&'static str> {
    const RESERVED: [&str; 2] = ["inputs", "outputs"];
    if path.is_empty() || path.chars().any(is_invisible) {
        Some("a path must not be empty or contain control characters")
    } else if path.starts_with('/') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        Some(
            "use a path relative to the working directory, without `.` and `..`; the program finds the file at the same path",
        )
    } else if path.split('/').next().is_some_and(|first| RESERVED.contains(&first)) {
        Some("`inputs` and `outputs` are reserved in the working directory of the program")
    } else {
        None
    }
}

/// Checks the placeholders in an argument or a variable.
fn check_text(params: &CommandParams, outputs: &HashSet<&str>, text: &str, span: Span, errors: &mut Errors) {
    if errors.is_full() {
        return;
    }
    if text.contains('\0') {
        errors.push(Diagnostic::new(span, "an argument cannot contain a NUL character"));
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
    // Scripts may contain other braces; single-word arguments hardly ever do.
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
