//! Names of pipelines, stages and instances. They become folder names under `runs/`, so some names are reserved.

/// Names that srpipe itself uses in a run's folder. `store::RunDir` refuses to write any other, so new files must be
/// added here.
pub const RESERVED_STAGES: [&str; 3] = ["run.json", "pipeline.yaml", "report.html"];
/// Names that srpipe itself uses in `runs/` and in a pipeline's folder.
pub const RESERVED_PIPELINES: [&str; 3] = ["latest", "store", "CACHEDIR.TAG"];

/// The maximum length of a name in a pipeline file. File names derived from it are longer.
const MAX_NAME_BYTES: usize = 100;
/// The maximum length of a file name on Linux and macOS.
const MAX_FILE_NAME_BYTES: usize = 255;

/// Returns the reason why a name is invalid; None if it is valid. Valid names consist of letters, digits, `_`, `-` and
/// `.`.
pub fn name_error(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() {
        Some("a name must not be empty".into())
    } else if !name.chars().all(allowed) {
        Some("a name consists of the letters a to z and A to Z, digits, `_`, `-` and `.`".into())
    } else if name.len() > MAX_NAME_BYTES {
        Some(format!("a name has at most {MAX_NAME_BYTES} characters, this one has {}", name.len()))
    } else if name.starts_with(['-', '.']) {
        Some("a name starts with a letter, a digit or `_`".into())
    } else {
        None
    }
}

/// Returns the reason why a pipeline name is invalid; None if it is valid.
pub fn pipeline_name_error(name: &str) -> Option<String> {
    name_error(name).or_else(|| is_reserved_pipeline(name).then(|| "srpipe reserves this name".into()))
}

/// Returns the reason why a stage name in a pipeline file is invalid; None if it is valid.
pub fn stage_name_error(name: &str) -> Option<String> {
    name_error(name).or_else(|| is_reserved_stage(name).then(|| "srpipe reserves this name".into()))
}

/// Returns the reason why the name of a stage or an instance in a run's record is invalid; None if it is valid. The
/// labels of instances may contain any character that is valid in a file name.
pub fn instance_name_error(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) || name.contains(char::is_control) {
        Some("a stage name must not be empty, start with a dot, or contain slashes or control characters".into())
    } else if name.len() > MAX_FILE_NAME_BYTES {
        Some(format!("a stage name has at most {MAX_FILE_NAME_BYTES} bytes, this one has {}", name.len()))
    } else {
        is_reserved_stage(name).then(|| "srpipe reserves this name".into())
    }
}

/// Whether srpipe uses this name for a file or folder in `runs/`.
pub fn is_reserved_pipeline(name: &str) -> bool {
    is_reserved(name, &RESERVED_PIPELINES)
}

/// Whether srpipe uses this name for a file in a run's folder.
pub fn is_reserved_stage(name: &str) -> bool {
    is_reserved(name, &RESERVED_STAGES)
}

/// Compares names case-insensitively, as the file systems of macOS and Windows do.
fn is_reserved(name: &str, reserved: &[&str]) -> bool {
    reserved.iter().any(|r| r.eq_ignore_ascii_case(name))
}

/// Returns the name of a stage in the pipeline file, given the name of one of its instances (`train[seed=0]`).
pub fn base(name: &str) -> &str {
    // Names in files do not contain brackets.
    name.split('[').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_refused_in_any_case() {
        for name in RESERVED_STAGES.iter().flat_map(|name| [name.to_string(), name.to_uppercase()]) {
            assert!(stage_name_error(&name).is_some() && instance_name_error(&name).is_some(), "{name}");
        }
        for name in ["store", "Store", "LATEST", "cachedir.tag"] {
            assert!(pipeline_name_error(name).is_some(), "{name}");
        }
        for name in ["report", "report.html.gz", "run", "latest"] {
            assert_eq!(stage_name_error(name), None, "{name}");
        }
    }

    #[test]
    fn names_that_are_too_long_are_refused_with_their_length() {
        assert_eq!(name_error(&"a".repeat(100)), None);
        assert!(name_error(&"a".repeat(300)).unwrap().ends_with("this one has 300"));
        assert_eq!(instance_name_error(&"ü".repeat(127)), None);
        assert!(instance_name_error(&"ü".repeat(128)).unwrap().ends_with("this one has 256"));
    }

    #[test]
    fn instance_names_cannot_escape_the_run_folder() {
        assert_eq!(instance_name_error("train[lr=1e-3,url=file:%2Fa b,ü=ü]"), None);
        for name in ["", ".", "..", ".lock", "a/b", "a\\b", "a\nb"] {
            assert!(instance_name_error(name).is_some(), "{name:?}");
        }
    }
}
