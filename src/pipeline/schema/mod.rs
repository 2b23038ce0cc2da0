//! Validates stages against the JSON Schemas of their parameter types, and reports each error with its span.
//!
//! schemars derives the schemas from the types in [`config`](crate::config), which are thus the only description of the
//! parameters. `schemas` collects them and adds the top level of the file; `reference` renders them as Markdown.
//! [`Validator`] selects the rule for each value: `mappings` validates mappings and tagged alternatives, and `values`
//! validates the values in them. They support the keywords that these schemas use, which a test ensures.

mod mappings;
mod reference;
mod schemas;
mod values;

use serde_json::Value as Json;

use super::diagnostics::{Diagnostic, Errors, Span};
use super::text::odd_character;
use super::tree::Node;
use crate::config::StageKind;

pub use reference::reference;
pub use schemas::file;
pub(super) use schemas::of;
pub(super) use values::number_help;

/// Returns the parameters that are mutually exclusive with `key`, which is a key of `optim`.
pub(super) fn exclusive_with(key: &str) -> &'static [&'static str] {
    match key {
        "steps" => &["epochs", "budget"],
        "epochs" => &["steps", "budget"],
        "budget" => &["steps", "epochs"],
        _ => &[],
    }
}

/// Validates the parameters of a stage and converts them to the type of their parameter: `1e3` to an integer, a digest
/// of digits to a string.
pub(super) fn validate_stage(kind: StageKind, stage: &str, key: Span, node: &mut Node, errors: &mut Errors) {
    Validator { root: of(kind), errors, owner: Some((stage, key)) }.run(node);
}

/// Validates `defaults.<kind>` like a stage, but without required parameters.
pub(super) fn validate_defaults(kind: StageKind, node: &mut Node, errors: &mut Errors) {
    Validator { root: of(kind), errors, owner: None }.run(node);
}

/// Converts each value of a stage to the type of its parameter: `3.10` becomes a number, or a string as written. Values
/// that do not match stay unchanged.
pub(super) fn type_stage(kind: StageKind, node: &mut Node) {
    Validator { root: of(kind), errors: &mut Errors::default(), owner: None }.run(node);
}

/// Like [`type_stage`], for values of the parameter at a dotted path.
pub(super) fn type_values<'a>(kind: StageKind, path: &str, values: impl IntoIterator<Item = &'a mut Node>) {
    let mut errors = Errors::default();
    let mut validator = Validator { root: of(kind), errors: &mut errors, owner: None };
    let Some(schema) = validator.at(validator.root, path) else { return };
    for value in values {
        validator.check(schema, &mut String::new(), value);
        // A full error list would stop the checks.
        *validator.errors = Errors::default();
    }
}

struct Validator<'a> {
    root: &'static Json,
    errors: &'a mut Errors,
    /// The name of the stage and its span, if required keys are to be checked.
    owner: Option<(&'a str, Span)>,
}

impl Validator<'_> {
    fn run(mut self, node: &mut Node) {
        self.check(self.root, &mut String::new(), node);
    }

    fn resolve(&self, schema: &'static Json) -> &'static Json {
        // A reference points to a definition of the same schema: `#/$defs/Name`.
        let target = schema["$ref"].as_str().and_then(|r| self.root.pointer(r.strip_prefix('#')?));
        target.unwrap_or(schema)
    }

    /// Returns the schema of the parameter at a dotted path; with alternatives, from the first one that has the
    /// parameter.
    fn at(&self, schema: &'static Json, path: &str) -> Option<&'static Json> {
        if path.is_empty() {
            return Some(schema);
        }
        let schema = self.resolve(schema);
        for alternatives in ["anyOf", "oneOf"] {
            if let Some(options) = schema[alternatives].as_array() {
                return options.iter().find_map(|option| self.at(option, path));
            }
        }
        let (key, rest) = path.split_once('.').unwrap_or((path, ""));
        if let Some(property) = schema["properties"].get(key) {
            return self.at(property, rest);
        }
        let other = schema["additionalProperties"].is_object().then(|| &schema["additionalProperties"])?;
        // User-defined names may contain dots.
        match self.resolve(other)["properties"].is_object() {
            false => Some(other),
            true => path.match_indices('.').find_map(|(dot, _)| self.at(other, &path[dot + 1..])).or(Some(other)),
        }
    }

    /// Validates `node` against `schema`. `path` is the path of `node` in its stage, for messages; it is unchanged on
    /// return.
    fn check(&mut self, schema: &'static Json, path: &mut String, node: &mut Node) {
        if self.errors.is_full() {
            return;
        }
        let schema = self.resolve(schema);
        if let Some(options) = schema["anyOf"].as_array() {
            let is_null = |s: &&Json| s["type"] == "null";
            if !(node.is_null() && options.iter().any(|s| is_null(&s)))
                && let Some(option) = self.option_for(options, node)
            {
                self.check(option, path, node);
            }
            return;
        }
        if let Some(options) = schema["oneOf"].as_array() {
            return match discriminator(options) {
                Some(tag) => self.check_tagged(options, tag, path, node),
                None => self.check_enum(options.iter().filter_map(|o| o["const"].as_str()).collect(), path, node),
            };
        }
        let types: Vec<&str> = match &schema["type"] {
            Json::String(one) => vec![one],
            Json::Array(several) => several.iter().filter_map(Json::as_str).collect(),
            _ => return,
        };
        if node.is_null() && types.contains(&"null") {
            return;
        }
        match types[0] {
            "object" => self.check_object(schema, path, node),
            "array" => self.check_array(schema, path, node),
            "string" => self.check_string(path, node),
            "boolean" => self.check_boolean(path, node),
            "integer" => self.check_number(schema, true, path, node),
            "number" => self.check_number(schema, false, path, node),
            _ => {}
        }
    }

    /// Returns the alternative for `node`, ignoring null: that for mappings if it is one, otherwise the first other
    /// one.
    fn option_for(&self, options: &'static [Json], node: &Node) -> Option<&'static Json> {
        let is_object = |s: &'static Json| {
            let resolved = self.resolve(s);
            resolved["type"] == "object" || resolved["oneOf"].is_array()
        };
        let mut candidates = options.iter().filter(|s| s["type"] != "null");
        let wanted = candidates.clone().find(|&s| is_object(s) == node.as_mapping().is_some());
        wanted.or_else(|| candidates.next())
    }

    /// Reports that `node` does not have the expected value.
    fn expected(&mut self, what: &str, path: &str, node: &Node, help: Option<String>) {
        let message = match path {
            "" => format!("expected {what}, found {}", node.describe()),
            _ => format!("`{path}` must be {what}, found {}", node.describe()),
        };
        let help = node.as_text().and_then(odd_character).or(help);
        self.errors.push(Diagnostic::new(node.span, message).maybe_help(help));
    }
}

/// Returns the property whose constant distinguishes the alternatives; None if they are strings.
fn discriminator(options: &'static [Json]) -> Option<&'static str> {
    let properties = options.first()?["properties"].as_object()?;
    properties.iter().find(|(_, p)| p["const"].is_string()).map(|(name, _)| name.as_str())
}
