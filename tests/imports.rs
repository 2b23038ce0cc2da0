//! Imports run one way: a module names modules of its own layer and of those below it.

use std::fs;
use std::path::{Path, PathBuf};

/// From the highest to the lowest. Modules of one layer do not name each other.
const LAYERS: [&[&str]; 16] = [
    &["cli"],
    &["run"],
    &["report"],
    &["stages"],
    &["comparison", "infer"],
    &["train"],
    &["diffusion", "metrics", "stats"],
    &["model", "data"],
    &["nn"],
    &["runs"],
    &["plan"],
    &["store"],
    &["pipeline"],
    &["io"],
    &["config"],
    &["random", "format"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules that follow `crate::` in a text, those in braces too: `crate::{data, store::Store}`.
fn named(text: &str) -> Vec<&str> {
    let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut found = vec![];
    for (at, _) in text.match_indices("crate::") {
        // Not the end of another name.
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(&rest[..word(rest)]),
            Some(rest) => {
                let mut depth = 0;
                let mut fresh = true;
                for (i, c) in rest.char_indices() {
                    match c {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => fresh = true,
                        c if fresh && depth == 0 && c.is_alphabetic() => {
                            found.push(&rest[i..i + word(&rest[i..])]);
                            fresh = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

fn upward(module: &str, text: &str) -> Vec<String> {
    let own = layer(module).unwrap_or_else(|| panic!("{module} has no place among the layers"));
    let wrong = |name: &&str| {
        *name != module && layer(name).is_none_or(|other| other <= own) && name.chars().all(|c| !c.is_uppercase())
    };
    let wrong: Vec<&str> = named(text).into_iter().filter(wrong).collect();
    wrong.iter().map(|name| format!("{module} names {name}")).collect()
}

#[test]
fn imports_run_downwards() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    sources(&src, &mut files);
    assert!(files.len() > 20, "{files:?}");
    let mut wrong = vec![];
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if !["lib", "main"].contains(&module) {
            let text = fs::read_to_string(&file).unwrap();
            wrong.extend(upward(module, &text).iter().map(|wrong| format!("{}: {wrong}", inside.display())));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_upward_import_is_found() {
    assert_eq!(upward("store", "use crate::pipeline::X;\nuse crate::plan::Y;"), ["store names plan"]);
    assert_eq!(upward("data", "use crate::{random, stages::{self, X}, store::Store};"), ["data names stages"]);
    assert_eq!(upward("model", "fn f(x: &crate::data::Images) {}"), ["model names data"]);
    assert!(upward("cli", "use crate::run::X; use crate::cli::Y; crate::random::z()").is_empty());
}
