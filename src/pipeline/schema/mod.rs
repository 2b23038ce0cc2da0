//! Validation against the JSON Schema of the parameter types, with the place of every error. Here are mappings and
//! alternatives; `values` has what they hold.
//!
//! The schemas are those that schemars derives from [`params`](super::params), so that the types stay the one
//! description of the file. Interpreted are the keywords that occur there; a test holds that no other does.

mod reference;
mod values;

use std::sync::OnceLock;

use schemars::schema_for;
use serde_json::{Value as Json, json};

use super::aliases;
use super::diagnostics::{Diagnostic, Errors, Span};
use super::tree::Node;
use super::words::{alternatives, did_you_mean, list, nearest, odd_character, quote};
use crate::config::CommonParams;
use crate::config::StageKind;
use crate::config::*;

pub use reference::reference;
pub(super) use values::number_help;

/// The schema of the parameters of a stage kind, without `kind` itself.
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

/// The JSON Schema (draft 2020-12) of whole pipeline files, for editors and other programs. srpipe itself holds files
/// against the same schemas of kinds, and beyond that checks what a schema cannot say.
pub fn file() -> Json {
    let mut definitions = serde_json::Map::new();
    let mut defaults = serde_json::Map::new();
    let mut kinds = vec![];
    for kind in StageKind::ALL {
        // The definitions of all kinds go into one place, where references find them.
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
        // What `defaults` give need not stand in the stage, and the other way round.
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
            "name": { "description": "The pipeline's name; its runs lie in `runs/NAME/`.", "type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$" },
            "description": { "description": "What it is for, in tables and reports.", "type": ["string", "null"] },
            "seed": {
                "description": "What all that is random is drawn from, where a stage does not say its own.",
                "type": "integer",
                "minimum": 0,
                "default": 0,
            },
            "device": {
                "description": "Where networks run: `auto` takes a GPU where there is one.",
                "type": "string", "pattern": "^(auto|cpu|cuda(:[0-9]+)?)$",
                "default": "auto",
            },
            "executor": {
                "description": "What runs stages: this machine, or a Slurm cluster; the command line goes before it, your settings after.",
                "enum": ExecutorKind::names(),
            },
            "matrix": { "$ref": "#/$defs/matrix" },
            "defaults": {
                "description": "Merged under every stage of the kind.",
                "type": ["object", "null"],
                "additionalProperties": false,
                "properties": defaults,
            },
            "stages": {
                "description": "The stages by their names, each with its `kind`.",
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

/// A sweep. What an axis may hold is what its parameter may, which this schema does not say.
fn matrix() -> Json {
    let combinations = json!({ "type": "array", "items": { "type": "object", "minProperties": 1 } });
    json!({
        "description": "Parameters, by their paths, with the values that they take.",
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

/// The schema, or each of those that it chooses from.
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

/// Adds what every stage may have to the schema of a kind, and to each of its alternatives.
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

/// Checks the parameters of a stage. Numbers become what their parameter is: `1e3` an integer, a digest of digits a
/// text.
pub(super) fn validate_stage(kind: StageKind, stage: &str, key: Span, node: &mut Node, errors: &mut Errors) {
    aliases::replace(kind, node);
    Validator { root: of(kind), errors, owner: Some((stage, key)) }.run(node);
}

/// Checks `defaults.<kind>`: as a stage, but nothing is required.
pub(super) fn validate_defaults(kind: StageKind, node: &mut Node, errors: &mut Errors) {
    aliases::replace(kind, node);
    Validator { root: of(kind), errors, owner: None }.run(node);
}

/// Converts each value of a stage to the type of its parameter: `3.10` becomes a number for a number, and the text as
/// written for a text. Values that do not match stay unchanged.
pub(super) fn type_stage(kind: StageKind, node: &mut Node) {
    aliases::replace(kind, node);
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
    /// The stage that must have the required keys; nobody's where only defaults are checked.
    owner: Option<(&'a str, Span)>,
}

impl Validator<'_> {
    fn run(mut self, node: &mut Node) {
        self.check(self.root, &mut String::new(), node);
    }

    fn resolve(&self, schema: &'static Json) -> &'static Json {
        // A reference names a definition of the same schema: `#/$defs/Name`.
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
        // Names that the user chose may contain dots.
        match self.resolve(other)["properties"].is_object() {
            false => Some(other),
            true => path.match_indices('.').find_map(|(dot, _)| self.at(other, &path[dot + 1..])).or(Some(other)),
        }
    }

    /// `path` is that of `node` in its stage, for messages; it is left as it was.
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
                None => self.check_words(options.iter().filter_map(|o| o["const"].as_str()).collect(), path, node),
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

    /// Of the alternatives that are not null, the one for a mapping or the first for anything else.
    fn option_for(&self, options: &'static [Json], node: &Node) -> Option<&'static Json> {
        let is_object = |s: &'static Json| {
            let resolved = self.resolve(s);
            resolved["type"] == "object" || resolved["oneOf"].is_array()
        };
        let mut there = options.iter().filter(|s| s["type"] != "null");
        let wanted = there.clone().find(|&s| is_object(s) == node.as_mapping().is_some());
        wanted.or_else(|| there.next())
    }

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

    /// `variant` names the alternative that the object's tag has chosen.
    fn check_object_of(&mut self, schema: &'static Json, variant: Option<&str>, path: &mut String, node: &mut Node) {
        let span = node.span;
        let Some(mapping) = node.as_mapping_mut() else {
            let help = self.keys_help(schema, node);
            return self.expected("a mapping", path, node, help);
        };
        let properties = schema["properties"].as_object();
        // Required keys that are there but misspelt: one error is enough.
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
                let place = match (variant, path.as_str()) {
                    (Some(variant), _) => format!(" of {variant}"),
                    (None, "") => String::new(),
                    (None, path) => format!(" in `{path}`"),
                };
                let help = self.unknown_key_help(schema, key, path);
                misspelt.extend(properties.and_then(|p| nearest(key, p.keys().map(String::as_str))));
                let message = format!("unknown key {}{place}", quote(key));
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
                    let place = if path.is_empty() { stage_key } else { span };
                    let mut required_path = path.clone();
                    extend(&mut required_path, required);
                    let message = format!("stage {} needs `{required_path}`", quote(stage));
                    let help = self.what_is(&schema["properties"][required]);
                    let help = help.map(|what| format!("`{required_path}`: {what}"));
                    self.errors.push(Diagnostic::new(place, message).maybe_help(help));
                }
            }
        }
    }

    /// What a mapping would have to hold: a word that stands without its key, or the keys there are.
    fn keys_help(&self, schema: &'static Json, node: &Node) -> Option<String> {
        let properties = schema["properties"].as_object().filter(|properties| !properties.is_empty())?;
        let meant = node.as_text().and_then(|text| {
            properties.iter().find_map(|(key, property)| {
                let words = self.resolve(property)["oneOf"].as_array()?;
                let word = nearest(text, words.iter().filter_map(|word| word["const"].as_str()))?;
                Some(format!("write `{{ {key}: {word} }}`"))
            })
        });
        let keys: Vec<&str> = properties.keys().map(String::as_str).collect();
        Some(meant.unwrap_or_else(|| format!("its keys: {}", keys.join(", "))))
    }

    /// What a key would have to be: a near one, the same deeper in, or any of those there are.
    fn unknown_key_help(&self, schema: &'static Json, key: &str, path: &str) -> String {
        let Some(properties) = schema["properties"].as_object() else {
            return "no keys are known here".to_string();
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
        format!("known here: {}", list(&keys))
    }

    /// A sentence on a parameter, from its documentation.
    fn what_is(&self, schema: &'static Json) -> Option<String> {
        let schema = if schema["description"].is_string() { schema } else { self.resolve(schema) };
        schema["description"].as_str().map(|d| d.replace('\n', " "))
    }

    /// An object whose key `tag` says which of `options` it is.
    fn check_tagged(&mut self, options: &'static [Json], tag: &str, path: &mut String, node: &mut Node) {
        let Some(mapping) = node.as_mapping() else {
            let names = options.iter().filter_map(|o| o["properties"][tag]["const"].as_str());
            let meant = node.as_text().and_then(|text| nearest(text, names));
            let help = meant.map(|name| format!("write `{{ {tag}: {name} }}`"));
            let help = help.unwrap_or_else(|| format!("with the key `{tag}`, and those that belong to it"));
            return self.expected("a mapping", path, node, Some(help));
        };
        let names: Vec<&str> = options.iter().filter_map(|o| o["properties"][tag]["const"].as_str()).collect();
        let chosen = match mapping.get(tag) {
            Some(entry) => {
                let mut tag_path = path.clone();
                extend(&mut tag_path, tag);
                let word = entry.node.as_text().filter(|t| names.contains(t));
                let Some(word) = word else {
                    let mut tag_node = entry.node.clone();
                    return self.check_words(names, &tag_path, &mut tag_node);
                };
                options.iter().find(|o| o["properties"][tag]["const"] == word).map(|o| (o, word.to_string()))
            }
            None => None,
        };
        if let Some((option, word)) = chosen {
            return self.check_object_of(option, Some(&format!("{tag} `{word}`")), path, node);
        }
        if let Some((stage, key)) = self.owner {
            let message = format!("stage {} needs `{tag}`", quote(stage));
            self.errors.push(Diagnostic::new(key, message).help(format!("one of {}", alternatives(&names))));
            return;
        }
        // Defaults that leave the choice to the stages: each key as in the first alternative that has it.
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
                    let known = options.iter().filter_map(|o| o["properties"].as_object()).flat_map(|p| p.keys());
                    let help = did_you_mean(key, known.map(String::as_str));
                    let message = format!("unknown key {}", quote(key));
                    self.errors.push(Diagnostic::new(entry.key, message).maybe_help(help));
                }
            }
        }
    }
}

fn extend(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    // The path goes into messages, and an arm's name is the user's.
    path.push_str(quote(key).trim_matches('`'));
}

/// The property whose constant tells the alternatives apart; `None` where they are words.
fn discriminator(options: &'static [Json]) -> Option<&'static str> {
    let properties = options.first()?["properties"].as_object()?;
    properties.iter().find(|(_, p)| p["const"].is_string()).map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_of_files_has_all_that_it_refers_to() {
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
    fn every_keyword_of_the_schemas_is_understood() {
        const INTERPRETED: &[&str] = &[
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
        const REMARKS: &[&str] = &["$defs", "$schema", "default", "description", "format", "title", "writeOnly"];
        fn walk(schema: &Json) {
            let Some(object) = schema.as_object() else { return };
            for (keyword, value) in object {
                assert!(INTERPRETED.contains(&keyword.as_str()) || REMARKS.contains(&keyword.as_str()), "{keyword}");
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
