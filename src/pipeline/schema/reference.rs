//! Renders the schema of pipeline files as a Markdown reference.

use std::fmt::Write;

use serde_json::Value as Json;

use crate::config::StageKind;

/// Parameters of all kinds, which are listed once.
const COMMON: [&str; 3] = ["resources", "retry", "matrix"];

/// Returns the reference of pipeline files as Markdown.
pub fn reference() -> String {
    let schema = super::file();
    let mut text = "# Pipeline files\n\n\
        Every parameter of a pipeline file. `srpipe schema --markdown` generates this page from the types that parse the \
        file.\n\nNested parameters are written with dots, as in `--set` and in `matrix`: `optim.lr` is `lr` in the \
        mapping `optim`. The default `null` means that the parameter is not set.\n\n## The file\n\n"
        .to_string();
    let page = Page { schema: &schema };
    page.table(&mut text, &schema, &[]);
    text += "\n## Every stage\n\nIn addition to `kind` and the parameters of the kind:\n\n";
    let train = &schema["properties"]["defaults"]["properties"]["train"];
    page.table(&mut text, train, &[]);
    for kind in StageKind::ALL {
        let schema = super::of(kind);
        let _ = write!(text, "\n## `kind: {}`\n\n{}\n", kind.name(), description(schema));
        match schema["oneOf"].as_array() {
            Some(options) => {
                for option in options {
                    let name = option["properties"]["dataset"]["const"].as_str().unwrap_or_default();
                    let _ = write!(text, "\n### `dataset: {name}`\n\n{}\n\n", description(option));
                    page.table(&mut text, option, &COMMON);
                }
            }
            None => {
                text.push('\n');
                page.table(&mut text, schema, &COMMON);
            }
        }
    }
    text
}

struct Page<'a> {
    schema: &'a Json,
}

impl Page<'_> {
    /// Writes a table of the parameters of a mapping, except those in `without`. For a stage with an empty `without`,
    /// writes only the parameters of all kinds.
    fn table(&self, text: &mut String, mapping: &Json, without: &[&str]) {
        text.push_str("| parameter | value | default | meaning |\n|---|---|---|---|\n");
        let is_stage = mapping["properties"].get("resources").is_some();
        let is_listed = |name: &str| match is_stage && without.is_empty() {
            true => COMMON.contains(&name),
            false => !without.contains(&name),
        };
        for (name, property) in mapping["properties"].as_object().into_iter().flatten() {
            if is_listed(name) && property.get("const").is_none() {
                let is_required = mapping["required"].as_array().is_some_and(|r| r.contains(&name.as_str().into()));
                self.row(text, name, property, property.get("default"), is_required);
            }
        }
    }

    /// Writes the row of a parameter and those of its nested parameters.
    fn row(&self, text: &mut String, path: &str, property: &Json, default: Option<&Json>, is_required: bool) {
        let target = self.target(property);
        let default = default.or(target.get("default"));
        let inner = target["properties"].as_object();
        let is_mapping = inner.is_some() && target["additionalProperties"] == false;
        // Stages have their own sections.
        let is_open = is_mapping && path != "defaults";
        let shown = match default {
            _ if is_required => "required".to_string(),
            Some(value) if !is_open => format!("`{value}`"),
            _ => String::new(),
        };
        let (own, general) = (description(property), description(target));
        let mut meaning = if own.is_empty() { general } else { own };
        for option in target["oneOf"].as_array().into_iter().flatten() {
            let _ = write!(meaning, "<br>`{}`: {}", option["const"].as_str().unwrap_or_default(), description(option));
        }
        let _ = writeln!(
            text,
            "| `{path}` | {} | {} | {} |",
            cell(&self.value(property)),
            cell(&shown),
            cell(meaning.trim_start_matches("<br>"))
        );
        if is_open {
            for (name, property) in inner.into_iter().flatten() {
                let given = default.and_then(|d| d.get(name)).or(property.get("default"));
                let is_required = target["required"].as_array().is_some_and(|r| r.contains(&name.as_str().into()));
                self.row(text, &format!("{path}.{name}"), property, given, is_required);
            }
        }
        let each = &target["additionalProperties"];
        if let Some(inner) = each.is_object().then(|| self.target(each)["properties"].as_object()).flatten() {
            let entry = self.target(each);
            for (name, property) in inner.iter().filter(|_| path != "stages") {
                let is_required = entry["required"].as_array().is_some_and(|r| r.contains(&name.as_str().into()));
                self.row(text, &format!("{path}.NAME.{name}"), property, property.get("default"), is_required);
            }
        }
    }

    /// Resolves references, and optional values to their non-null alternative.
    fn target<'a>(&'a self, schema: &'a Json) -> &'a Json {
        if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
            return self.target(&self.schema["$defs"][name]);
        }
        match schema["anyOf"].as_array().map(Vec::as_slice) {
            Some([only, null]) if null["type"] == "null" => self.target(only),
            _ => schema,
        }
    }

    /// Describes the valid values: a type with its range, or a list of options.
    fn value(&self, schema: &Json) -> String {
        let target = self.target(schema);
        if let Some(options) = target["anyOf"].as_array() {
            return options.iter().map(|option| self.value(option)).collect::<Vec<_>>().join(", or ");
        }
        let options = target["oneOf"].as_array().map(|o| o.iter().map(|option| option["const"].clone()).collect());
        if let Some(options) = target["enum"].as_array().cloned().or(options) {
            return options.iter().map(|o| format!("`{}`", plain(o))).collect::<Vec<_>>().join(", ");
        }
        let kinds = match &target["type"] {
            Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).collect(),
            kind => vec![kind.as_str().unwrap_or("value")],
        };
        let kind = kinds.iter().find(|k| **k != "null").copied().unwrap_or("value");
        let named = match kind {
            "string" => "string".to_string(),
            "boolean" => "`true`, `false`".to_string(),
            "integer" => format!("integer{}", range(target)),
            "array" if target["items"].is_object() => format!("list of: {}", self.value(&target["items"])),
            "array" => "list".to_string(),
            "object" if target["additionalProperties"].is_object() => {
                format!("mapping of names to: {}", self.value(&target["additionalProperties"]))
            }
            "object" => "mapping".to_string(),
            "number" => format!("number{}", range(target)),
            other => other.to_string(),
        };
        let may_be_null = kinds.contains(&"null") || schema["anyOf"].is_array();
        if may_be_null { format!("{named}, or `null`") } else { named }
    }
}

fn range(schema: &Json) -> String {
    let bound = |key: &str, label: &str| schema.get(key).map(|bound| format!(" {label} {bound}"));
    let low = bound("minimum", "from").or(bound("exclusiveMinimum", "above"));
    let high = bound("maximum", "to").or(bound("exclusiveMaximum", "below"));
    low.into_iter().chain(high).collect()
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// Returns the description of a schema on one line.
fn description(schema: &Json) -> String {
    schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
