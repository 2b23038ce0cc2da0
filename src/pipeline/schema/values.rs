//! Validates strings, numbers, booleans and lists against their schemas.

use serde_json::Value as Json;

use super::super::aliases;
use super::super::diagnostics::Diagnostic;
use super::super::text::{alternatives, did_you_mean, odd_character, quote};
use super::super::tree::{Node, Number, Value, plain_scalar};
use super::Validator;

impl Validator<'_> {
    pub(super) fn check_enum(&mut self, options: Vec<&str>, path: &str, node: &mut Node) {
        let text = match &node.value {
            Value::Text(text) if options.contains(&text.as_str()) || aliases::is_older_spelling(path, text) => return,
            Value::Number { text, .. } if options.contains(&text.as_str()) => {
                node.value = Value::Text(text.clone());
                return;
            }
            // The user may have meant `none`, but YAML reads null or false.
            Value::Null | Value::Bool(false) if options.contains(&"none") => Some("none"),
            _ => node.as_text(),
        };
        let meant = text.and_then(|t| did_you_mean(t, options.iter().copied()));
        self.expected(&alternatives(&options), path, node, meant);
    }

    pub(super) fn check_array(&mut self, schema: &'static Json, path: &mut String, node: &mut Node) {
        let length = |key: &str| schema[key].as_u64().map(|n| n as usize);
        let (least, most) = (length("minItems"), length("maxItems"));
        let Value::List(items) = &mut node.value else {
            return self.expected("a list", path, node, None);
        };
        if least.is_some_and(|n| items.len() < n) || most.is_some_and(|n| items.len() > n) {
            let count = |count: usize| if count == 1 { "1 item".to_string() } else { format!("{count} items") };
            let expected = match (least, most) {
                (Some(least), Some(most)) if least == most => count(least),
                (Some(least), None) => format!("at least {}", count(least)),
                (_, most) => format!("at most {}", count(most.unwrap_or_default())),
            };
            let message = format!("`{path}` must be a list of {expected}, found {}", count(items.len()));
            self.errors.push(Diagnostic::new(node.span, message));
            return;
        }
        for item in items {
            self.check(&schema["items"], path, item);
        }
    }

    pub(super) fn check_string(&mut self, path: &str, node: &mut Node) {
        match &node.value {
            Value::Text(_) => {}
            // A name or digest may consist of digits only.
            Value::Number { text, .. } => node.value = Value::Text(text.clone()),
            _ => self.expected("a string", path, node, text_help(node)),
        }
    }

    pub(super) fn check_number(&mut self, schema: &'static Json, integer: bool, path: &str, node: &mut Node) {
        let expected = if integer { "an integer" } else { "a number" };
        let Value::Number { number, .. } = &mut node.value else {
            return self.expected(expected, path, node, number_help(node));
        };
        if !number.as_f64().is_finite() {
            return self.expected("a finite number", path, node, None);
        }
        if let (true, Number::Real(x)) = (integer, *number) {
            // 1e3 is an integer. Beyond 2^53, f64 cannot represent every integer.
            if x.fract() != 0.0 || x.abs() > 9_007_199_254_740_992.0 {
                return self.expected(expected, path, node, None);
            }
            *number = Number::Integer(x as i128);
        }
        if let Some(allowed) = schema["enum"].as_array() {
            if !allowed.iter().any(|a| a.as_f64() == Some(number.as_f64())) {
                let allowed: Vec<String> = allowed.iter().map(Json::to_string).collect();
                self.expected(&alternatives(&allowed), path, node, None);
            }
            return;
        }
        let x = number.as_f64();
        let limit = |key: &str| schema[key].as_f64().map(|limit| (limit, &schema[key]));
        let range = match (limit("minimum"), limit("exclusiveMinimum"), limit("maximum"), limit("exclusiveMaximum")) {
            (Some((least, shown)), ..) if x < least => format!("at least {}", plain(shown)),
            (_, Some((above, shown)), ..) if x <= above => format!("greater than {}", plain(shown)),
            (_, _, Some((most, shown)), _) if x > most => format!("at most {}", plain(shown)),
            (_, _, _, Some((below, shown))) if x >= below => format!("less than {}", plain(shown)),
            // The range of the type.
            _ if integer && matches!(*number, Number::Integer(i) if u64::try_from(i).is_err()) => {
                format!("from 0 to {}", u64::MAX)
            }
            _ => return,
        };
        self.expected(&range, path, node, None);
    }

    pub(super) fn check_boolean(&mut self, path: &str, node: &Node) {
        if matches!(node.value, Value::Bool(_)) {
            return;
        }
        let meant = match node.as_text().map(|text| text.trim().to_lowercase()).as_deref() {
            // Without the quotes this would be a boolean.
            Some("true" | "false") if is_boolean(node) => Some("remove the quotes".to_string()),
            Some("true") => Some("did you mean `true`?".to_string()),
            Some("false") => Some("did you mean `false`?".to_string()),
            Some("yes" | "on" | "y" | "1") => Some("did you mean `true`?".to_string()),
            Some("no" | "off" | "n" | "0") => Some("did you mean `false`?".to_string()),
            _ => None,
        };
        self.expected("`true` or `false`", path, node, meant);
    }
}

/// Returns help for a string where a number is expected.
pub(in super::super) fn number_help(node: &Node) -> Option<String> {
    let Value::Text(text) = &node.value else { return None };
    let is_number = |text: &str| text.parse::<f64>().is_ok_and(f64::is_finite);
    if is_number(text) {
        return Some("remove the quotes".to_string());
    }
    if let Some(help) = odd_character(text) {
        return Some(help);
    }
    let starts_with_digit = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    let without = |c: char| text.replace(c, "");
    if text.contains('_') && starts_with_digit && is_number(&without('_')) {
        return Some(format!("YAML 1.2 does not allow `_` in numbers: write {}", quote(&without('_'))));
    }
    let (head, rest) = text.split_once(',')?;
    let groups = rest.split(',').all(|group| group.len() == 3 && group.bytes().all(|b| b.is_ascii_digit()));
    if groups && is_number(&without(',')) {
        return Some(format!("YAML does not allow `,` in numbers: write {}", quote(&without(','))));
    }
    let point = format!("{head}.{rest}");
    (starts_with_digit && is_number(&point)).then(|| format!("use `.` as the decimal point: write {}", quote(&point)))
}

/// Whether a string would be a boolean without its quotes.
fn is_boolean(node: &Node) -> bool {
    matches!(&node.value, Value::Text(text) if matches!(plain_scalar(text), Value::Bool(_)))
}

/// Returns help for another value where a string is expected.
fn text_help(node: &Node) -> Option<String> {
    match &node.value {
        Value::Bool(b) => Some(format!("quote it to make it a string: `\"{b}\"`")),
        Value::Null => Some("quote `~` and `null` to make them strings; the empty string is `\"\"`".to_string()),
        // A mapping with one key may be an unquoted string with a colon.
        Value::Mapping(mapping) if mapping.len() == 1 => mapping.keys().next().map(|key| {
            format!(
                "YAML reads {} as a key: quote strings with a colon before a space or at the end",
                quote(&format!("{key}:"))
            )
        }),
        _ => None,
    }
}

/// Formats a number without a trailing `.0`.
fn plain(number: &Json) -> String {
    let text = number.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_string)
}
