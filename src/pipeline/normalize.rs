//! Resets parameters that have no effect, because of another parameter, to their defaults. This way, they do not affect
//! stage keys, and checkpoints do not record unused values.

use crate::config::StageParams;
use crate::config::{
    AttentionKind, AttentionParams, DegradeMethod, DiffusionParams, LossWeighting, PredictionType, SamplerMethod,
    SamplerParams, Target,
};

impl StageParams {
    /// Resets the parameters that have no effect.
    pub(super) fn normalize(&mut self) {
        match self {
            Self::Train(p) => {
                normalize_diffusion(&mut p.diffusion);
                normalize_attention(&mut p.model.attention);
            }
            Self::Degrade(p) => p.sigma = (p.method == DegradeMethod::Blur).then(|| p.degradation().sigma),
            Self::Sample(p) if p.sampler.method != SamplerMethod::Ddim => p.sampler.eta = SamplerParams::default().eta,
            _ => {}
        }
    }
}

fn normalize_diffusion(p: &mut DiffusionParams) {
    let default = DiffusionParams::default();
    if p.objective == PredictionType::Regression {
        // Regression is a single pass without noise.
        *p = DiffusionParams {
            objective: p.objective,
            target: p.target,
            residual_scale: p.residual_scale,
            ..default.clone()
        };
    }
    if !p.schedule.has_betas() {
        (p.beta_start, p.beta_end) = (default.beta_start, default.beta_end);
    }
    if p.target != Target::Residual {
        p.residual_scale = default.residual_scale;
    }
    if p.loss_weighting != LossWeighting::MinSnr {
        p.min_snr_gamma = default.min_snr_gamma;
    }
}

fn normalize_attention(p: &mut AttentionParams) {
    let default = AttentionParams::default();
    match p.kind {
        AttentionKind::None => *p = AttentionParams { kind: p.kind, ..default },
        AttentionKind::ConvControl => {}
        AttentionKind::Sagan => (p.heads, p.matches) = (default.heads, default.matches),
        AttentionKind::Mhsa | AttentionKind::Linear | AttentionKind::Cross | AttentionKind::Uniform => {
            p.matches = default.matches;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn train(diffusion: Value, attention: Value) -> StageParams {
        let model = json!({"attention": attention});
        let mut params: StageParams =
            serde_json::from_value(json!({"kind": "train", "data": "pairs", "model": model, "diffusion": diffusion}))
                .unwrap();
        params.normalize();
        params
    }

    #[test]
    fn parameters_without_effect_are_reset() {
        let same = [
            (json!({"schedule": "cosine", "beta_end": 0.1}), json!({"schedule": "cosine"})),
            (
                json!({"objective": "regression", "schedule": "linear", "timesteps": 10}),
                json!({"objective": "regression"}),
            ),
            (json!({"objective": "regression", "loss_weighting": "min_snr"}), json!({"objective": "regression"})),
            (json!({"target": "image", "residual_scale": 3}), json!({"target": "image"})),
            (json!({"min_snr_gamma": 3}), json!({})),
        ];
        for (a, b) in same {
            assert_eq!(train(a.clone(), json!({})), train(b, json!({})), "{a}");
        }
        let same = [
            (json!({"heads": 2, "resolutions": [16], "matches": "seed"}), json!({})),
            (json!({"kind": "seed", "heads": 2}), json!({"kind": "seed"})),
            (json!({"kind": "mhsa", "matches": "linear"}), json!({"kind": "mhsa"})),
        ];
        for (a, b) in same {
            assert_eq!(train(json!({}), a.clone()), train(json!({}), b), "{a}");
        }
    }

    #[test]
    fn parameters_with_an_effect_are_kept() {
        let other = [
            json!({"schedule": "linear", "beta_end": 0.1}),
            json!({"schedule": "quadratic", "beta_start": 0.001}),
            json!({"objective": "regression", "residual_scale": 3}),
            json!({"loss_weighting": "min_snr", "min_snr_gamma": 3}),
            json!({"timesteps": 10}),
        ];
        for a in other {
            let StageParams::Train(p) = train(a.clone(), json!({})) else { unreachable!("a train stage") };
            let kept = serde_json::to_value(&p.diffusion).unwrap();
            for (field, value) in a.as_object().unwrap() {
                assert!(kept[field] == *value || kept[field].as_f64() == value.as_f64(), "{field} of {a}");
            }
        }
        let attention = json!({"kind": "conv_control", "matches": "linear", "heads": 2, "resolutions": [16]});
        let StageParams::Train(p) = train(json!({}), attention.clone()) else { unreachable!("a train stage") };
        assert_eq!(serde_json::to_value(&p.model.attention).unwrap(), attention);
    }

    #[test]
    fn eta_is_reset_unless_the_sampler_is_ddim() {
        let sample = |sampler: Value| {
            let value = json!({"kind": "sample", "model": "m", "data": "d", "sampler": sampler});
            let mut params: StageParams = serde_json::from_value(value).unwrap();
            params.normalize();
            params
        };
        assert_eq!(sample(json!({"method": "ddpm", "eta": 1})), sample(json!({"method": "ddpm"})));
        assert_ne!(sample(json!({"method": "ddim", "eta": 1})), sample(json!({"method": "ddim"})));
    }
}
