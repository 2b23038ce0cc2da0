//! One value per metric.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::config::metrics::Metric;

/// The value of each applicable metric by id, in the order of [`Metric::ALL`]. Unknown metrics, as written by newer
/// versions, are skipped on reading.
///
/// PSNR is at most [`finite_psnr`](crate::metrics::finite_psnr).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<Metric, f64>);

impl<'de> Deserialize<'de> for Figures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        Ok(Self::from_fn(|metric| all.get(metric.field())?.as_f64()))
    }
}

impl Figures {
    pub(super) fn from_fn(value: impl Fn(Metric) -> Option<f64>) -> Self {
        Self(Metric::ALL.iter().filter_map(|&metric| Some((metric, value(metric)?))).collect())
    }

    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0.get(&metric).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies `of`, such as the mean, to each metric; metrics that some inputs lack are omitted.
    pub(super) fn over(all: &[Self], of: impl Fn(&[f64]) -> f64) -> Self {
        Self::from_fn(|metric| {
            let values: Option<Vec<f64>> = all.iter().map(|figures| figures.get(metric)).collect();
            values.filter(|values| !values.is_empty()).map(|values| of(&values))
        })
    }
}

/// Serialises metrics with `_sd` appended to their names.
pub mod deviations {
    use std::collections::BTreeMap;

    use serde::de::{Deserialize, Deserializer, Error as _};
    use serde::ser::{Error as _, Serialize, Serializer};
    use serde_json::{Map, Value};

    use super::Figures;

    const SUFFIX: &str = "_sd";

    pub fn serialize<S: Serializer>(figures: &Option<Figures>, serializer: S) -> Result<S::Ok, S::Error> {
        let value = serde_json::to_value(figures).map_err(S::Error::custom)?;
        let named = value.as_object().into_iter().flatten().map(|(name, value)| (format!("{name}{SUFFIX}"), value));
        named.collect::<BTreeMap<_, _>>().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Figures>, D::Error> {
        let all = BTreeMap::<String, Value>::deserialize(deserializer)?;
        let named = all.into_iter().filter_map(|(name, value)| Some((name.strip_suffix(SUFFIX)?.to_string(), value)));
        let named: Map<String, Value> = named.collect();
        if named.is_empty() {
            Ok(None)
        } else {
            Figures::deserialize(Value::Object(named)).map(Some).map_err(D::Error::custom)
        }
    }
}
