//! Serialises maps of floats as JSON, with infinities and NaN as the strings `"inf"`, `"-inf"` and `"NaN"`. Use with
//! `#[serde(with = "json_float")]`.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Number {
    Finite(f64),
    Other(String),
}

pub fn serialize<S: Serializer>(numbers: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
    let number = |&v: &f64| if v.is_finite() { Number::Finite(v) } else { Number::Other(v.to_string()) };
    let numbers: BTreeMap<&String, Number> = numbers.iter().map(|(name, v)| (name, number(v))).collect();
    numbers.serialize(serializer)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let number = |number| match number {
        Number::Finite(v) => Ok(v),
        Number::Other(text) => text.parse().map_err(|_| D::Error::custom(format!("{text:?} is not a number"))),
    };
    let numbers = BTreeMap::<String, Number>::deserialize(deserializer)?;
    numbers.into_iter().map(|(name, v)| Ok((name, number(v)?))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Values(#[serde(with = "super")] BTreeMap<String, f64>);

    #[test]
    fn infinities_and_nan_survive_a_round_trip() {
        let values = [("a", 0.1), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY), ("d", f64::NAN), ("e", 3.0)];
        let json = serde_json::to_string(&Values(values.map(|(k, v)| (k.to_string(), v)).into())).unwrap();
        assert_eq!(json, r#"{"a":0.1,"b":"inf","c":"-inf","d":"NaN","e":3.0}"#);
        let back = serde_json::from_str::<Values>(&json).unwrap().0;
        for (name, value) in values {
            assert!(back[name] == value || (value.is_nan() && back[name].is_nan()), "{name}");
        }
        assert!(serde_json::from_str::<Values>(r#"{"a":"many"}"#).is_err());
    }
}
