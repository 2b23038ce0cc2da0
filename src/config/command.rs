//! The parameters of `command` stages, which run a user's program, and the placeholders in its arguments.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::{Blobs, Input, Kind};

/// Runs a program on blobs of other stages, and stores the files that it writes.
///
/// The program starts in a folder that contains only `inputs/NAME`, `outputs/` and the declared `files`. It inherits
/// only PATH, HOME and TMPDIR from srpipe's environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandParams {
    /// The program and its arguments, without a shell. `{inputs.NAME}` and `{outputs.NAME}` are replaced by paths,
    /// `{seed}` by the seed, and `{threads}` by the number of threads that the stage may use.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// The inputs by name: all blobs of a stage (`STAGE`, a folder), or one of them (`STAGE/BLOB`, a file).
    #[serde(default, serialize_with = "without_stages")]
    pub inputs: BTreeMap<String, String>,
    /// The files that the program writes, which are the blobs of this stage.
    #[schemars(length(min = 1))]
    pub outputs: Vec<String>,
    /// Environment variables, in addition to PATH, HOME and TMPDIR.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Files that the program needs, such as a script, relative to the working directory. They are available under the
    /// same names in the folder that the program starts in. The stage reruns when their content changes.
    #[serde(default)]
    pub files: Vec<String>,
    /// One of `outputs`, a JSON object whose numbers are the metrics of this stage. `Infinity`, as Python writes it, is
    /// accepted; `NaN` is an error.
    #[serde(default)]
    pub metrics: Option<String>,
    /// The seed, if `{seed}` is used; by default the pipeline's.
    #[serde(default, skip_serializing)]
    pub seed: Option<u64>,
}

/// Serialises inputs without the names of stages, which do not change the result.
fn without_stages<S: Serializer>(inputs: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(inputs.iter().map(|(name, input)| (name, split(input).1.unwrap_or("*"))))
}

/// Splits an input into the stage and, if only one blob is read, the blob.
pub fn split(input: &str) -> (&str, Option<&str>) {
    match input.split_once('/') {
        Some((stage, blob)) => (stage, Some(blob)),
        None => (input, None),
    }
}

/// A placeholder in an argument or in the value of an environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder<'a> {
    Input(&'a str),
    Output(&'a str),
    Seed,
    Threads,
}

/// Replaces placeholders by values. Braces around anything else are unchanged.
pub fn substitute<'a, E>(
    text: &'a str,
    mut value: impl FnMut(Placeholder<'a>) -> Result<String, E>,
) -> Result<String, E> {
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let (before, braces) = rest.split_at(start);
        result += before;
        let inside = inside(braces);
        match inside.and_then(placeholder) {
            Some(found) => {
                result += &value(found)?;
                rest = &braces[inside.unwrap_or_default().len() + 2..];
            }
            None => {
                result.push('{');
                rest = &braces[1..];
            }
        }
    }
    Ok(result + rest)
}

/// Returns the text between a leading `{` and the next brace, if that brace is `}`.
fn inside(braces: &str) -> Option<&str> {
    let end = braces[1..].find(['{', '}'])? + 1;
    braces[end..].starts_with('}').then(|| &braces[1..end])
}

/// Text in braces that is not a placeholder but looks like a misspelled one.
#[derive(Debug, PartialEq, Eq)]
pub struct NearMiss<'a> {
    /// Including its braces.
    pub written: &'a str,
    /// The intended placeholder, including its braces.
    pub meant: String,
    /// The kind and the name of the input or output.
    pub name: Option<(&'static str, &'a str)>,
}

/// Finds placeholders in the syntax of other tools, and misspelled ones: `{input.x}`, `{inputs[x]}`, `{Seed}`.
pub fn near_misses(text: &str) -> Vec<NearMiss<'_>> {
    let starts = text.match_indices('{').map(|(start, _)| start);
    // `${SEED}` is a shell variable.
    let starts = starts.filter(|&start| !text[..start].ends_with('$'));
    starts
        .filter_map(|start| {
            let inside = inside(&text[start..])?;
            let written = &text[start..start + inside.len() + 2];
            near_miss(inside, written).filter(|_| placeholder(inside).is_none())
        })
        .collect()
}

fn near_miss<'a>(inside: &'a str, written: &'a str) -> Option<NearMiss<'a>> {
    let word = inside.trim();
    let end = word.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(word.len());
    let kind = match word[..end].to_ascii_lowercase().as_str() {
        "input" | "inputs" => "inputs",
        "output" | "outputs" => "outputs",
        meant @ ("seed" | "threads") if end == word.len() => {
            return Some(NearMiss { written, meant: format!("{{{meant}}}"), name: None });
        }
        _ => return None,
    };
    let name = match word[end..].chars().next() {
        None => "",
        Some('.' | ':') => &word[end + 1..],
        Some('[') => word[end + 1..].strip_suffix(']')?.trim_matches(['\'', '"']),
        Some(_) => return None,
    };
    let meant = format!("{{{kind}.{}}}", if name.is_empty() { "NAME" } else { name });
    Some(NearMiss { written, meant, name: Some((kind, name)) })
}

fn placeholder(inside: &str) -> Option<Placeholder<'_>> {
    match inside {
        "seed" => Some(Placeholder::Seed),
        "threads" => Some(Placeholder::Threads),
        _ => {
            let input = inside.strip_prefix("inputs.").map(Placeholder::Input);
            input.or_else(|| inside.strip_prefix("outputs.").map(Placeholder::Output))
        }
    }
}

/// Whether a string contains `{seed}`.
pub fn has_seed(text: &str) -> bool {
    let mut found = false;
    let _ = substitute(text, |placeholder| {
        found |= placeholder == Placeholder::Seed;
        Ok::<_, ()>(String::new())
    });
    found
}

impl CommandParams {
    /// Returns the strings that may contain placeholders.
    fn texts(&self) -> impl Iterator<Item = &String> {
        self.command.iter().chain(self.env.values())
    }

    fn uses_seed(&self) -> bool {
        self.texts().any(|text| has_seed(text))
    }
}

impl Kind for CommandParams {
    const NAME: &'static str = "command";
    const VERSION: u32 = 1;
    const OUTPUTS: &'static [&'static str] = &[];
    const IS_USER_DEFINED: bool = true;

    fn outputs(&self) -> Vec<&str> {
        self.outputs.iter().map(String::as_str).collect()
    }

    fn inputs(&self) -> Vec<Input> {
        let input = |(name, input): (&String, &String)| {
            let (stage, blob) = split(input);
            Input {
                role: format!("inputs.{name}"),
                stage: stage.to_string(),
                blobs: blob.map_or(Blobs::All, |blob| Blobs::Only(vec![blob.to_string().into()])),
            }
        };
        self.inputs.iter().map(input).collect()
    }

    fn rename_inputs(&mut self, rename: &mut dyn FnMut(&mut String)) {
        for input in self.inputs.values_mut() {
            let (stage, blob) = split(input);
            let (mut stage, blob) = (stage.to_string(), blob.map(|blob| format!("/{blob}")));
            rename(&mut stage);
            *input = stage + &blob.unwrap_or_default();
        }
    }

    fn seed(&self, pipeline: u64) -> Option<u64> {
        self.uses_seed().then(|| self.seed.unwrap_or(pipeline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> String {
        substitute(text, |placeholder| Ok::<_, ()>(format!("<{placeholder:?}>"))).unwrap()
    }

    #[test]
    fn placeholders_are_filled_and_other_braces_stay() {
        assert_eq!(filled("--in={inputs.a}:{outputs.b.csv}"), r#"--in=<Input("a")>:<Output("b.csv")>"#);
        assert_eq!(filled("{seed}{threads}"), "<Seed><Threads>");
        for plain in ["", "{", "}", "{}", "{other}", r#"{"a": {"b": 1}}"#, "{input.a}", "{{", "ä{ö}"] {
            assert_eq!(filled(plain), plain);
        }
        assert_eq!(filled(r#"{"a": "{inputs.x}"}"#), r#"{"a": "<Input("x")>"}"#);
    }

    #[test]
    fn misspelled_placeholders_are_found() {
        let meant = |text: &str| near_misses(text).into_iter().map(|miss| miss.meant).collect::<Vec<_>>();
        for (text, expected) in [
            ("{input.x}", "{inputs.x}"),
            ("--to={Outputs.o.csv}", "{outputs.o.csv}"),
            ("{inputs[x]}", "{inputs.x}"),
            ("{input['x']}", "{inputs.x}"),
            ("{input}", "{inputs.NAME}"),
            ("{ seed }", "{seed}"),
            ("{SEED}", "{seed}"),
            ("{Threads}", "{threads}"),
        ] {
            assert_eq!(meant(text), [expected], "{text}");
        }
        for other in
            ["{inputs.x}", "{seed}", "${SEED}", "{seeds}", "{inputx}", "{input x}", "{", "{}", "{{}", "{a: {b}}"]
        {
            assert!(meant(other).is_empty(), "{other}");
        }
        let start = std::time::Instant::now();
        let many = "{".repeat(1 << 20);
        assert!(near_misses(&many).is_empty() && filled(&many) == many);
        assert!(start.elapsed().as_secs() < 5);
    }

    #[test]
    fn the_seed_counts_where_it_is_used() {
        let params = |text: &str| serde_yaml::from_str::<CommandParams>(text).unwrap();
        assert!(params("{command: [a, '-s{seed}'], outputs: [b]}").uses_seed());
        assert!(params("{command: [a], outputs: [b], env: {SEED: '{seed}'}}").uses_seed());
        assert!(!params("{command: [a, seed], outputs: [b]}").uses_seed());
    }
}
