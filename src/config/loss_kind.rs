//! The kind of a validation loss, which determines whether two losses are comparable.

use serde_json::{Map, Value};

use super::{DiffusionParams, PredictionType, Target};

/// What the losses of a training run measure. Losses of different kinds are not comparable.
///
/// Claims, selections, differences from a control, best arms, the lead in training and `diff` all follow this rule.
/// Charts of losses follow it except for the data and the number of images.
#[derive(Debug, Clone, PartialEq)]
pub struct LossKind {
    /// The diffusion parameters that define the loss.
    diffusion: Map<String, Value>,
    /// The maximum number of validation images.
    images: usize,
    /// Identifies the training and validation images.
    data: String,
}

impl LossKind {
    /// Creates the kind of the loss of a training run. `data` identifies its images: equal images have equal
    /// identifiers.
    pub fn new(diffusion: &DiffusionParams, images: usize, data: String) -> Self {
        Self { diffusion: Self::parameters(diffusion), images, data }
    }

    /// Returns the diffusion parameters that define the validation loss, which is never weighted.
    pub fn parameters(diffusion: &DiffusionParams) -> Map<String, Value> {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(diffusion) else {
            unreachable!("a struct is an object")
        };
        let mut leave_out = |names: &[&str]| names.iter().for_each(|name| drop(fields.remove(*name)));
        leave_out(&["loss_weighting", "min_snr_gamma"]);
        if diffusion.objective == PredictionType::Regression {
            leave_out(&["schedule", "timesteps", "beta_start", "beta_end"]);
        }
        if !diffusion.schedule.has_betas() {
            leave_out(&["beta_start", "beta_end"]);
        }
        if diffusion.target == Target::Image {
            leave_out(&["residual_scale"]);
        }
        fields
    }

    /// Returns the name of the first parameter that differs; `None` if the losses are comparable.
    pub fn difference(&self, other: &Self) -> Option<String> {
        // These come first because they determine which other parameters apply.
        let names = ["objective", "target", "schedule"].map(String::from).into_iter();
        let mut names = names.chain(self.diffusion.keys().chain(other.diffusion.keys()).cloned());
        let of_diffusion = names.find(|name| self.diffusion.get(name) != other.diffusion.get(name));
        let images = (self.images != other.images).then(|| "validation.images".to_string());
        let data = (self.data != other.data).then(|| "data".to_string());
        of_diffusion.map(|name| format!("diffusion.{name}")).or(images).or(data)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LossWeighting, ScheduleKind};
    use super::*;

    #[test]
    fn the_first_parameter_that_changes_the_loss_is_found() {
        let v = DiffusionParams::default();
        let of = |diffusion: &DiffusionParams| LossKind::new(diffusion, 8, "a".into());
        let difference = |diffusion: DiffusionParams| of(&v).difference(&of(&diffusion));
        assert_eq!(difference(v.clone()), None);
        let regression = DiffusionParams { objective: PredictionType::Regression, timesteps: 7, ..v.clone() };
        assert_eq!(difference(regression).unwrap(), "diffusion.objective");
        let linear = DiffusionParams { schedule: ScheduleKind::Linear, ..v.clone() };
        assert_eq!(difference(linear).unwrap(), "diffusion.schedule");
        let scaled = DiffusionParams { residual_scale: Some(4.0), ..v.clone() };
        assert_eq!(difference(scaled).unwrap(), "diffusion.residual_scale");
        // The validation loss is not weighted, and the cosine schedule has no betas.
        let weighted = DiffusionParams { loss_weighting: LossWeighting::MinSnr, beta_end: 0.1, ..v.clone() };
        assert_eq!(difference(weighted), None);
        let others = |images: usize, data: &str| of(&v).difference(&LossKind::new(&v, images, data.into()));
        assert_eq!((others(9, "b").unwrap(), others(8, "b").unwrap()), ("validation.images".into(), "data".into()));
    }
}
