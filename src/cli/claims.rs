//! The verdicts on a comparison's claims: a table, the training effort of each arm, and a suggested study for
//! inconclusive claims.

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::layout::Table;
use super::output::{Look, Paint};
use super::suggest_study::suggest_study;
use crate::comparison::{ClaimAnswer, Effort, looks};
use crate::config::{StageKind, blobs};
use crate::format::{duration, signed};
use crate::plan::Preimage;
use crate::runs::RunRecord;
use crate::stats::{SeedsNeeded, Verdict};
use crate::store::{Action, Store};

/// The minimum number of seeds in a suggested study without a plan.
const STUDY_SEEDS: usize = 8;
/// The largest study that is suggested to reach a power of 80 %. If more seeds are needed, a smaller study is suggested
/// with a note on its power.
const MAX_STUDY_SEEDS: usize = 20;

/// Returns the verdicts as text, empty if the summary has no claims. `compare` is the record of the comparison `stage`.
pub(super) fn show(summary: &Value, store: &Store, record: &RunRecord, stage: &str, compare: &Action) -> String {
    let answers = Vec::<ClaimAnswer>::deserialize(&summary["claims"]).unwrap_or_default();
    if answers.is_empty() {
        return String::new();
    }
    let exploratory = exploratory(&answers, record, compare);
    let mut text = format!("\n{}", table(&answers, &exploratory).render(Paint::stdout()));
    for (answer, why) in answers.iter().zip(&exploratory).filter_map(|(answer, why)| Some((answer, why.as_ref()?))) {
        text += &format!("{}: exploratory, {why}\n", answer.claim);
    }
    for (answer, look) in answers.iter().filter_map(|answer| Some((answer, answer.look?))) {
        text += &format!("{}: {}\n", answer.claim, look.describe());
    }
    text += &without_images(&answers).unwrap_or_default();
    text += &shared_notes(&answers, ClaimAnswer::describe_family);
    text += &shared_notes(&answers, ClaimAnswer::describe_asymmetry);
    for answer in &answers {
        let pace = |arm: &str| seconds_per_step(arm, store, record, compare);
        text += &convergence(answer, pace(&answer.arm), pace(&answer.control)).unwrap_or_default();
    }
    for (answer, reason) in answers.iter().filter_map(|answer| Some((answer, answer.reason.as_ref()?))) {
        text += &format!("{}: not answered: {reason}\n", answer.claim);
    }
    for answer in answers.iter().filter(|answer| answer.pairs > answer.n) {
        text += &format!(
            "{}: {}; samples of one training run count once, because they do not show how training runs vary\n",
            answer.claim,
            answer.describe_n()
        );
    }
    for answer in answers.iter().filter(|answer| answer.verdict == Verdict::Inconclusive) {
        if let Some(needed) = answer.describe_seeds_needed() {
            text += &format!("{}: {needed}\n", answer.claim);
        }
    }
    text += &suggestion(&answers, &record.command, stage).unwrap_or_default();
    text
}

/// Suggests a study for claims with too few seeds for a verdict. Its number of seeds is the planned one, or without a
/// plan, that for a power of 80 %. If that number is unknown or large, suggests the minimum useful number.
fn suggestion(answers: &[ClaimAnswer], command: &[String], stage: &str) -> Option<String> {
    let is_open = |answer: &&ClaimAnswer| answer.by_design && answer.reason.is_none();
    let open: Vec<&ClaimAnswer> = answers.iter().filter(is_open).collect();
    let fewest = open.iter().min_by_key(|answer| answer.n)?;
    let text = format!(
        "inconclusive by design, n = {}: with fewer than {} seeds, no claim can be confirmed or refuted.",
        fewest.n, fewest.seeds_needed
    );
    let needed = open.iter().map(|answer| answer.seeds_needed).max()?;
    let plan = fewest.plan.map(|plan| plan.plan);
    if let Some(plan) = plan.filter(|plan| needed > *plan) {
        return Some(format!(
            "{text} The plan of {plan} seeds is too small: plan at least {needed}, as in \
             `seeds: {{ plan: {needed} }}`\n"
        ));
    }
    let for_power = open.iter().filter_map(|answer| match answer.seeds_for_power? {
        SeedsNeeded::Seeds(seeds) => Some(seeds),
        SeedsNeeded::MoreImages | SeedsNeeded::TooMany => None,
    });
    let for_power = for_power.max().unwrap_or_default();
    let is_large = for_power > MAX_STUDY_SEEDS;
    let seeds = needed.max(plan.unwrap_or(if is_large { STUDY_SEEDS } else { for_power.max(STUDY_SEEDS) }));
    let study = suggest_study(command, stage, &open, seeds);
    Some(match for_power > seeds {
        false => format!("{text} The full study:\n  {study}\n"),
        true => format!(
            "{text} A study of {seeds} seeds:\n  {study}\nit detects a true difference as large as the margin with a \
             probability below 80 %; a probability of 80 % needs {for_power} seeds, estimated from the seeds so far\n"
        ),
    })
}

/// Returns, for each answer of the comparison `compare` in a run, the reason why it is exploratory, if it is.
pub(super) fn exploratory(answers: &[ClaimAnswer], record: &RunRecord, compare: &Action) -> Vec<Option<String>> {
    let inputs = Preimage::of(compare).map(|preimage| preimage.inputs).unwrap_or_default();
    looks::exploratory(answers, &inputs, &record.earlier_looks)
}

/// Returns the answers in a summary, each with `exploratory`: the reason why it is exploratory, or null. The summary
/// itself does not contain this mark, because it does not depend on earlier runs.
pub(super) fn to_json(summary: &Value, record: &RunRecord, compare: &Action) -> Vec<Value> {
    let answers = Vec::<ClaimAnswer>::deserialize(&summary["claims"]).unwrap_or_default();
    let with = |(answer, why): (&ClaimAnswer, Option<String>)| {
        let mut value = json!(answer);
        value["exploratory"] = json!(why);
        value
    };
    answers.iter().zip(exploratory(&answers, record, compare)).map(with).collect()
}

/// Returns one line for each distinct note, with the names of the claims that it applies to.
fn shared_notes(answers: &[ClaimAnswer], note: fn(&ClaimAnswer) -> Option<String>) -> String {
    let mut claims: IndexMap<String, Vec<&str>> = IndexMap::new();
    for (answer, note) in answers.iter().filter_map(|answer| Some((answer, note(answer)?))) {
        claims.entry(note).or_default().push(&answer.claim);
    }
    claims.into_iter().map(|(note, claims)| format!("{}: {note}\n", claims.join(", "))).collect()
}

/// Lists the claims whose intervals do not cover the choice of test images.
fn without_images(answers: &[ClaimAnswer]) -> Option<String> {
    let seeds_only = answers.iter().filter(|answer| answer.interval.is_some() && !answer.covers_images());
    let names: Vec<&str> = seeds_only.map(|answer| answer.claim.as_str()).collect();
    (!names.is_empty()).then(|| format!("intervals cover other seeds but not other images: {}\n", names.join(", ")))
}

/// `exploratory` is the reason why an answer is exploratory.
fn table(answers: &[ClaimAnswer], exploratory: &[Option<String>]) -> Table {
    let mut table = Table::new(&[
        "claim",
        "better",
        "than",
        "by",
        "verdict",
        "effect",
        "95 % interval",
        "margin",
        "p (Holm)",
        "n",
        "K",
    ]);
    for (answer, exploratory) in answers.iter().zip(exploratory) {
        let look = match answer.verdict {
            Verdict::Confirmed => Look::Good,
            Verdict::Refuted => Look::Bad,
            Verdict::Equivalent => Look::Plain,
            Verdict::Inconclusive => Look::Attention,
        };
        let by_design = if answer.by_design { " by design" } else { "" };
        let exploratory = if exploratory.is_some() { " (exploratory)" } else { "" };
        let approximate = if answer.describe_asymmetry().is_some() { " (rate not guaranteed)" } else { "" };
        let (unit, decimals) = (answer.unit.suffix(), answer.unit.decimals());
        let interval = |[low, high]: [f64; 2]| format!("{} to {}", signed(low, decimals), signed(high, decimals));
        let plain = |text: String| (Look::Plain, text);
        table.row(vec![
            plain(answer.claim.clone()),
            plain(answer.arm.clone()),
            plain(answer.control.clone()),
            plain(answer.endpoint.to_string()),
            (look, format!("{}{by_design}{exploratory}{approximate}", answer.verdict_label())),
            plain(
                answer.effect.map(|e| format!("{}{unit}", signed(e, decimals))).unwrap_or("not measured".to_string()),
            ),
            plain(answer.interval.map(interval).unwrap_or_default()),
            plain(format!("±{}{unit}", answer.margin)),
            plain(format!("{:.3}", answer.p_holm)),
            plain(answer.n.to_string()),
            plain(answer.samples.map(format_samples).unwrap_or_default()),
        ]);
    }
    table
}

/// Returns K of the arm and of its control, once if they are equal.
fn format_samples([arm, control]: [usize; 2]) -> String {
    if arm == control { arm.to_string() } else { format!("{arm}, {control}") }
}

/// Describes how much training each arm needs to reach a loss that both reach. Seconds are based on the measured
/// training speed.
fn convergence(answer: &ClaimAnswer, arm: Option<f64>, control: Option<f64>) -> Option<String> {
    let found = answer.convergence.as_ref()?;
    let describe = |effort: &Effort, pace: Option<f64>| {
        let flops = effort.flops.map(|flops| format!("{:.3} TFLOPs", flops / 1e12));
        let seconds = pace.map(|pace| format!("about {}", duration(pace * effort.steps)));
        let steps = format!("{:.0} steps", effort.steps);
        std::iter::once(steps).chain(flops).chain(seconds).collect::<Vec<_>>().join(", ")
    };
    let parts = found.describe_factors().map_or(String::new(), |parts| format!(" ({parts})"));
    Some(format!(
        "{}: {} reached a validation loss of {:.5} after {}{parts}; {} after {}\n",
        answer.claim,
        answer.arm,
        found.loss,
        describe(&found.arm, arm),
        answer.control,
        describe(&found.control, control),
    ))
}

/// Returns the mean seconds per step of an arm's training runs, which are those that wrote the `loss.csv` files read by
/// the comparison.
fn seconds_per_step(arm: &str, store: &Store, record: &RunRecord, compare: &Action) -> Option<f64> {
    let preimage = Preimage::of(compare)?;
    let of_seed = format!("arms.{arm}[seed=");
    let is_its = |role: &str| role.strip_prefix("arms.") == Some(arm) || role.starts_with(&of_seed);
    let losses: Vec<_> = preimage
        .inputs
        .iter()
        .filter(|(role, _)| is_its(role))
        .filter_map(|(_, blobs)| blobs.get(blobs::LOSS))
        .collect();
    let mut paces = vec![];
    for key in record.stages.iter().filter(|s| s.kind == StageKind::Train).filter_map(|s| s.key.as_ref()) {
        let Ok(Some(action)) = store.action(key) else { continue };
        if action.outputs.get(blobs::LOSS).is_some_and(|loss| losses.contains(&loss)) {
            paces.extend(action.metrics.get("steps_per_s").filter(|pace| **pace > 0.0).map(|pace| 1.0 / pace));
        }
    }
    (!paces.is_empty()).then(|| paces.iter().sum::<f64>() / paces.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::testing::claim_answer;
    use crate::config::SeedPlan;

    #[test]
    fn each_answer_has_a_row() {
        let rows = table(
            &[claim_answer(), ClaimAnswer { effect: None, interval: None, ..claim_answer() }],
            &[None, Some(String::new())],
        );
        let text = rows.render(Paint::stdout());
        let lines: Vec<&str> = text.lines().collect();
        let cells =
            |line: &str| line.split("  ").filter(|c| !c.is_empty()).map(|c| c.trim().to_string()).collect::<Vec<_>>();
        let expected = "convergence|attention|baseline|flops_to_loss|inconclusive by design|+12.25 %|-1.00 to +20.00|±5 %|0.500|3|4";
        assert_eq!(cells(lines[1]).join("|"), expected);
        assert!(lines[2].contains("not measured") && lines[2].contains("by design (exploratory)"), "{text}");
    }

    #[test]
    fn verdicts_against_bicubic_and_several_families_have_notes() {
        let of = |claim: &str, control: &str| ClaimAnswer {
            claim: claim.into(),
            control: control.into(),
            verdict: Verdict::Confirmed,
            family: Some("sampling".into()),
            family_claims: Some(3),
            has_other_families: true,
            ..claim_answer()
        };
        let answers = [of("a", "bicubic"), of("b", "bicubic"), of("c", "baseline")];
        let text = table(&answers, &[None, None, None]).render(Paint::stdout());
        let marked: Vec<bool> = text.lines().skip(1).map(|line| line.contains("(rate not guaranteed)")).collect();
        assert_eq!(marked, [true, true, false], "{text}");
        let note = shared_notes(&answers, ClaimAnswer::describe_asymmetry);
        assert!(
            note.starts_with("a, b: the error rate of 5 % is not guaranteed") && note.lines().count() == 1,
            "{note}"
        );
        assert_eq!(
            shared_notes(&answers, ClaimAnswer::describe_family),
            "a, b, c: corrected together with 2 other claims of family sampling\n"
        );
        let of_file = ClaimAnswer { has_other_families: false, ..of("a", "bicubic") };
        assert_eq!(of_file.describe_family(), None);
    }

    #[test]
    fn the_suggested_study_agrees_with_the_power() {
        let suggested = |answer| suggestion(&[answer], &[], "compare").unwrap();
        let of = |seeds| ClaimAnswer { seeds_for_power: Some(SeedsNeeded::Seeds(seeds)), ..claim_answer() };
        assert!(suggested(claim_answer()).contains("The full study:\n  train all claimed arms with the same 8 seeds"));
        assert!(suggested(of(14)).contains("The full study:\n  train all claimed arms with the same 14 seeds"));
        let many = suggested(of(112));
        assert!(many.contains("A study of 8 seeds:\n  train all claimed arms with the same 8 seeds"), "{many}");
        assert!(many.ends_with("80 % needs 112 seeds, estimated from the seeds so far\n"), "{many}");
        let planned =
            |plan, needed| ClaimAnswer { plan: Some(SeedPlan { plan, looks: 2 }), seeds_needed: needed, ..of(112) };
        let twenty = suggested(planned(20, 10));
        assert!(twenty.contains("A study of 20 seeds:") && twenty.contains("80 % needs 112 seeds"), "{twenty}");
        assert!(suggested(planned(6, 8)).contains("The plan of 6 seeds is too small: plan at least 8"));
    }

    #[test]
    fn convergence_is_described_in_steps_operations_and_seconds() {
        assert_eq!(
            convergence(&claim_answer(), Some(0.05), None).unwrap(),
            "convergence: attention reached a validation loss of 0.01230 after 900 steps, 1.500 TFLOPs, about 45 s; baseline after 1200 steps\n"
        );
        assert_eq!(convergence(&ClaimAnswer { convergence: None, ..claim_answer() }, None, None), None);
    }
}
