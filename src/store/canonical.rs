//! Canonical JSON: equal values have the same text, and so the same hash, whatever serialised them.

use serde_json::{Number, Value};

/// Returns compact JSON with members sorted by the bytes of their names and integers in decimal. Other numbers have the
/// shortest digits that parse to the same value, in scientific notation (`1e-4`); negative zero becomes zero.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_value(value, &mut text);
    text
}

fn write_value(value: &Value, text: &mut String) {
    match value {
        Value::Null | Value::Bool(_) => text.push_str(&value.to_string()),
        Value::String(string) => write_string(string, text),
        Value::Number(number) => text.push_str(&format_number(number)),
        Value::Array(items) => {
            write_list(items, text, '[', ']', write_value);
        }
        Value::Object(members) => {
            // serde_json's order depends on a feature that any crate in the build can enable.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| name.as_bytes());
            write_list(members, text, '{', '}', |(name, value), text| {
                write_string(name, text);
                text.push(':');
                write_value(value, text);
            });
        }
    }
}

fn write_string(string: &str, text: &mut String) {
    if string.bytes().any(|b| b < b' ' || b == b'"' || b == b'\\') {
        text.push_str(&Value::from(string).to_string());
    } else {
        text.push('"');
        text.push_str(string);
        text.push('"');
    }
}

fn write_list<T>(
    items: impl IntoIterator<Item = T>,
    text: &mut String,
    open: char,
    close: char,
    write_item: fn(T, &mut String),
) {
    text.push(open);
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        write_item(item, text);
    }
    text.push(close);
}

/// Formats a number with std, which guarantees the shortest digits; serde_json's format may change between versions.
fn format_number(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => format!("{:e}", if value == 0.0 { 0.0 } else { value }),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_have_one_canonical_form() {
        let cases = [
            (json!({"b": 1, "a": [true, null, "x"], "B": {}}), r#"{"B":{},"a":[true,null,"x"],"b":1}"#),
            (json!([1e-4, 0.02, 1.0, 0.1 + 0.2, 1e300, 123.5]), "[1e-4,2e-2,1e0,3.0000000000000004e-1,1e300,1.235e2]"),
            (json!([-0.0, 0.0, 0]), "[0e0,0e0,0]"),
            (json!([u64::MAX, i64::MIN]), "[18446744073709551615,-9223372036854775808]"),
            (json!({"a\"\n": "é\u{1}\\"}), r#"{"a\"\n":"é\u0001\\"}"#),
            (json!([]), "[]"),
        ];
        for (value, text) in cases {
            assert_eq!(canonical_json(&value), text);
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn canonical_json_survives_a_round_trip(value in any_json()) {
            let text = canonical_json(&value);
            // In canonical form, and in serde_json's form, which action records use.
            prop_assert_eq!(&canonical_json(&serde_json::from_str(&text).unwrap()), &text);
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            prop_assert_eq!(&canonical_json(&serde_json::from_slice(&pretty).unwrap()), &text);
        }
    }
}
