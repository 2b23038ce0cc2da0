//! The answers to the claims of a comparison, one card per claim.

use serde::Serialize;

use super::chart::number;
use super::{Badge, Tone};
use crate::comparison::axis::significant;
use crate::comparison::{ClaimAnswer, Effort};
use crate::format::signed;
use crate::stats::Verdict;

/// A claim and its answer.
#[derive(Debug, Serialize)]
pub(super) struct Card {
    claim: String,
    verdict: Badge,
    arm: String,
    control: String,
    endpoint: String,
    /// The description of the endpoint.
    about: &'static str,
    /// Effect, interval, margin and number of seeds.
    facts: Vec<String>,
    /// The finding in plain language.
    finding: String,
    /// Explanations of the verdict, and the effort to reach the same loss.
    remarks: Vec<String>,
    /// A plot of the interval and the margin, as SVG.
    plot: Option<String>,
}

impl Card {
    /// `exploratory` is the reason why the answer is exploratory, if it is.
    pub fn of(answer: &ClaimAnswer, exploratory: Option<&str>) -> Self {
        let tone = match answer.verdict {
            Verdict::Confirmed => Tone::Good,
            Verdict::Refuted => Tone::Bad,
            Verdict::Equivalent => Tone::Plain,
            Verdict::Inconclusive => Tone::Attention,
        };
        let (unit, decimals) = (answer.unit.suffix(), answer.unit.decimals());
        let effect =
            answer.effect.map_or("not measured".to_string(), |e| format!("effect {}{unit}", signed(e, decimals)));
        let over = if answer.covers_images() { "" } else { " (seeds only, not images)" };
        let interval = answer.interval.map(|[low, high]| {
            format!("95 % interval {} to {}{unit}{over}", signed(low, decimals), signed(high, decimals))
        });
        let mut facts = vec![effect];
        facts.extend(interval);
        facts.push(format!("margin ±{}{unit}", answer.margin));
        if answer.n > 1 {
            facts.push(format!("p = {:.3} after Holm", answer.p_holm));
        }
        facts.push(answer.describe_n());
        facts.extend(answer.samples.map(|[arm, control]| match arm == control {
            true => format!("K = {arm}"),
            false => format!("K = {arm} and {control}"),
        }));
        facts.extend(answer.describe_family());
        let asymmetry = answer.describe_asymmetry();
        let mut remarks = vec![];
        remarks.extend(exploratory.map(|why| format!("Exploratory, {why}.")));
        remarks.extend(asymmetry.as_ref().map(|why| format!("Note: {why}.")));
        remarks.extend(answer.look.map(|look| format!("This is {}.", look.describe())));
        remarks.extend(answer.reason.as_ref().map(|reason| format!("Not answered: {reason}.")));
        if answer.by_design && answer.reason.is_none() {
            remarks.push(format!(
                "Inconclusive by design: with fewer than {} seeds, no claim can be confirmed or refuted.",
                answer.seeds_needed
            ));
        }
        let is_open = answer.verdict == Verdict::Inconclusive;
        remarks.extend(
            answer
                .describe_seeds_needed()
                .filter(|_| is_open)
                .map(|needed| format!("Estimated from the seeds so far: {needed}.")),
        );
        remarks.extend(answer.convergence.as_ref().map(|found| {
            let parts = found.describe_factors().map_or(String::new(), |parts| format!(" ({parts})"));
            format!(
                "{} reached a validation loss of {:.5} after {}{parts}, {} after {}.",
                answer.arm,
                found.loss,
                effort(&found.arm),
                answer.control,
                effort(&found.control)
            )
        }));
        Self {
            claim: answer.claim.clone(),
            verdict: Badge {
                word: format!(
                    "{}{}{}",
                    answer.verdict_label(),
                    if exploratory.is_some() { " (exploratory)" } else { "" },
                    if asymmetry.is_some() { " (rate not guaranteed)" } else { "" }
                ),
                tone,
            },
            arm: answer.arm.clone(),
            control: answer.control.clone(),
            endpoint: answer.endpoint.to_string(),
            about: answer.endpoint.declaration().description,
            facts,
            finding: answer.describe_finding(),
            remarks,
            plot: answer.effect.filter(|effect| effect.is_finite()).map(|effect| plot(effect, answer, unit)),
        }
    }
}

fn effort(effort: &Effort) -> String {
    let flops = effort.flops.map_or_else(String::new, |flops| format!(" ({:.3} TFLOPs)", flops / 1e12));
    format!("{:.0} steps{flops}", effort.steps)
}

const WIDTH: f64 = 300.0;

/// Draws the effect as a dot with its interval, over a band for the margin; zero is in the middle.
fn plot(effect: f64, answer: &ClaimAnswer, unit: &str) -> String {
    let ends = answer.interval.unwrap_or([effect, effect]);
    let reach = ends.iter().chain(&[effect, answer.margin]).map(|v| v.abs()).fold(f64::MIN_POSITIVE, f64::max) * 1.12;
    let x = |value: f64| number(WIDTH / 2.0 * (1.0 + value / reach));
    let margin = number(WIDTH * answer.margin / reach);
    let (left, low, high, at) = (x(-answer.margin), x(ends[0]), x(ends[1]), x(effect));
    let end = reach / 1.12;
    format!(
        "<svg class=\"forest\" viewBox=\"0 0 {WIDTH} 46\" role=\"img\" aria-label=\"effect, interval and margin\">\
         <rect class=\"margin\" x=\"{left}\" y=\"4\" width=\"{margin}\" height=\"22\"/>\
         <line class=\"axis\" x1=\"0\" x2=\"{WIDTH}\" y1=\"26.5\" y2=\"26.5\"/>\
         <line class=\"zero\" x1=\"150\" x2=\"150\" y1=\"2\" y2=\"30\"/>\
         <line class=\"interval\" x1=\"{low}\" x2=\"{high}\" y1=\"15\" y2=\"15\"/>\
         <circle class=\"effect\" cx=\"{at}\" cy=\"15\" r=\"5\"/>\
         <text x=\"2\" y=\"42\">−{0}{unit}</text><text x=\"150\" y=\"42\" text-anchor=\"middle\">0</text>\
         <text x=\"298\" y=\"42\" text-anchor=\"end\">+{0}{unit}</text></svg>",
        significant(end, 3)
    )
}
