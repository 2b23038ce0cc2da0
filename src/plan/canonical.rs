//! One spelling of every JSON value, so that equal values hash alike whoever serialised them.

use serde_json::{Number, Value};

/// Compact JSON: members sorted by their names' bytes, integers in decimal, other numbers as the shortest digits that
/// read back the same, in scientific notation (`1e-4`), negative zero as zero.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => text.push_str(&value.to_string()),
        Value::Number(number) => text.push_str(&spell(number)),
        Value::Array(items) => {
            list(items, text, '[', ']', write);
        }
        Value::Object(members) => {
            // serde_json's own order depends on a feature that any crate of the build can turn on.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| name.as_bytes());
            list(members, text, '{', '}', |(name, value), text| {
                write(&Value::String(name.clone()), text);
                text.push(':');
                write(value, text);
            });
        }
    }
}

fn list<T>(items: impl IntoIterator<Item = T>, text: &mut String, open: char, close: char, one: fn(T, &mut String)) {
    text.push(open);
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        one(item, text);
    }
    text.push(close);
}

/// std's formatting, which promises the shortest digits; serde_json's may change its style from version to version.
fn spell(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => format!("{:e}", if value == 0.0 { 0.0 } else { value }),
        _ => number.to_string(),
    }
}
