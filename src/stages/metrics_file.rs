//! Reads the metrics file of a `command` stage: a JSON object whose numbers, including those in nested objects, are
//! metrics.
//!
//! In addition to JSON, it accepts the names that Python's `json.dump` writes for non-finite numbers: `Infinity` is a
//! valid metric (such as the PSNR of equal images), `NaN` is an error. Ambiguous content is an error too: duplicate
//! names, and numbers that do not fit into an `f64`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The maximum number of metrics per stage.
const MAX_METRICS: usize = 1000;
/// The maximum length of a metric's name, which is its path.
const MAX_NAME_BYTES: usize = 500;
/// The maximum size of the file.
const MAX_BYTES: u64 = 16 << 20;
/// The prefix of strings that replace names which are not JSON; the line number follows the name.
const MARK: char = '\0';
/// These names, as written by Python, C and R.
const WORDS: [(&str, f64); 10] = [
    ("NaN", f64::NAN),
    ("-NaN", f64::NAN),
    ("nan", f64::NAN),
    ("-nan", f64::NAN),
    ("Infinity", f64::INFINITY),
    ("-Infinity", f64::NEG_INFINITY),
    ("inf", f64::INFINITY),
    ("-inf", f64::NEG_INFINITY),
    ("Inf", f64::INFINITY),
    ("-Inf", f64::NEG_INFINITY),
];

/// Reads the metrics, by path such as `test.psnr`.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, f64>> {
    let mut bytes = vec![];
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= MAX_BYTES, "the file is larger than {} MiB", MAX_BYTES >> 20);
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, f64>> {
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        bail!("the file is UTF-16: write it as UTF-8");
    }
    let bytes = bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        anyhow!("line {line} is not UTF-8")
    })?;
    let text = marked(text);
    let mut metrics = Metrics::default();
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let read = (Element { metrics: &mut metrics, is_root: true }).deserialize(&mut deserializer);
    if let Err(error) = read.and_then(|()| deserializer.end()) {
        if let Some(problem) = metrics.problem {
            bail!("{problem}");
        }
        if error.to_string().starts_with("number out of range") {
            bail!("the metric `{}` (line {}) is outside the range of a double", metrics.path, error.line());
        }
        return Err(error).context("the file is not valid JSON");
    }
    let found = metrics.found;
    ensure!(found.len() <= MAX_METRICS, "the file has {} numbers; the maximum is {MAX_METRICS}", found.len());
    Ok(found)
}

/// Replaces [`WORDS`], which the parser does not accept, with marked strings.
fn marked(text: &str) -> Cow<'_, str> {
    let mut result = String::new();
    // The end of the text that was copied to the result.
    let (mut copied, mut at, mut line) = (0, 0, 1);
    let mut in_string = false;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'\n' => line += 1,
            b'-' | b'N' | b'n' | b'I' | b'i' if !in_string => {
                let length = bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'-').count();
                let word = &text[at..at + length];
                if let Some((word, _)) = WORDS.iter().find(|(w, _)| *w == word) {
                    result += &text[copied..at];
                    result += &format!("\"\\u0000{word} {line}\"");
                    copied = at + length;
                }
                at += length - 1;
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 { Cow::Borrowed(text) } else { Cow::Owned(result + &text[copied..]) }
}

#[derive(Default)]
struct Metrics {
    found: BTreeMap<String, f64>,
    /// The path of the current value.
    path: String,
    /// An error message that is clearer than the parser's.
    problem: Option<String>,
}

impl Metrics {
    fn fail<E: Error>(&mut self, problem: String) -> E {
        self.problem = Some(problem);
        E::custom("a metric")
    }

    fn add<E: Error>(&mut self, value: f64) -> Result<(), E> {
        if self.path.len() > MAX_NAME_BYTES {
            return Err(self.fail(format!("the name of a metric is longer than {MAX_NAME_BYTES} bytes")));
        }
        match self.found.insert(self.path.clone(), value) {
            None => Ok(()),
            Some(_) => Err(self.fail(format!("duplicate metric `{}`", self.path))),
        }
    }
}

/// A value in the file.
struct Element<'a> {
    metrics: &'a mut Metrics,
    is_root: bool,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Element<'_> {
    /// Handles any value except an object.
    fn plain<E: Error>(&mut self) -> Result<(), E> {
        if self.is_root { Err(self.metrics.fail("the file is not a JSON object".into())) } else { Ok(()) }
    }

    fn number<E: Error>(mut self, value: f64) -> Result<(), E> {
        self.plain()?;
        self.metrics.add(value)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let length = self.metrics.path.len();
            if length > 0 {
                self.metrics.path.push('.');
            }
            self.metrics.path += &name;
            if !names.insert(name) {
                return Err(self.metrics.fail(format!("duplicate key `{}`", self.metrics.path)));
            }
            map.next_value_seed(Element { metrics: self.metrics, is_root: false })?;
            self.metrics.path.truncate(length);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.plain()?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.number(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.number(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.number(value as f64)
    }

    fn visit_bool<E: Error>(mut self, _: bool) -> Result<(), E> {
        self.plain()
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.plain()
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.plain()?;
        let word = text.strip_prefix(MARK).and_then(|rest| rest.split_once(' '));
        let value = word.and_then(|(word, line)| Some((WORDS.iter().find(|(w, _)| *w == word)?.1, line)));
        match value {
            None => Ok(()),
            Some((value, line)) if value.is_nan() => {
                let path = self.metrics.path.clone();
                Err(self.metrics.fail(format!(
                    "the metric `{path}` (line {line}) is NaN: omit it or write null if it has no value"
                )))
            }
            Some((value, _)) => self.metrics.add(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &[u8]) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn numbers_are_found_by_their_path() {
        let text = "\u{FEFF}{\"n\": 3, \"deep\": {\"x\": -0.5, \"list\": [1, NaN, 1e999]}, \"name\": \"NaN\", \"no\": null, \"yes\": true}";
        assert_eq!(parse(text.as_bytes()).unwrap(), [("n".to_string(), 3.0), ("deep.x".to_string(), -0.5)].into());
        assert!(parse(b"{}").unwrap().is_empty());
    }

    #[test]
    fn infinities_are_accepted_as_python_writes_them() {
        let found = parse(b"{\"a\": Infinity, \"b\":-Infinity,\n\"c\\\"Infinity\": 1, \"d\": \"Infinity\"}").unwrap();
        let expected = [("a", f64::INFINITY), ("b", f64::NEG_INFINITY), ("c\"Infinity", 1.0)];
        assert_eq!(found, expected.map(|(name, value)| (name.to_string(), value)).into());
    }

    #[test]
    fn invalid_metrics_are_reported_with_their_line() {
        for (text, expected) in [
            ("{\"psnr\": 3,\n \"test\": {\"loss\": NaN}}", "the metric `test.loss` (line 2) is NaN"),
            ("{\"loss\": nan}", "the metric `loss` (line 1) is NaN"),
            ("{\"a\": 1,\n\n\"big\": 1e999}", "the metric `big` (line 3) is outside the range"),
            ("{\"a\": 1, \"a\": 1}", "duplicate key `a`"),
            ("{\"a\": {}, \"a\": {}}", "duplicate key `a`"),
            ("{\"a.b\": 1, \"a\": {\"b\": 1}}", "duplicate metric `a.b`"),
            ("[1]", "not a JSON object"),
            ("NaN", "not a JSON object"),
            ("3", "not a JSON object"),
            ("\"text\"", "not a JSON object"),
            ("null", "not a JSON object"),
            ("{\"a\": 1}\n{\"a\": 2}", "the file is not valid JSON: trailing characters at line 2"),
            ("{\"a\": NaNs}", "the file is not valid JSON: expected"),
            ("{'a': 1}", "the file is not valid JSON: "),
            ("", "the file is not valid JSON: EOF"),
        ] {
            let error = error(text.as_bytes());
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!(error(b"{\n\"\xff\": 1}"), "line 2 is not UTF-8");
        assert!(error(b"\xff\xfe{\0}\0").contains("UTF-16"));
        let many: String = (0..1001).map(|i| format!("\"m{i}\": 1,")).collect();
        assert!(error(format!("{{{}}}", many.trim_end_matches(',')).as_bytes()).contains("1001 numbers"));
        assert!(error(format!("{{\"{}\": 1}}", "x".repeat(600)).as_bytes()).contains("the name of a metric"));
        assert!(error("{\"a\":".repeat(10_000).as_bytes()).contains("recursion limit"));
        assert!(error("[".repeat(10_000).as_bytes()).contains("not a JSON object"));
        assert!(error(format!("{{\"a\": {}", "[".repeat(10_000)).as_bytes()).contains("the file is not valid JSON"));
    }

    #[test]
    fn large_files_are_refused_in_bounded_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.json");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("larger than 16 MiB"));
    }
}
