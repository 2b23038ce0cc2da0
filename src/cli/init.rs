//! The command `srpipe init`, which writes the pipeline templates embedded in the binary.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::args::{InitArgs, Template};
use super::output::{note, print, print_json};
use super::{EXIT_DONE, output_file};
use crate::config::InputError;
use crate::format;
use crate::pipeline;

/// The JSON Schema that editors use to validate pipeline files.
const SCHEMA: &str = "srpipe.schema.json";

pub(super) fn init(args: &InitArgs) -> Result<u8> {
    let (name, text) = template(args.template);
    let file = args.folder.join(format!("{name}.yaml"));
    if file.exists() && !args.force {
        return Err(InputError(format!(
            "{} already exists: overwrite it with --force, or choose another folder with `srpipe init FOLDER`",
            file.display()
        ))
        .into());
    }
    let folder = args.folder.display();
    std::fs::create_dir_all(&args.folder).with_context(|| format!("creating the folder {folder}"))?;
    let (schema, content) = (args.folder.join(SCHEMA), format!("{:#}\n", pipeline::file_schema()));
    let is_other = std::fs::read(&schema).is_ok_and(|existing| existing != content.as_bytes());
    let mut files = vec![(file.clone(), text)];
    match is_other && !args.force {
        true => note(&format!(
            "{} already exists and differs from the schema of this version; overwrite it with --force",
            schema.display()
        )),
        false => files.insert(0, (schema, content)),
    }
    for (path, content) in &files {
        output_file::write(path, content.as_bytes())?;
    }
    let paths = || files.iter().map(|(path, _)| path);
    if args.json {
        let paths: Vec<_> = paths().map(|path| format::path(path)).collect();
        print_json(&json!({"schema": 1, "files": paths}));
    } else {
        print(&paths().map(|path| format!("{}\n", path.display())).collect::<String>());
        note(&next_steps(args, &file));
    }
    Ok(EXIT_DONE)
}

/// Returns the name of a template and its text, with paths relative to its own folder.
fn template(template: Template) -> (&'static str, String) {
    let (name, text) = match template {
        Template::Quickstart => ("quickstart", include_str!("../../pipelines/quickstart.yaml")),
        Template::Ablation => ("ablation", include_str!("../../pipelines/ablation.yaml")),
        Template::Sweep => ("sweep", include_str!("../../pipelines/sweep.yaml")),
        Template::Folder => ("folder", include_str!("../../pipelines/folder.yaml")),
        Template::Tutorial => ("tutorial", include_str!("../../pipelines/tutorial.yaml")),
    };
    (name, text.replace("pipelines/", ""))
}

/// Returns the commands to run next.
fn next_steps(args: &InitArgs, file: &Path) -> String {
    let mut steps = vec![];
    if args.folder != Path::new(".") {
        // `cd` would parse a name that begins with `-` as an option.
        let is_option = args.folder.as_os_str().as_encoded_bytes().starts_with(b"-");
        let folder = if is_option { Path::new(".").join(&args.folder) } else { args.folder.clone() };
        steps.push(format!("  cd {}", format::shell_word(folder)));
    }
    let file = file.file_name().unwrap_or_default().to_string_lossy();
    if args.template == Template::Folder {
        steps.push("  mkdir photos                 put your PNG, JPEG or WebP files there".into());
    }
    steps.push(format!("  srpipe plan {file:17}show what would run"));
    steps.push(format!("  srpipe run {file:18}run it; rerun after any change"));
    format!("\nNext:\n{}", steps.join("\n"))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::pipeline::Flags;

    #[test]
    fn every_template_is_a_pipeline_and_names_its_schema() {
        for variant in Template::value_variants() {
            let (name, text) = template(*variant);
            assert!(text.starts_with("# yaml-language-server: $schema=srpipe.schema.json\n# "), "{name}");
            assert!(!text.contains("pipelines/"), "{name} refers to a folder that does not exist");
            let pipeline = pipeline::parse("x.yaml", &text, &Flags::default()).unwrap();
            assert_eq!(pipeline.name, name);
        }
    }
}
