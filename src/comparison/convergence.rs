//! How much training an arm and its control need to reach the same validation loss.

use serde::{Deserialize, Serialize};

use super::loss::LossRow;
use super::measured::Measured;

/// The training effort until the validation loss reaches a level that both arms reach: the control's last loss, or the
/// arm's if that is higher. Means over the seeds. Seconds are omitted because they differ between runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Convergence {
    pub loss: f64,
    pub arm: Effort,
    pub control: Effort,
}

/// The training steps and, if known, the floating-point operations until a loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Effort {
    pub steps: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops: Option<f64>,
}

impl Convergence {
    /// Returns how many more steps the arm needs than its control, in percent.
    fn more_steps(&self) -> f64 {
        100.0 * (self.arm.steps / self.control.steps - 1.0)
    }

    /// Returns how many more operations each step of the arm needs, in percent. This follows from the architecture
    /// and the batch size, not from training.
    fn more_flops_per_step(&self) -> Option<f64> {
        let per_step = |effort: &Effort| Some(effort.flops? / effort.steps);
        Some(100.0 * (per_step(&self.arm)? / per_step(&self.control)? - 1.0)).filter(|more| more.is_finite())
    }

    /// Describes the measured difference in steps and the difference in operations per step, which training does not
    /// affect.
    pub fn describe_factors(&self) -> Option<String> {
        let steps = Some(self.more_steps()).filter(|more| more.is_finite())?;
        let known = self.more_flops_per_step()?;
        let more = |percent: f64| format!("{:.1} % {}", percent.abs(), if percent < 0.0 { "fewer" } else { "more" });
        Some(format!("{} steps, measured; {} FLOPs per step, known before training", more(steps), more(known)))
    }
}

/// Returns the loss that both arms reach, and the effort of each.
///
/// An arm that never reaches the control's last loss would have no effort at that loss. Both arms reach the higher of the
/// two last losses, which is the control's whenever the arm is better. Swapping the arms changes only the sign of the
/// difference, as the sign-flip test requires.
pub(super) fn reached(arm: &Measured, control: &Measured) -> Option<Convergence> {
    let loss = arm.val_loss()?.max(control.val_loss()?);
    Some(Convergence { loss, arm: effort(&arm.losses, loss)?, control: effort(&control.losses, loss)? })
}

/// Returns the effort until the validation loss first reaches `loss`, interpolated linearly between measurements.
fn effort(rows: &[LossRow], loss: f64) -> Option<Effort> {
    let mut before: Option<(&LossRow, f64)> = None;
    for row in rows {
        let Some(validation) = row.val_loss else { continue };
        if validation <= loss {
            let (from, part) = match before {
                Some((from, above)) if above.is_finite() => (from, (above - loss) / (above - validation)),
                _ => (row, 1.0),
            };
            let between = |a: f64, b: f64| a + part * (b - a);
            return Some(Effort {
                steps: between(from.step as f64, row.step as f64),
                flops: from.flops.zip(row.flops).map(|(a, b)| between(a, b)),
            });
        }
        before = Some((row, validation));
    }
    None
}

/// Returns the means over pairs of an arm and its control.
pub(super) fn convergence<'a>(pairs: impl Iterator<Item = (&'a Measured, &'a Measured)>) -> Option<Convergence> {
    let all: Option<Vec<Convergence>> = pairs.map(|(arm, control)| reached(arm, control)).collect();
    let all = all.filter(|all| !all.is_empty())?;
    let mean = |sum: f64| sum / all.len() as f64;
    let effort = |side: fn(&Convergence) -> Effort| Effort {
        steps: mean(all.iter().map(|c| side(c).steps).sum()),
        flops: all.iter().map(|c| side(c).flops).sum::<Option<f64>>().map(mean),
    };
    let loss = mean(all.iter().map(|c| c.loss).sum());
    Some(Convergence { loss, arm: effort(|c| c.arm), control: effort(|c| c.control) })
}
