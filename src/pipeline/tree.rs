//! A YAML document as a tree with a span for every key and value.

use indexmap::IndexMap;

use super::diagnostics::Span;

/// A value and its span.
#[derive(Debug, Clone)]
pub struct Node {
    pub(super) value: Value,
    pub(super) span: Span,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number {
        number: Number,
        /// The original spelling. A string parameter may look like a number, such as a digest without letters.
        text: String,
    },
    Text(String),
    List(Vec<Node>),
    Mapping(Mapping),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Integer(i128),
    /// May be infinite or NaN; validation rejects these.
    Real(f64),
}

impl Number {
    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Integer(i) => i as f64,
            Self::Real(x) => x,
        }
    }
}

/// A mapping, in the order of the file.
pub(super) type Mapping = IndexMap<String, Entry>;

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Span,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn null(span: Span) -> Self {
        Self { value: Value::Null, span }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(super) fn as_mapping(&self) -> Option<&Mapping> {
        match &self.value {
            Value::Mapping(mapping) => Some(mapping),
            _ => None,
        }
    }

    pub(super) fn as_mapping_mut(&mut self) -> Option<&mut Mapping> {
        match &mut self.value {
            Value::Mapping(mapping) => Some(mapping),
            _ => None,
        }
    }

    /// Returns a string, or a number as it was written.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Number { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Returns the entry at `path`, given as a sequence of keys.
    pub(super) fn entry<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Entry> {
        let mut path = path.into_iter();
        let mut entry = self.as_mapping()?.get(path.next()?)?;
        for key in path {
            entry = entry.node.as_mapping()?.get(key)?;
        }
        Some(entry)
    }

    /// Returns the entry at a dotted path. Keys may contain dots themselves; the longest existing key is used.
    pub(super) fn entry_at(&self, path: &str) -> Option<&Entry> {
        let mapping = self.as_mapping()?;
        if let Some(entry) = mapping.get(path) {
            return Some(entry);
        }
        let dots = path.rmatch_indices('.').map(|(i, _)| i);
        dots.into_iter().find_map(|dot| mapping.get(&path[..dot])?.node.entry_at(&path[dot + 1..]))
    }

    /// Estimates the memory, in bytes, that parameters made from this value take.
    pub(super) fn weight(&self) -> u64 {
        const SCALAR: u64 = 32;
        match &self.value {
            Value::Null | Value::Bool(_) | Value::Number { .. } => SCALAR,
            Value::Text(text) => SCALAR + text.len() as u64,
            Value::List(items) => SCALAR + items.iter().map(Node::weight).sum::<u64>(),
            Value::Mapping(mapping) => mapping.iter().map(|(key, entry)| key.len() as u64 + entry.node.weight()).sum(),
        }
    }

    /// Describes the value for messages: "found …".
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_string(),
            Value::Bool(b) => format!("`{b}`"),
            Value::Number { text, .. } | Value::Text(text) => super::text::quote(text),
            Value::List(_) => "a list".to_string(),
            Value::Mapping(_) => "a mapping".to_string(),
        }
    }

    pub(super) fn to_yaml(&self) -> serde_yaml::Value {
        use serde_yaml::Value as Yaml;
        match &self.value {
            Value::Null => Yaml::Null,
            Value::Bool(b) => Yaml::Bool(*b),
            Value::Number { number: Number::Real(x), .. } => Yaml::from(*x),
            Value::Number { number: Number::Integer(i), .. } => match (u64::try_from(*i), i64::try_from(*i)) {
                (Ok(i), _) => Yaml::from(i),
                (_, Ok(i)) => Yaml::from(i),
                _ => Yaml::from(*i as f64),
            },
            Value::Text(text) => Yaml::from(text.as_str()),
            Value::List(items) => Yaml::Sequence(items.iter().map(Node::to_yaml).collect()),
            Value::Mapping(mapping) => Yaml::Mapping(
                mapping.iter().map(|(key, entry)| (Yaml::from(key.as_str()), entry.node.to_yaml())).collect(),
            ),
        }
    }
}

/// Parses an unquoted scalar according to the YAML 1.2 core schema (section 10.3.2).
pub(super) fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => match number(text) {
            Some(number) => Value::Number { number, text: text.to_string() },
            None => Value::Text(text.to_string()),
        },
    }
}

fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return digits
            .starts_with(|c: char| c.is_ascii_hexdigit())
            .then(|| i128::from_str_radix(digits, 16).ok())?
            .map(Number::Integer);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return digits
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| i128::from_str_radix(digits, 8).ok())?
            .map(Number::Integer);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Some(Number::Real(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }));
    }
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(Number::Real(f64::NAN));
    }
    // The remaining numbers of the core schema are those that Rust parses, except for its names of infinity and NaN.
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    text.parse().map(Number::Integer).ok().or_else(|| text.parse().map(Number::Real).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        let number_of = |text: &str| match plain_scalar(text) {
            Value::Number { number, .. } => Some(number),
            _ => None,
        };
        for (text, value) in [
            ("0", Number::Integer(0)),
            ("-12", Number::Integer(-12)),
            ("+7", Number::Integer(7)),
            ("0x1F", Number::Integer(31)),
            ("0o17", Number::Integer(15)),
            ("18446744073709551615", Number::Integer(u64::MAX as i128)),
            ("1e-4", Number::Real(1e-4)),
            ("1.", Number::Real(1.0)),
            (".5", Number::Real(0.5)),
            ("-.inf", Number::Real(f64::NEG_INFINITY)),
        ] {
            assert_eq!(number_of(text), Some(value), "{text}");
        }
        assert!(number_of(".nan").unwrap().as_f64().is_nan());
        for text in ["abc", "1e", "--1", "0x", "0x-1", "0o+1", "inf", "nan", "infinity", "1_000", "yes", ".", "-", "e5"]
        {
            assert!(matches!(plain_scalar(text), Value::Text(_)), "{text}");
        }
        assert!(matches!(plain_scalar("~"), Value::Null));
        assert!(matches!(plain_scalar("True"), Value::Bool(true)));
    }
}
