//! The commands, pipeline files, links and paths in `README.md`, `CONTRIBUTING.md` and `docs/` are correct.
//!
//! - Each page gets a folder with the repository's pipelines, reduced to a few training steps, and with the results of
//!   the quickstart. The `srpipe` commands in its ```` ```sh ```` blocks run there in order and must exit with 0.
//!   Commands that need a GPU, a cluster or minutes are only parsed.
//! - A ```` ```yaml ```` block is a pipeline file, which commands of the page may use as `NAME.yaml`, a settings file,
//!   or a part of a pipeline: stages, or parameters of a stage.
//! - Links point to existing pages and headings; scripts, tests and files under `runs/` that a page mentions exist.

mod common;

use std::path::Path;
use std::process::Stdio;

use common::{Folder, Pipeline, Running, archive};
use image::RgbImage;
use serde_yaml::{Mapping, Value};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

macro_rules! pages {
    ($($name:ident: $file:literal,)*) => {
        /// Every page that is tested.
        const PAGES: &[&str] = &[$($file),*];
        $(#[test]
        fn $name() {
            check($file);
        })*
    };
}

pages! {
    readme: "README.md",
    contributing: "CONTRIBUTING.md",
    claims: "docs/claims.md",
    statistics: "docs/statistics.md",
    command_stages: "docs/command-stages.md",
    faq: "docs/faq.md",
    gpu: "docs/gpu.md",
    performance: "docs/performance.md",
    pipelines: "docs/pipelines.md",
    python: "docs/python.md",
    reference: "docs/reference.md",
    reproducibility: "docs/reproducibility.md",
    sharing: "docs/sharing.md",
    slurm: "docs/slurm.md",
    store: "docs/store.md",
    sweeps: "docs/sweeps.md",
    tutorial: "docs/tutorial.md",
}

#[test]
fn every_page_is_tested_and_linked_from_the_readme() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 150, "README.md has {} lines", readme.lines().count());
    for entry in std::fs::read_dir(Path::new(ROOT).join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            let page = format!("docs/{name}");
            assert!(PAGES.contains(&page.as_str()), "{page} is missing in this test");
            assert!(readme.contains(&format!("({page})")), "README.md has no link to {page}");
        }
    }
}

fn read(page: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// A fenced code block.
struct Block<'a> {
    language: &'a str,
    text: &'a str,
}

/// Returns the fenced code blocks of a page.
fn blocks(page: &str) -> Vec<Block<'_>> {
    // A fence is at the start of a line.
    let fenced = page.split("\n```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n').map(|(language, text)| Block { language, text })).collect()
}

/// Returns the commands in the shell blocks, one line each, without comments.
fn commands(page: &str) -> Vec<String> {
    let blocks = blocks(page);
    let text: Vec<&str> = blocks.iter().filter(|block| block.language == "sh").map(|block| block.text).collect();
    let text = text.join("\n").replace("\\\n", " ");
    let lines = text.lines().map(|line| line.split("  #").next().unwrap().trim().to_string());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// Checks one page.
fn check(page: &str) {
    let text = read(page);
    check_links(page, &text);
    check_files(page, &text);
    let commands: Vec<String> = commands(&text).iter().filter_map(|line| srpipe_command(line)).collect();
    let parts: Vec<&str> =
        blocks(&text).iter().filter(|block| block.language == "yaml").map(|block| block.text).collect();
    if commands.is_empty() && parts.is_empty() {
        return;
    }

    let folder = prepared_folder();
    for block in blocks(&text).iter().filter(|block| block.language == "python") {
        folder.write("score.py", block.text);
    }
    for part in parts {
        check_yaml(&folder, page, part);
    }
    for command in commands {
        reduce_pipelines(&folder);
        run(&folder, page, &command);
    }
    for path in paths(&text, "runs/quickstart/") {
        assert!(folder.path().join(&path).exists(), "{page}: the quickstart does not write {path}");
    }
}

/// Creates a folder with small pipelines and images, and runs the quickstart in it.
fn prepared_folder() -> Folder {
    let folder = Pipeline::new().folder();
    let pipelines = folder.path().join("pipelines");
    std::fs::create_dir_all(folder.path().join("photos")).unwrap();
    std::fs::create_dir(&pipelines).unwrap();
    std::fs::create_dir(folder.path().join("docs")).unwrap();
    for entry in std::fs::read_dir(Path::new(ROOT).join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, pipelines.join(path.file_name().unwrap())).unwrap();
    }
    for i in 0..20_u8 {
        let photo = RgbImage::from_fn(40, 36, |x, y| image::Rgb([x as u8 * 6, y as u8 * 7, i * 12]));
        photo.save(folder.path().join(format!("photos/{i}.png"))).unwrap();
    }
    RgbImage::new(11, 7).save(folder.path().join("photo.png")).unwrap();
    folder.write("cifar-10-binary.tar.gz", archive(8));
    reduce_pipelines(&folder);
    run(&folder, "the preparation", "srpipe run pipelines/quickstart.yaml");
    folder
}

/// Returns the command if it runs srpipe, in the form for an installed binary.
fn srpipe_command(line: &str) -> Option<String> {
    let line = line.replace("cargo run --release -- ", "srpipe ");
    let mut words = line.split_whitespace().skip_while(|word| word.contains('=') && !word.starts_with('-'));
    (words.next() == Some("srpipe")).then_some(line)
}

fn run(folder: &Folder, page: &str, command: &str) {
    // `tests/slurm.rs` runs the commands of the Slurm page, so only parse them here.
    let is_parsed_only = page == "docs/slurm.md" || ["cuda", "--check"].iter().any(|word| command.contains(word));
    let mut line = if is_parsed_only { format!("{command} --help") } else { command.to_string() };
    // Reduce numbers that are meant for a real run.
    let words = line.split(' ').map(|word| match word.split_once('=') {
        Some((path, number)) if path.starts_with("defaults.") && !number.contains(',') => {
            let key = path.rsplit('.').next().unwrap();
            number.parse().map_or(word.to_string(), |number: u64| format!("{path}={}", reduced(key, number)))
        }
        _ => word.to_string(),
    });
    line = words.collect::<Vec<_>>().join(" ");
    if line.contains("srpipe bench") {
        line += " --seconds 0";
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_srpipe"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &line]).current_dir(folder.path()).env("PATH", path);
    shell.env("HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path()).env("BROWSER", "true");
    shell.env_remove("SRPIPE_RUNS").env_remove("SRPIPE_REMOTE");
    let child = shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = Running { child }.wait();
    assert_eq!(output.code, Some(0), "{page}: {line}\n{output}");
}

/// Returns a smaller value of a parameter, for a quick run.
fn reduced(key: &str, number: u64) -> u64 {
    match key {
        "steps" | "epochs" | "samples" | "limit" => number.min(2),
        "train" => number.min(16),
        "validation" | "test" | "images" | "batch_size" => number.min(4),
        "base_channels" => number.min(8),
        _ => number,
    }
}

/// Reduces the parameters of a pipeline for a quick run.
fn reduce(value: &mut Value) {
    match value {
        Value::Mapping(members) => {
            if members.get("dataset").is_some_and(|dataset| dataset == "cifar10") {
                members.insert("url".into(), "file:cifar-10-binary.tar.gz".into());
            }
            for (key, value) in members.iter_mut() {
                let key = key.as_str().unwrap_or_default();
                match value {
                    Value::Number(number) if number.is_u64() => {
                        *value = reduced(key, number.as_u64().unwrap()).into();
                    }
                    Value::Sequence(seeds) if key == "seed" => seeds.truncate(2),
                    value => reduce(value),
                }
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(reduce),
        _ => {}
    }
}

fn reduce_pipelines(folder: &Folder) {
    for subfolder in ["", "pipelines", "study"] {
        let Ok(entries) = std::fs::read_dir(folder.path().join(subfolder)) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension() == Some("yaml".as_ref()))
        {
            let mut value: Value = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            reduce(&mut value);
            std::fs::write(&path, serde_yaml::to_string(&value).unwrap()).unwrap();
        }
    }
}

/// Checks a pipeline, a settings file, or a part of a pipeline, which is inserted into the quickstart where its keys
/// belong.
fn check_yaml(folder: &Folder, page: &str, text: &str) {
    let part: Mapping = serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{page}: {error}\n{text}"));
    if part.contains_key("stages") {
        let name = format!("{}.yaml", part["name"].as_str().unwrap());
        folder.write(&name, text);
        return run(folder, page, &format!("srpipe check {name}"));
    }
    if part.contains_key("remote") || part.contains_key("slurm") {
        std::fs::create_dir_all(folder.path().join("srpipe")).unwrap();
        folder.write("srpipe/config.yaml", text);
        run(folder, page, "srpipe plan pipelines/quickstart.yaml");
        return std::fs::remove_file(folder.path().join("srpipe/config.yaml")).unwrap();
    }

    let quickstart = std::fs::read_to_string(folder.path().join("pipelines/quickstart.yaml")).unwrap();
    let mut pipeline: Value = serde_yaml::from_str(&quickstart).unwrap();
    let stages = pipeline["stages"].as_mapping_mut().unwrap();
    // Add the stages that the examples refer to.
    let added =
        [("control", "{kind: train}"), ("unet", "{kind: train}"), ("sample_control", "{kind: sample, model: control}")];
    for (name, stage) in added {
        stages.insert(name.into(), serde_yaml::from_str(stage).unwrap());
    }
    stages["compare"]["arms"]["control"] = "sample_control".into();
    for (key, value) in part {
        let stage = match key.as_str().unwrap() {
            _ if value.get("kind").is_some() => {
                stages.insert(key, value);
                continue;
            }
            "claims" | "arms" | "seeds" => "compare",
            "sampler" => "sample_attention",
            _ => "attention",
        };
        if key == "optim" {
            // Remove the quickstart's number of steps, because the example sets its own number or a budget.
            pipeline["defaults"]["train"].as_mapping_mut().unwrap().remove("optim");
            pipeline["stages"]["regression"].as_mapping_mut().unwrap().remove("optim");
            pipeline["defaults"]["train"]["optim"] = value;
            break;
        }
        stages[stage].as_mapping_mut().unwrap().insert(key, value);
    }
    folder.write("part.yaml", serde_yaml::to_string(&pipeline).unwrap());
    folder.write("score.py", "");
    run(folder, page, "srpipe check part.yaml");
    std::fs::remove_file(folder.path().join("part.yaml")).unwrap();
}

/// Checks that links point to existing pages and headings.
fn check_links(page: &str, text: &str) {
    for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        if target.contains("://") {
            continue;
        }
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let path = match file {
            "" => page.to_string(),
            file => Path::new(page).parent().unwrap().join(file).to_str().unwrap().to_string(),
        };
        assert!(Path::new(ROOT).join(&path).exists(), "{page}: the link {target} points to no file");
        assert!(heading.is_empty() || anchors(&read(&path)).contains(&heading.to_string()), "{page}: {target}");
    }
}

/// Returns the anchors that GitHub generates for the headings.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// Checks that the scripts, sources and tests that a page mentions exist.
fn check_files(page: &str, text: &str) {
    for folder in ["benches/", ".ci/", "src/", "tests/"] {
        for path in paths(text, folder) {
            assert!(Path::new(ROOT).join(&path).exists(), "{page}: there is no {path}");
        }
    }
    for test in text.split("--test ").skip(1).map(|rest| rest.split_whitespace().next().unwrap().trim_matches('`')) {
        assert!(Path::new(ROOT).join(format!("tests/{test}.rs")).exists(), "{page}: there is no test {test}");
    }
}

/// Returns the paths in a page that begin with `folder`, except those with placeholders.
fn paths(text: &str, folder: &str) -> Vec<String> {
    let is_start = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "/._-".contains(c));
    let starts = text.match_indices(folder).map(|(at, _)| at).filter(|&at| is_start(at));
    let is_end = |c: char| !(c.is_alphanumeric() || "/._-<{*".contains(c));
    let whole = starts.map(|at| text[at..].split(is_end).next().unwrap().trim_end_matches('.').to_string());
    whole.filter(|path| !path.contains(['<', '{', '*']) && !path.contains("NAME")).collect()
}
