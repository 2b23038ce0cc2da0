//! Names of pipelines, stages and instances. They become names of folders under `runs/`, where some names are taken.

/// Names in a run's folder that srpipe itself writes to. `store::RunDir` refuses to write others, so a file that is new
/// there is added here.
pub const RESERVED_STAGES: [&str; 3] = ["run.json", "pipeline.yaml", "report.html"];
/// Names in `runs/`, and in a pipeline's folder, that srpipe itself writes to.
pub const RESERVED_PIPELINES: [&str; 3] = ["latest", "store", "CACHEDIR.TAG"];

/// The longest name in a pipeline file. Names of files add more to it.
const MAX_NAME_BYTES: usize = 100;
/// The longest name of a file on Linux and macOS.
const MAX_FILE_NAME_BYTES: usize = 255;

/// Returns what is wrong with a name of letters, digits, `_`, `-` and `.`, if anything.
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

/// Returns what is wrong with the name of a pipeline, if anything.
pub fn pipeline_name_error(name: &str) -> Option<String> {
    name_error(name).or_else(|| is_reserved_pipeline(name).then(|| "the store keeps this name for itself".into()))
}

/// Returns what is wrong with the name of a stage in a pipeline file, if anything.
pub fn stage_name_error(name: &str) -> Option<String> {
    name_error(name).or_else(|| is_reserved_stage(name).then(|| "a run keeps this name for itself".into()))
}

/// Returns what is wrong with the name of a stage or an instance in a run's record, if anything. The labels of instances
/// may contain any character that a name of a file can have.
pub fn instance_name_error(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) || name.contains(char::is_control) {
        Some(
            "a stage's name is not empty, starts with no dot and contains neither slashes nor control characters"
                .into(),
        )
    } else if name.len() > MAX_FILE_NAME_BYTES {
        Some(format!("a stage's name has at most {MAX_FILE_NAME_BYTES} bytes, this one has {}", name.len()))
    } else {
        is_reserved_stage(name).then(|| "a run keeps this name for itself".into())
    }
}

/// Whether `runs/` has a file or folder of its own under this name.
pub fn is_reserved_pipeline(name: &str) -> bool {
    is_reserved(name, &RESERVED_PIPELINES)
}

/// Whether a run's folder has a file of its own under this name.
pub fn is_reserved_stage(name: &str) -> bool {
    is_reserved(name, &RESERVED_STAGES)
}

/// File systems of macOS and Windows do not tell cases apart.
fn is_reserved(name: &str, reserved: &[&str]) -> bool {
    reserved.iter().any(|r| r.eq_ignore_ascii_case(name))
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
    fn names_of_instances_lead_nowhere_else() {
        assert_eq!(instance_name_error("train[lr=1e-3,url=file:%2Fa b,ü=ü]"), None);
        for name in ["", ".", "..", ".lock", "a/b", "a\\b", "a\nb"] {
            assert!(instance_name_error(name).is_some(), "{name:?}");
        }
    }
}
