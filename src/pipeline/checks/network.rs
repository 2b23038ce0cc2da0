//! Checks networks and noise processes: which sizes must divide and which values must fit each other. The same rules
//! apply to a `train` stage and to the configuration in a checkpoint's header.

use serde_json::json;

use super::super::diagnostics::{Errors, Span};
use super::super::reader::{self, Location};
use super::super::schema;
use crate::config::StageKind;
use crate::config::schedule::{MIN_ALPHA_BAR, largest_beta_end, last_alpha_bar};
use crate::config::{AttentionKind, DiffusionParams, Matched, ModelParams, PredictionType};

/// The maximum image size that a network supports, the maximum `size` of `fetch`.
const MAX_IMAGE_SIZE: usize = 1024;
/// The maximum factor between high and low resolution. `degrade` supports up to 8; programs may use others.
const MAX_SCALE: usize = 16;

/// A parameter of a `train` stage that does not fit the others.
pub struct Problem {
    /// The parameters involved. The diagnostic marks the first one that the file sets, or else the span of the last
    /// one.
    pub(super) paths: &'static [&'static str],
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Problem {
    fn new(paths: &'static [&'static str], message: String, help: String) -> Self {
        Self { paths, message, help: Some(help) }
    }
}

/// Checks a noise process and returns its problems.
pub(super) fn diffusion_problems(diffusion: &DiffusionParams) -> Vec<Problem> {
    let mut found = vec![];
    if diffusion.objective == PredictionType::Regression || !diffusion.schedule.has_betas() {
        return found;
    }
    let DiffusionParams { timesteps, beta_start, beta_end, .. } = *diffusion;
    if beta_start > beta_end {
        let message =
            format!("`diffusion.beta_start` is {beta_start}, greater than `diffusion.beta_end`, which is {beta_end}");
        let help = "noise must increase from the first step to the last".to_string();
        found.push(Problem::new(&["diffusion.beta_start", "diffusion.beta_end"], message, help));
    }
    // Betas are specified for T = 1000 and scaled, so that the last image is noise for any T.
    let last = beta_end * 1000.0 / timesteps as f64;
    if last > 0.999 {
        let message =
            format!("{timesteps} timesteps are too few for a beta schedule: the last beta would be {last:.3}");
        let least = (beta_end * 1000.0 / 0.999).ceil();
        let help = format!("use at least {least}, or `schedule: cosine`");
        found.push(Problem::new(&["diffusion.timesteps"], message, help));
    } else if beta_start <= beta_end {
        let left = last_alpha_bar(diffusion);
        if left < MIN_ALPHA_BAR {
            let left = if left > 0.0 { format!("{left:.0e}") } else { "0".to_string() };
            let message = format!(
                "with `diffusion.beta_end` {beta_end} the noise schedule leaves nothing of the image: alpha-bar ends at \
                 {left}, and the minimum is {MIN_ALPHA_BAR:.0e}"
            );
            let help = match largest_beta_end(diffusion) {
                Some(largest) => format!("use a `beta_end` of at most {largest}, or `schedule: cosine`"),
                None => {
                    "use a smaller `beta_start` and `beta_end` (such as 0.0001 and 0.02), or `schedule: cosine`".into()
                }
            };
            let paths = &["diffusion.beta_end", "diffusion.beta_start", "diffusion.schedule", "diffusion.timesteps"];
            found.push(Problem::new(paths, message, help));
        }
    }
    found
}

/// Returns why a U-Net with this many levels cannot process images of `size`×`size` pixels, if it cannot.
pub(super) fn unet_error(size: usize, levels: usize) -> Option<String> {
    let divisor = 1 << (levels - 1);
    (!size.is_multiple_of(divisor))
        .then(|| format!("{levels} levels need an image size divisible by {divisor}, found {size}×{size} pixels"))
}

/// Checks that each attention layer's resolution exists in the U-Net and that its channels can be divided among the
/// heads. The levels must fit the size.
pub(super) fn attention_problems(model: &ModelParams, size: usize) -> Vec<Problem> {
    let mut found = vec![];
    let attention = &model.attention;
    if attention.kind == AttentionKind::None {
        return found;
    }
    let levels: Vec<usize> = (0..model.channel_mults.len()).map(|level| size >> level).collect();
    for &resolution in &attention.resolutions {
        let Some(level) = levels.iter().position(|&l| l == resolution) else {
            let maps = levels.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            let message = format!("no feature map of the U-Net is {resolution}×{resolution}");
            let help = format!(
                "for images of {size}×{size} pixels and {} levels, the feature map sizes are: {maps}",
                levels.len()
            );
            found.push(Problem::new(&["model.attention.resolutions"], message, help));
            continue;
        };
        let channels = model.base_channels * model.channel_mults[level];
        let is_sagan = attention.kind == AttentionKind::Sagan
            || (attention.kind == AttentionKind::ConvControl && attention.matches == Matched::Sagan);
        if is_sagan && channels < 8 {
            let message =
                format!("the attention needs at least 8 channels at {resolution}×{resolution}, found {channels}");
            let help = "queries and keys use an eighth of the channels".to_string();
            found.push(Problem::new(&["model.base_channels"], message, help));
        } else if !is_sagan && !channels.is_multiple_of(attention.heads) {
            let message = format!(
                "{channels} channels at {resolution}×{resolution} can't be divided among {} heads",
                attention.heads
            );
            let help = "`heads` must divide the channels of every resolution".to_string();
            found.push(Problem::new(&["model.attention.heads"], message, help));
        }
    }
    found
}

/// Checks a network and its noise process that do not come from a pipeline file: the range of each parameter, how they
/// fit each other, and whether they fit images of `image_size`×`image_size` pixels that are `scale` times larger than
/// the low-resolution ones.
///
/// # Errors
/// Returns the first rule that is violated.
pub fn check_network(
    model: &ModelParams,
    diffusion: &DiffusionParams,
    image_size: usize,
    scale: usize,
) -> Result<(), String> {
    check_ranges(model, diffusion)?;
    if !(1..=MAX_IMAGE_SIZE).contains(&image_size) {
        return Err(format!("the image size must be 1 to {MAX_IMAGE_SIZE} pixels, found {image_size}"));
    }
    if !(1..=MAX_SCALE).contains(&scale) || !image_size.is_multiple_of(scale) {
        return Err(format!(
            "the scale must be 1 to {MAX_SCALE} and divide the image size {image_size}, found {scale}"
        ));
    }
    if let Some(message) = unet_error(image_size, model.channel_mults.len()) {
        return Err(message);
    }
    let mut problems = diffusion_problems(diffusion).into_iter().chain(attention_problems(model, image_size));
    match problems.next() {
        None => Ok(()),
        Some(Problem { message, help: Some(help), .. }) => Err(format!("{message} ({help})")),
        Some(Problem { message, help: None, .. }) => Err(message),
    }
}

/// Checks the parameters against the schema of a `train` stage, as for a pipeline file.
fn check_ranges(model: &ModelParams, diffusion: &DiffusionParams) -> Result<(), String> {
    // JSON is valid YAML, so the reader of pipeline files can read it.
    let stage = json!({ "data": "data", "model": model, "diffusion": diffusion });
    let mut errors = Errors::default();
    let node = reader::read(&stage.to_string(), Location { source: 0, offset: 0 }, &mut errors);
    if let Some(mut node) = node {
        schema::validate_stage(StageKind::Train, "train", Span::new(0, 0..0), &mut node, &mut errors);
    }
    errors.first_message().map_or(Ok(()), |message| Err(message.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AttentionParams, ScheduleKind};

    #[test]
    fn image_sizes_must_be_divisible() {
        assert_eq!(unet_error(32, 3), None);
        assert!(unet_error(30, 3).unwrap().contains("divisible by 4"));
        assert_eq!(unet_error(30, 2), None);
    }

    /// Tests every kind of schedule with betas at the ends of their ranges.
    #[test]
    fn accepted_schedules_do_not_underflow() {
        let betas = [1e-8, 1e-4, 0.001, 0.02, 0.05, 0.0915, 0.1, 0.3, 0.5, 0.999];
        let mut refused = 0;
        for schedule in [ScheduleKind::Linear, ScheduleKind::Quadratic, ScheduleKind::Cosine, ScheduleKind::Sigmoid] {
            for timesteps in [2, 3, 21, 100, 1000, 4000, 100_000] {
                for (beta_start, beta_end) in betas.iter().flat_map(|a| betas.map(|b| (*a, b))) {
                    let diffusion = DiffusionParams { schedule, timesteps, beta_start, beta_end, ..Default::default() };
                    let problems = diffusion_problems(&diffusion);
                    refused += problems.len();
                    assert!(!problems.is_empty() || last_alpha_bar(&diffusion) >= MIN_ALPHA_BAR, "{diffusion:?}");
                    assert!(schedule.has_betas() || problems.is_empty(), "{diffusion:?}");
                }
            }
        }
        assert!(refused > 100);
    }

    #[test]
    fn invalid_networks_are_refused_with_the_parameter_name() {
        let (model, diffusion) = (ModelParams::default(), DiffusionParams::default());
        for size in [4, 8, 32, 48, 1024] {
            assert_eq!(check_network(&model, &diffusion, size, 4), Ok(()));
        }
        let residual_scale = Some(1.0 / 3.0);
        assert_eq!(check_network(&model, &DiffusionParams { residual_scale, ..diffusion.clone() }, 32, 4), Ok(()));
        for kind in [AttentionKind::Sagan, AttentionKind::Mhsa, AttentionKind::Cross, AttentionKind::ConvControl] {
            let attention = AttentionParams { kind, ..Default::default() };
            assert_eq!(check_network(&ModelParams { attention, ..model.clone() }, &diffusion, 32, 2), Ok(()));
        }
        let wrong = |model: &ModelParams, diffusion: &DiffusionParams, size, scale, text: &str| {
            let error = check_network(model, diffusion, size, scale).unwrap_err();
            assert!(error.contains(text), "{error}");
        };
        let of = |change: fn(&mut ModelParams)| {
            let mut model = model.clone();
            change(&mut model);
            model
        };
        wrong(&of(|m| m.base_channels = 0), &diffusion, 32, 4, "`model.base_channels` must be at least 2");
        wrong(&of(|m| m.base_channels = usize::MAX), &diffusion, 32, 4, "`model.base_channels`");
        wrong(&of(|m| m.channel_mults.clear()), &diffusion, 32, 4, "`model.channel_mults`");
        wrong(&of(|m| m.channel_mults = vec![1; 64]), &diffusion, 32, 4, "`model.channel_mults`");
        wrong(&of(|m| m.blocks_per_level = 0), &diffusion, 32, 4, "`model.blocks_per_level`");
        let heads = of(|m| (m.attention.kind, m.attention.heads) = (AttentionKind::Mhsa, 5));
        wrong(&heads, &diffusion, 32, 4, "heads");
        wrong(&of(|m| m.attention.heads = 0), &diffusion, 32, 4, "`model.attention.heads`");
        let noise = |change: fn(&mut DiffusionParams)| {
            let mut diffusion = diffusion.clone();
            change(&mut diffusion);
            diffusion
        };
        wrong(&model, &noise(|d| d.timesteps = 0), 32, 4, "`diffusion.timesteps`");
        wrong(&model, &noise(|d| d.timesteps = usize::MAX), 32, 4, "`diffusion.timesteps`");
        wrong(&model, &noise(|d| d.residual_scale = Some(-4.0)), 32, 4, "`diffusion.residual_scale`");
        let underflows = noise(|d| (d.schedule, d.beta_end) = (ScheduleKind::Linear, 0.999));
        wrong(&model, &underflows, 32, 4, "the minimum is");
        for (size, scale) in [(0, 1), (31, 1), (32, 0), (32, 5), (32, 32), (2048, 4), (usize::MAX, 1)] {
            assert!(check_network(&model, &diffusion, size, scale).is_err(), "{size} {scale}");
        }
    }
}
