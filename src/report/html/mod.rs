//! The report of a run: one self-contained HTML file.
//!
//! [`Report`] holds the data of a run; its creator decides where they come from. `render` creates the page: `table`,
//! `verdicts`, `forest` and `arms` arrange metrics and parameters in rows, `pictures` encodes images, `chart`, `curves`,
//! `profiles` and `graph` draw SVG, `attention` shows attention maps, and `report.html` is the template. All
//! user-supplied names are escaped: by the template in text, and by `chart::escape` in drawings.
//!
//! Without JavaScript, only the slider between two arms and the vertical arrow keys in attention maps are missing:
//! selections use radio buttons and style sheets, and the values under the pointer are hidden elements over the charts.

mod arms;
mod attention;
mod chart;
mod curves;
mod forest;
mod graph;
mod pictures;
mod profiles;
mod table;
#[cfg(test)]
mod tests;
mod verdicts;

use anyhow::Context;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use serde::Serialize;

use crate::comparison::{ClaimAnswer, Summary};
use crate::config::EvaluationSplit;
use crate::config::redact;

pub use arms::Arm;
pub use attention::Attention;
pub use curves::{PairedTrainings, Training};
pub use graph::Node;
pub use pictures::{ArmPictures, Pictures};

/// The maximum size of a report in bytes.
const MAX_SIZE: usize = 5_000_000;

/// The maximum size of the images in a report; less if the rest of the page leaves no room.
const PICTURES_SIZES: [usize; 3] = [3_000_000, 1_000_000, 200_000];

/// The severity of a state, which determines its colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tone {
    Good,
    Bad,
    Attention,
    #[default]
    Plain,
}

/// A word and its severity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Badge {
    pub(super) word: String,
    pub(super) tone: Tone,
}

/// The data of a run.
#[derive(Debug, Default)]
pub struct Report {
    pub(super) pipeline: String,
    pub(super) description: Option<String>,
    pub(super) state: Badge,
    /// Below the title: start time, duration, number of stages.
    pub(super) facts: Vec<String>,
    pub(super) failures: Vec<Failure>,
    pub(super) comparisons: Vec<Comparison>,
    pub(super) trainings: Vec<Training>,
    pub(super) nodes: Vec<Node>,
    pub(super) stages: Vec<Stage>,
    /// The number of stages omitted from `stages`.
    pub(super) more_stages: usize,
    /// Versions, machine and seeds by name, as needed to reproduce the run.
    pub(super) provenance: Vec<(String, String)>,
    /// The command that reproduces the run.
    pub(super) command: String,
    /// The resolved pipeline.
    pub(super) yaml: String,
}

/// A failed stage.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    pub(super) stage: String,
    pub error: String,
    /// The end of its log.
    pub log: String,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Stage {
    pub name: String,
    pub(super) kind: &'static str,
    pub(super) state: Badge,
    pub(super) time: String,
    pub(super) key: String,
}

/// A comparison, complete or not.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) name: String,
    /// Whether it shows the samples of a pipeline without a comparison.
    pub(super) is_of_samples: bool,
    /// `None` if the comparison is not done.
    pub(super) summary: Option<Summary>,
    /// Descriptions of the selections that its arms' models come from.
    pub(super) selected: Vec<String>,
    /// The split of its images.
    pub(super) split: EvaluationSplit,
    /// For each claim, why its answer is exploratory, if it is.
    pub(super) exploratory: Vec<Option<String>>,
    /// `metrics.csv`
    pub(super) metrics: Option<Vec<u8>>,
    pub(super) arms: Vec<Arm>,
    /// The training runs of the arms, paired with those of the control if there is one.
    pub(super) paired: Vec<PairedTrainings>,
    /// `None` if no arm has images.
    pub(super) pictures: Option<Pictures>,
    /// The attention maps of the arms.
    pub(super) attention: Vec<Attention>,
}

impl Report {
    /// Renders the page; deterministic for equal reports.
    pub fn render(&self) -> anyhow::Result<String> {
        let mut page = String::new();
        for size in PICTURES_SIZES {
            page = self.page(size)?;
            if page.len() <= MAX_SIZE {
                break;
            }
        }
        Ok(clean(&page))
    }

    fn page(&self, pictures: usize) -> anyhow::Result<String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // Lines with only template statements leave no blank line.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.context("the template's syntax")?);
        environment.add_filter("breakable", |text: String| Value::from_safe_string(breakable(&text)));
        environment.add_template("report.html", include_str!("report.html")).context("the report's template")?;
        let share = pictures / self.comparisons.iter().filter(|c| c.pictures.is_some()).count().max(1);
        let comparisons: Vec<View> =
            self.comparisons.iter().map(|c| View::of(c, share)).collect::<anyhow::Result<_>>()?;
        let template = environment.get_template("report.html")?;
        let page = template.render(context! {
            style => include_str!("style.css"),
            positions => comparisons.iter().flat_map(|c| &c.attention).map(attention::AttentionMaps::positions).max(),
            script => include_str!("script.js"),
            pipeline => Serde(&self.pipeline),
            description => Serde(&self.description),
            state => Serde(&self.state),
            facts => Serde(&self.facts),
            failures => Serde(&self.failures),
            comparisons => Serde(&comparisons),
            losses => Serde(curves::panels(&self.trainings)),
            graph => graph::draw(&self.nodes),
            stages => Serde(&self.stages),
            more_stages => self.more_stages,
            provenance => Serde(&self.provenance),
            command => Serde(&self.command),
            yaml => Serde(&self.yaml),
        });
        page.context("filling in the report's template")
    }
}

/// Removes control characters, which a terminal would interpret when the file is printed there, and redacts secrets in
/// URLs, which runs of earlier versions may contain.
fn clean(page: &str) -> String {
    let is_control = |c: char| c.is_control() && c != '\n' && c != '\t';
    redact(page).replace(is_control, "\u{fffd}")
}

/// Escapes text and allows line breaks between its parts, because names of instances are long.
fn breakable(text: &str) -> String {
    chart::escape(text).replace(',', ",<wbr>").replace('[', "<wbr>[")
}

fn cards(answers: &[ClaimAnswer], exploratory: &[Option<String>]) -> Vec<verdicts::Card> {
    let reasons = exploratory.iter().map(Option::as_deref).chain(std::iter::repeat(None));
    answers.iter().zip(reasons).map(|(answer, why)| verdicts::Card::of(answer, why)).collect()
}

/// A comparison as data for the template.
#[derive(Serialize)]
struct View {
    name: String,
    is_of_samples: bool,
    /// Whether it is done.
    is_done: bool,
    subtitle: String,
    /// The split of the images.
    split: EvaluationSplit,
    notes: Vec<String>,
    claims: Vec<verdicts::Card>,
    table: Option<table::Table>,
    /// The differences of all arms from one control.
    forest: Option<forest::Forest>,
    /// The share of images for which each arm reaches a value.
    profiles: Option<curves::Panel>,
    differences: arms::Differences,
    attention: Vec<attention::AttentionMaps>,
    gallery: Option<pictures::Gallery>,
    spectra: Option<curves::Panel>,
    /// How far each arm is ahead of the control during training.
    leads: Option<curves::Panel>,
}

impl View {
    fn of(comparison: &Comparison, size: usize) -> anyhow::Result<Self> {
        let summary = comparison.summary.as_ref();
        let images = comparison.metrics.as_deref().map(table::by_image).transpose()?.unwrap_or_default();
        let is_exploratory = comparison.exploratory.iter().any(Option::is_some);
        let samples = summary.and_then(|s| s.samples).filter(|samples| *samples > 1);
        let samples = samples.map_or_else(String::new, |samples| format!(", {samples} samples per image"));
        Ok(Self {
            name: comparison.name.clone(),
            is_of_samples: comparison.is_of_samples,
            is_done: summary.is_some(),
            subtitle: summary.map_or_else(String::new, |s| format!("{} {} images{samples}", s.images, s.split)),
            split: comparison.split,
            notes: comparison.selected.iter().chain(summary.iter().flat_map(|s| &s.notes)).cloned().collect(),
            claims: summary.map(|s| cards(&s.claims, &comparison.exploratory)).unwrap_or_default(),
            table: summary.map(|s| table::Table::of(s, &images, is_exploratory)),
            profiles: summary.and_then(|s| profiles::profiles(s, &images)),
            forest: summary.and_then(|s| forest::Forest::of(&s.differences)),
            differences: arms::Differences::of(&comparison.arms),
            attention: comparison
                .attention
                .iter()
                .filter_map(|a| a.maps().transpose())
                .collect::<anyhow::Result<_>>()?,
            gallery: comparison.pictures.as_ref().map(|p| p.gallery(size)).transpose()?,
            spectra: comparison.pictures.as_ref().map(curves::spectra),
            leads: curves::leads(&comparison.paired),
        })
    }
}
