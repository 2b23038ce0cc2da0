//! Validates mappings and tagged alternatives against their schemas.

use serde_json::Value as Json;

use super::super::diagnostics::Diagnostic;
use super::super::text::{alternatives, did_you_mean, list, nearest, odd_character, quote};
use super::super::tree::Node;
use super::Validator;

impl Validator<'_> {
    pub(super) fn check_object(&mut self, schema: &'static Json, path: &mut String, node: &mut Node) {
        self.check_object_of(schema, None, path, node);
    }

    /// Like `check_object`, for the alternative `variant` that the tag selects.
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
    pub(super) fn check_tagged(&mut self, options: &'static [Json], tag: &str, path: &mut String, node: &mut Node) {
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
