//! Checks the architecture: modules import only from lower layers, files inside a module do not import each other in a
//! cycle, and no file is long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the highest to the lowest. Modules of one layer do not import each other.
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

/// The maximum number of lines of a source file, including its tests.
const MAX_LINES: usize = 450;

/// Returns the index of a module's layer.
fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// Collects the Rust files below a folder.
fn collect_sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the modules that follow `crate::` in a string, including those in braces: `crate::{data, store::Store}`.
fn imported_modules(text: &str) -> Vec<&str> {
    let mut found = vec![];
    for (at, _) in text.match_indices("crate::") {
        // Skip the end of another name.
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(&rest[..identifier_len(rest)]),
            Some(rest) => {
                let mut depth = 0;
                let mut is_start = true;
                for (i, c) in rest.char_indices() {
                    match c {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => is_start = true,
                        c if is_start && depth == 0 && c.is_alphabetic() => {
                            found.push(&rest[i..i + identifier_len(&rest[i..])]);
                            is_start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

/// Returns the imports of a module in `text` that do not lead to a lower layer.
fn upward_imports(module: &str, text: &str) -> Vec<String> {
    let own = layer(module).unwrap_or_else(|| panic!("{module} is not in `LAYERS`"));
    let wrong = |name: &&str| {
        *name != module && layer(name).is_none_or(|other| other <= own) && name.chars().all(|c| !c.is_uppercase())
    };
    let wrong: Vec<&str> = imported_modules(text).into_iter().filter(wrong).collect();
    wrong.iter().map(|name| format!("{module} imports {name}")).collect()
}

#[test]
fn imports_run_downwards() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    collect_sources(&src, &mut files);
    assert!(files.len() > 20, "{files:?}");
    let mut wrong = vec![];
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if !["lib", "main"].contains(&module) {
            let text = fs::read_to_string(&file).unwrap();
            wrong.extend(upward_imports(module, &text).iter().map(|wrong| format!("{}: {wrong}", inside.display())));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_upward_import_is_found() {
    assert_eq!(upward_imports("store", "use crate::pipeline::X;\nuse crate::plan::Y;"), ["store imports plan"]);
    assert_eq!(
        upward_imports("data", "use crate::{random, stages::{self, X}, store::Store};"),
        ["data imports stages"]
    );
    assert_eq!(upward_imports("model", "fn f(x: &crate::data::Images) {}"), ["model imports data"]);
    assert!(upward_imports("cli", "use crate::run::X; use crate::cli::Y; crate::random::z()").is_empty());
}

/// A module's path, without the crate: `["pipeline", "sweep", "matrix"]`.
type ModulePath = Vec<String>;

/// The modules of the crate without tests, with the text of their files.
struct Modules(BTreeMap<ModulePath, String>);

/// Returns the module in a file, given by its path below `src`.
fn module_of(file: &Path) -> ModulePath {
    let mut path: ModulePath = file.with_extension("").iter().map(|name| name.to_str().unwrap().to_string()).collect();
    if path.last().is_some_and(|name| name == "mod") {
        path.pop();
    }
    path
}

/// Returns a file's text without comments and inline test modules.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Returns the length of the identifier at the start of a string.
fn identifier_len(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Parses a path, such as `a::{b, c::D as E}`, and expands its braces. Returns the paths and the rest of the text.
fn expand(text: &str) -> (Vec<Vec<String>>, &str) {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        let mut all = vec![];
        loop {
            let (paths, after) = expand(rest);
            all.extend(paths);
            match after.trim_start().strip_prefix(',') {
                Some(after) => rest = after,
                None => return (all, after.trim_start().trim_start_matches('}')),
            }
        }
    }
    if let Some(rest) = text.strip_prefix('*') {
        return (vec![vec!["*".to_string()]], rest);
    }
    let (name, rest) = text.split_at(identifier_len(text));
    if name.is_empty() {
        return (vec![], rest);
    }
    let name = name.to_string();
    if let Some(rest) = rest.strip_prefix("::") {
        let (inner, rest) = expand(rest);
        let paths = match inner.is_empty() {
            true => vec![vec![name]],
            false => inner.into_iter().map(|path| [vec![name.clone()], path].concat()).collect(),
        };
        return (paths, rest);
    }
    let rest = rest.strip_prefix(" as ").map_or(rest, |rest| &rest[identifier_len(rest)..]);
    (vec![vec![name]], rest)
}

/// Returns the names of the public items that a file declares.
fn declared(text: &str) -> Vec<String> {
    let words = ["struct ", "enum ", "trait ", "type ", "fn ", "const fn ", "const ", "static "];
    let name = |line: &str| {
        let item = line
            .strip_prefix("pub ")
            .or_else(|| line.split_once(") ").filter(|_| line.starts_with("pub(")).map(|l| l.1))?;
        let rest = words.iter().find_map(|word| item.strip_prefix(word))?;
        Some(rest[..identifier_len(rest)].to_string())
    };
    text.lines().filter_map(name).collect()
}

impl Modules {
    fn new(files: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let modules: BTreeMap<ModulePath, String> =
            files.into_iter().map(|(file, text)| (module_of(&file), code(&text))).collect();
        let is_test = |path: &ModulePath| {
            path.iter().any(|name| name == "tests" || name.ends_with("_tests"))
                || (1..path.len()).any(|end| {
                    let declaration = format!("mod {};", path[end]);
                    let parent = modules.get(&path[..end]).map_or("", String::as_str);
                    let before = parent.split(&declaration).next().unwrap_or_default();
                    before.trim_end_matches("pub ").trim_end().ends_with("#[cfg(test)]")
                })
        };
        let tests: BTreeSet<ModulePath> = modules.keys().filter(|path| is_test(path)).cloned().collect();
        Self(modules.into_iter().filter(|(path, _)| !tests.contains(path)).collect())
    }

    /// Returns the child modules that a module imports names from, by name.
    fn reexports(&self, module: &[String]) -> BTreeMap<String, String> {
        let text = self.0.get(module).map_or("", String::as_str);
        let mut found = BTreeMap::new();
        for (at, _) in text.match_indices("use ") {
            for path in expand(&text[at + "use ".len()..]).0 {
                let path = if path[0] == "self" { &path[1..] } else { &path[..] };
                let Some(text) =
                    path.first().and_then(|child| self.0.get(&[module, std::slice::from_ref(child)].concat()))
                else {
                    continue;
                };
                match path.last() {
                    Some(name) if name == "*" => {
                        found.extend(declared(text).into_iter().map(|name| (name, path[0].clone())));
                    }
                    Some(name) if path.len() > 1 => drop(found.insert(name.clone(), path[0].clone())),
                    _ => {}
                }
            }
        }
        found
    }

    /// Returns the module that a path starting with `super` or `crate` leads to, as seen from `module`.
    fn resolve(&self, module: &[String], path: &[String]) -> ModulePath {
        let ups = path.iter().take_while(|name| *name == "super").count();
        let mut target = match ups {
            0 => vec![],
            _ => module[..module.len().saturating_sub(ups)].to_vec(),
        };
        let mut rest = path[ups.max(1)..].to_vec();
        while !rest.is_empty() && self.0.contains_key(&[&target[..], &rest[..1]].concat()) {
            target.push(rest.remove(0));
        }
        if let Some(child) = rest.first().and_then(|name| self.reexports(&target).remove(name)) {
            target.push(child);
        }
        target
    }

    /// Returns the imports between the children of each module: the module, and for each child the siblings that it
    /// imports.
    fn sibling_imports(&self) -> BTreeMap<ModulePath, BTreeMap<String, BTreeSet<String>>> {
        let mut found: BTreeMap<ModulePath, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (module, text) in &self.0 {
            for (at, _) in text.match_indices("super::").chain(text.match_indices("crate::")) {
                if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                for path in expand(&text[at..]).0 {
                    let target = self.resolve(module, &path);
                    let common = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
                    if common > 0 && common < module.len().min(target.len()) {
                        let siblings = found.entry(module[..common].to_vec()).or_default();
                        siblings.entry(module[common].clone()).or_default().insert(target[common].clone());
                    }
                }
            }
        }
        found
    }

    /// Returns the import cycles inside modules: the module, and the children that import each other.
    fn cycles(&self) -> Vec<(String, Vec<String>)> {
        let mut found = vec![];
        for (module, imports) in self.sibling_imports() {
            let mut reachable: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
            for from in imports.keys() {
                let reached = reachable.entry(from).or_default();
                let mut unvisited = vec![from];
                while let Some(next) = unvisited.pop() {
                    unvisited.extend(imports.get(next).into_iter().flatten().filter(|name| reached.insert(name)));
                }
            }
            let cycle = |name: &String| -> Vec<String> {
                let is_mutual = |other: &&&String| reachable.get(**other).is_some_and(|back| back.contains(name));
                reachable[name].iter().filter(is_mutual).map(|other| other.to_string()).collect()
            };
            let cycles: BTreeSet<Vec<String>> = imports.keys().map(cycle).filter(|cycle| !cycle.is_empty()).collect();
            found.extend(cycles.into_iter().map(|cycle| (module.join("/"), cycle)));
        }
        found
    }
}

#[test]
fn files_inside_a_module_do_not_import_each_other_in_a_cycle() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    collect_sources(&src, &mut files);
    let texts = files.iter().map(|file| (file.strip_prefix(&src).unwrap().into(), fs::read_to_string(file).unwrap()));
    let found = Modules::new(texts).cycles();
    assert!(found.is_empty(), "import cycles: move what both sides need to a lower file\n{found:#?}");
}

#[test]
fn cycles_between_files_are_found() {
    let modules =
        |files: &[(&str, &str)]| Modules::new(files.iter().map(|(file, text)| (PathBuf::from(file), text.to_string())));
    let cycle = |module: &str, names: &[&str]| (module.to_string(), names.iter().map(|n| n.to_string()).collect());
    let direct =
        [("m/mod.rs", "mod a;\nmod b;"), ("m/a.rs", "use super::b::X;"), ("m/b.rs", "fn f(x: super::a::Y) {}")];
    assert_eq!(modules(&direct).cycles(), [cycle("m", &["a", "b"])]);
    let by_reexport =
        [("m/mod.rs", "pub use b::{X, Y as Z};"), ("m/a.rs", "use crate::m::{X, c};"), ("m/b.rs", "use super::a;")];
    assert_eq!(modules(&by_reexport).cycles(), [cycle("m", &["a", "b"])]);
    let nested =
        [("m/mod.rs", ""), ("m/a.rs", ""), ("m/a/x.rs", "use super::super::b;"), ("m/b.rs", "use super::{a, c};")];
    assert_eq!(modules(&nested).cycles(), [cycle("m", &["a", "b"])]);
    let acyclic = [
        ("m/mod.rs", "use a::A;\n#[cfg(test)]\npub mod testing;"),
        ("m/a.rs", "use super::b::X;\nuse super::Item;"),
        ("m/b.rs", "// super::a\n#[cfg(test)]\nmod tests {\n    use super::super::a;\n}"),
        ("m/testing.rs", "use super::a;"),
    ];
    assert!(modules(&acyclic).cycles().is_empty());
}

#[test]
fn no_source_file_is_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![];
    ["benches", "src", "tests"].iter().for_each(|folder| collect_sources(&root.join(folder), &mut files));
    let lines = |file: &PathBuf| fs::read_to_string(file).unwrap().lines().count();
    let is_long = |file: &PathBuf| lines(file) > MAX_LINES;
    let long: Vec<String> = files.iter().filter(|file| is_long(file)).map(|file| file.display().to_string()).collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: split them by subject\n{long:#?}");
}

#[test]
fn no_module_imports_everything_from_another() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    collect_sources(&src, &mut files);
    let texts = files.iter().map(|file| (file.strip_prefix(&src).unwrap().into(), fs::read_to_string(file).unwrap()));
    let mut hidden = vec![];
    for (module, text) in Modules::new(texts).0 {
        let is_hidden = |line: &&str| {
            let of_crate = ["use super::", "use crate::", "use self::"].iter().any(|start| line.starts_with(start));
            of_crate && line.contains('*')
        };
        hidden.extend(text.lines().filter(is_hidden).map(|line| format!("{}: {line}", module.join("::"))));
    }
    assert!(hidden.is_empty(), "{hidden:#?}");
}
