//! Validates stages against the JSON Schemas of their parameter types, and reports each error with its span.
//!
//! schemars derives the schemas from the types in [`config`](crate::config), which are thus the only description of the
//! file format. This file validates mappings and alternatives, and `values` validates the values in them; they support
//! the keywords that these schemas use, which a test ensures. `reference` renders the schemas as Markdown.

mod reference;
mod values;

use std::sync::OnceLock;

use schemars::schema_for;
use serde_json::{Value as Json, json};

use super::diagnostics::{Diagnostic, Errors, Span};
use super::text::{alternatives, did_you_mean, list, nearest, odd_character, quote};
use super::tree::Node;
use crate::config::CommonParams;
use crate::config::StageKind;
use crate::config::*;

pub use reference::reference;
pub(super) use values::number_help;

/// Returns the schema of a stage kind's parameters, without `kind` itself.
pub(super) fn of(kind: StageKind) -> &'static Json {
    static SCHEMAS: OnceLock<[Json; 6]> = OnceLock::new();
    let schemas = SCHEMAS.get_or_init(|| {
        [
            schema_for!(FetchParams),
            schema_for!(DegradeParams),
            schema_for!(TrainParams),
            schema_for!(SampleParams),
            schema_for!(CompareParams),
            schema_for!(CommandParams),
        ]
        .map(|schema| with_common(schema.into()))
    });
    &schemas[kind as usize]
}

/// Returns the JSON Schema (draft 2020-12) of pipeline files, for editors and other programs. srpipe itself uses the
/// schemas of the kinds, and additionally checks what a schema cannot express.
pub fn file() -> Json {
    let mut definitions = serde_json::Map::new();
    let mut defaults = serde_json::Map::new();
    let mut kinds = vec![];
    for kind in StageKind::ALL {
        // Collect the definitions of all kinds in one place, where references resolve.
        let mut schema = of(kind).clone();
        if let Some(Json::Object(own)) = schema.as_object_mut().and_then(|schema| schema.remove("$defs")) {
            definitions.extend(own);
        }
        schema.as_object_mut().map(|schema| schema.remove("$schema"));
        let mut whole = schema.clone();
        let add_kind = |object: &mut Json| {
            add_property(object, "kind", json!({ "const": kind.name() }));
        };
        let add_matrix = |object: &mut Json| add_property(object, "matrix", json!({ "$ref": "#/$defs/matrix" }));
        for_each_alternative(&mut whole, add_kind);
        for_each_alternative(&mut whole, add_matrix);
        for_each_alternative(&mut schema, add_matrix);
        // A required parameter may be set in the stage or in `defaults`.
        without_required(&mut whole);
        without_required(&mut schema);
        whole["required"] = json!(["kind"]);
        definitions.insert(format!("stage_{}", kind.name()), whole);
        defaults.insert(kind.name().to_string(), schema);
        kinds.push(json!({
            "if": { "properties": { "kind": { "const": kind.name() } } },
            "then": { "$ref": format!("#/$defs/stage_{}", kind.name()) },
        }));
    }
    definitions.insert("matrix".to_string(), matrix());
    let names: Vec<&str> = StageKind::ALL.iter().map(|kind| kind.name()).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "srpipe pipeline",
        "type": "object",
        "required": ["name", "stages"],
        "additionalProperties": false,
        "properties": {
            "name": { "description": "The name of the pipeline. Its runs are stored in `runs/NAME/`.", "type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$" },
            "description": { "description": "A description for tables and reports.", "type": ["string", "null"] },
            "seed": {
                "description": "The seed of all random numbers, unless a stage sets its own.",
                "type": "integer",
                "minimum": 0,
                "default": 0,
            },
            "device": {
                "description": "The device that runs networks. `auto` uses a GPU if there is one.",
                "type": "string", "pattern": "^(auto|cpu|cuda(:[0-9]+)?)$",
                "default": "auto",
            },
            "executor": {
                "description": "What runs the stages: this machine or a Slurm cluster. The command line overrides it; it overrides your settings.",
                "enum": ExecutorKind::names(),
            },
            "matrix": { "$ref": "#/$defs/matrix" },
            "defaults": {
                "description": "Default parameters for all stages of a kind.",
                "type": ["object", "null"],
                "additionalProperties": false,
                "properties": defaults,
            },
            "stages": {
                "description": "The stages by name, each with a `kind`.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$" },
                "additionalProperties": {
                    "type": "object",
                    "required": ["kind"],
                    "properties": { "kind": { "enum": names } },
                    "allOf": kinds,
                },
            },
        },
        "$defs": definitions,
    })
}

/// Returns the schema of a matrix. It does not restrict the values of an axis to those of its parameter.
fn matrix() -> Json {
    let combinations = json!({ "type": "array", "items": { "type": "object", "minProperties": 1 } });
    json!({
        "description": "The swept parameters by path, each with a list of values.",
        "type": ["object", "null"],
        "properties": { "exclude": combinations, "include": combinations },
        "additionalProperties": { "type": "array", "minItems": 1 },
    })
}

fn add_property(object: &mut Json, name: &str, schema: Json) {
    if let Some(properties) = object.get_mut("properties").and_then(Json::as_object_mut) {
        properties.insert(name.to_string(), schema);
    }
}

/// Calls `see` with the schema, or with each of its alternatives.
fn for_each_alternative(schema: &mut Json, mut see: impl FnMut(&mut Json)) {
    match schema.get_mut("oneOf").and_then(Json::as_array_mut) {
        Some(options) => options.iter_mut().for_each(see),
        None => see(schema),
    }
}

fn without_required(schema: &mut Json) {
    if let Some(object) = schema.as_object_mut() {
        object.remove("required");
        object.get_mut("oneOf").and_then(Json::as_array_mut).into_iter().flatten().for_each(without_required);
    }
}

/// Adds the parameters that all kinds have to the schema of a kind and to each of its alternatives.
fn with_common(mut schema: Json) -> Json {
    let mut common = Json::from(schema_for!(CommonParams));
    let definitions = common["$defs"].take();
    let add = |object: &mut Json| {
        if let Some(properties) = object.get_mut("properties").and_then(Json::as_object_mut) {
            properties.extend(common["properties"].as_object().cloned().unwrap_or_default());
        }
    };
    for_each_alternative(&mut schema, add);
    if !schema["$defs"].is_object() {
        schema["$defs"] = Json::Object(Default::default());
    }
    if let (Some(own), Json::Object(more)) = (schema["$defs"].as_object_mut(), definitions) {
        own.extend(more);
    }
    schema
}

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

/// As [`type_stage`], for values of the parameter at a dotted path.
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

    fn check_object(&mut self, schema: &'static Json, path: &mut String, node: &mut Node) {
        self.check_object_of(schema, None, path, node);
    }

    /// As `check_object`, for the alternative `variant` that the tag selects.
    fn check_object_of(&mut self, schema: &'static Json, variant: Option<&str>, path: &mut String, node: &mut Node) {
        let span = node.span;
        let Some(mapping) = node.as_mapping_mut() else {
            let help = self.keys_help(schema, node);
            return self.expected("a mapping", path, node, help);
        };
        let properties = schema["properties"].as_object();
        // Misspelled required keys are reported once, not also as missing.
        let mut misspelt = vec![];
        for (key, entry) in mapping.iter_mut() {
            let length = path.len();
            if let Some(property) = properties.and_then(|p| p.get(key)) {
                extend(path, key);
                self.check(property, path, &mut entry.node);
            } else if schema["additionalProperties"].is_object() {
                extend(path, key);
                self.check(&schema["additionalProperties"], path, &mut entry.node);
            } else if schema["additionalProperties"] == false && !self.errors.is_full() {
                let owner = match (variant, path.as_str()) {
                    (Some(variant), _) => format!(" of {variant}"),
                    (None, "") => String::new(),
                    (None, path) => format!(" in `{path}`"),
                };
                let help = self.unknown_key_help(schema, key, path);
                misspelt.extend(properties.and_then(|p| nearest(key, p.keys().map(String::as_str))));
                let message = format!("unknown key {}{owner}", quote(key));
                self.errors.push(Diagnostic::new(entry.key, message).help(help));
            }
            path.truncate(length);
        }
        let least = schema["minProperties"].as_u64().unwrap_or(0) as usize;
        if mapping.len() < least {
            let entries = if least == 1 { "entry" } else { "entries" };
            let message = format!("`{path}` must have at least {least} {entries}");
            self.errors.push(Diagnostic::new(span, message));
        }
        if let Some((stage, stage_key)) = self.owner {
            for required in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
                if !mapping.contains_key(required) && !misspelt.contains(&required) {
                    let span = if path.is_empty() { stage_key } else { span };
                    let mut required_path = path.clone();
                    extend(&mut required_path, required);
                    let message = format!("stage {} needs `{required_path}`", quote(stage));
                    let help = self.description(&schema["properties"][required]);
                    let help = help.map(|description| format!("`{required_path}`: {description}"));
                    self.errors.push(Diagnostic::new(span, message).maybe_help(help));
                }
            }
        }
    }

    /// Returns help for another value where a mapping is expected: the key that belongs to the value, or all keys.
    fn keys_help(&self, schema: &'static Json, node: &Node) -> Option<String> {
        let properties = schema["properties"].as_object().filter(|properties| !properties.is_empty())?;
        let meant = node.as_text().and_then(|text| {
            properties.iter().find_map(|(key, property)| {
                let options = self.resolve(property)["oneOf"].as_array()?;
                let option = nearest(text, options.iter().filter_map(|option| option["const"].as_str()))?;
                Some(format!("write `{{ {key}: {option} }}`"))
            })
        });
        let keys: Vec<&str> = properties.keys().map(String::as_str).collect();
        Some(meant.unwrap_or_else(|| format!("valid keys: {}", keys.join(", "))))
    }

    /// Returns help for an unknown key: a similar key, a similar key deeper in, or all keys.
    fn unknown_key_help(&self, schema: &'static Json, key: &str, path: &str) -> String {
        let Some(properties) = schema["properties"].as_object() else {
            return "no keys are allowed here".to_string();
        };
        let meant = odd_character(key).or_else(|| did_you_mean(key, properties.keys().map(String::as_str)));
        if let Some(meant) = meant {
            return meant;
        }
        let nested = properties.iter().find_map(|(outer, property)| {
            let inner = self.resolve(property)["properties"].as_object()?;
            nearest(key, inner.keys().map(String::as_str)).map(|meant| format!("{outer}.{meant}"))
        });
        if let Some(nested) = nested {
            let mut full = path.to_string();
            extend(&mut full, &nested);
            return format!("did you mean `{full}`?");
        }
        let keys: Vec<&str> = properties.keys().map(String::as_str).collect();
        format!("valid keys: {}", list(&keys))
    }

    /// Returns the description of a parameter.
    fn description(&self, schema: &'static Json) -> Option<String> {
        let schema = if schema["description"].is_string() { schema } else { self.resolve(schema) };
        schema["description"].as_str().map(|d| d.replace('\n', " "))
    }

    /// Validates a mapping whose key `tag` selects one of `options`.
    fn check_tagged(&mut self, options: &'static [Json], tag: &str, path: &mut String, node: &mut Node) {
        let Some(mapping) = node.as_mapping() else {
            let names = options.iter().filter_map(|o| o["properties"][tag]["const"].as_str());
            let meant = node.as_text().and_then(|text| nearest(text, names));
            let help = meant.map(|name| format!("write `{{ {tag}: {name} }}`"));
            let help = help.unwrap_or_else(|| format!("set `{tag}` and the keys that belong to it"));
            return self.expected("a mapping", path, node, Some(help));
        };
        let names: Vec<&str> = options.iter().filter_map(|o| o["properties"][tag]["const"].as_str()).collect();
        let chosen = match mapping.get(tag) {
            Some(entry) => {
                let mut tag_path = path.clone();
                extend(&mut tag_path, tag);
                let name = entry.node.as_text().filter(|t| names.contains(t));
                let Some(name) = name else {
                    let mut tag_node = entry.node.clone();
                    return self.check_enum(names, &tag_path, &mut tag_node);
                };
                options.iter().find(|o| o["properties"][tag]["const"] == name).map(|o| (o, name.to_string()))
            }
            None => None,
        };
        if let Some((option, name)) = chosen {
            return self.check_object_of(option, Some(&format!("{tag} `{name}`")), path, node);
        }
        if let Some((stage, key)) = self.owner {
            let message = format!("stage {} needs `{tag}`", quote(stage));
            self.errors.push(Diagnostic::new(key, message).help(format!("one of {}", alternatives(&names))));
            return;
        }
        // Defaults without the tag: validate each key against the first alternative that has it.
        let Some(mapping) = node.as_mapping_mut() else { return };
        for (key, entry) in mapping.iter_mut() {
            let length = path.len();
            match options.iter().find_map(|o| o["properties"].get(key)) {
                Some(property) => {
                    extend(path, key);
                    self.check(property, path, &mut entry.node);
                    path.truncate(length);
                }
                None => {
                    let keys = options.iter().filter_map(|o| o["properties"].as_object()).flat_map(|p| p.keys());
                    let help = did_you_mean(key, keys.map(String::as_str));
                    let message = format!("unknown key {}", quote(key));
                    self.errors.push(Diagnostic::new(entry.key, message).maybe_help(help));
                }
            }
        }
    }
}

/// Appends a key to a dotted path.
fn extend(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    // Paths appear in messages and may contain user-defined names.
    path.push_str(quote(key).trim_matches('`'));
}

/// Returns the property whose constant distinguishes the alternatives; None if they are strings.
fn discriminator(options: &'static [Json]) -> Option<&'static str> {
    let properties = options.first()?["properties"].as_object()?;
    properties.iter().find(|(_, p)| p["const"].is_string()).map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_in_the_file_schema_resolve() {
        let schema = file();
        fn references(value: &Json, found: &mut Vec<String>) {
            match value {
                Json::Object(members) => {
                    found.extend(members.get("$ref").and_then(Json::as_str).map(str::to_string));
                    members.values().for_each(|value| references(value, found));
                }
                Json::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let mut found = vec![];
        references(&schema, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            assert!(schema.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
        }
        assert_eq!(schema["$defs"]["stage_train"]["properties"]["kind"]["const"], "train");
        assert!(schema["$defs"]["stage_fetch"]["oneOf"][0]["properties"]["retry"].is_object());
    }

    #[test]
    fn every_keyword_of_the_schemas_is_supported() {
        const SUPPORTED: &[&str] = &[
            "$ref",
            "additionalProperties",
            "anyOf",
            "const",
            "enum",
            "exclusiveMaximum",
            "exclusiveMinimum",
            "items",
            "maxItems",
            "maximum",
            "minItems",
            "minProperties",
            "minimum",
            "oneOf",
            "properties",
            "required",
            "type",
        ];
        const ANNOTATIONS: &[&str] = &["$defs", "$schema", "default", "description", "format", "title", "writeOnly"];
        fn walk(schema: &Json) {
            let Some(object) = schema.as_object() else { return };
            for (keyword, value) in object {
                assert!(SUPPORTED.contains(&keyword.as_str()) || ANNOTATIONS.contains(&keyword.as_str()), "{keyword}");
                match keyword.as_str() {
                    "properties" | "$defs" => value.as_object().unwrap().values().for_each(walk),
                    "oneOf" | "anyOf" => value.as_array().unwrap().iter().for_each(walk),
                    "items" | "additionalProperties" => walk(value),
                    "format" => assert!(["uint", "uint64", "double"].contains(&value.as_str().unwrap()), "{value}"),
                    _ => {}
                }
            }
        }
        for kind in StageKind::ALL {
            walk(of(kind));
        }
    }
}
