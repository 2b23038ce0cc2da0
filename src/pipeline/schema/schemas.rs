//! The JSON Schemas of stage kinds and of pipeline files.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use schemars::schema_for;
use serde_json::{Value as Json, json};

use super::super::aliases;
use crate::config::{CommonParams, ExecutorKind, StageKind};

/// Returns the schema of a stage kind's parameters, without `kind` itself.
pub fn of(kind: StageKind) -> &'static Json {
    static SCHEMAS: OnceLock<BTreeMap<StageKind, Json>> = OnceLock::new();
    let schema_of = |&kind: &StageKind| (kind, with_common(kind.schema().into()));
    &SCHEMAS.get_or_init(|| StageKind::ALL.iter().map(schema_of).collect())[&kind]
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
    aliases::rename_in_schema_defaults(&mut schema);
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
