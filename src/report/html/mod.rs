//! The report of a run: one HTML file that needs nothing beside it.
//!
//! [`Report`] is what is known of a run, in the terms of this module: whoever gathers it decides where from. `render`
//! makes the page of it: `table`, `verdicts` and `arms` sort figures and parameters into rows, `pictures` encodes images,
//! `chart` and `graph` draw SVG, and `report.html` says where everything stands. Everything that users name is escaped:
//! the template does it for text, `chart::escape` for what is drawn.
//!
//! Without JavaScript the page lacks the slider between two arms alone: choices are made by radio buttons and style sheets,
//! and values under the pointer lie over the charts, hidden.

mod arms;
mod attention;
mod chart;
mod curves;
mod graph;
mod pictures;
mod table;
#[cfg(test)]
mod tests;
mod verdicts;

use anyhow::Context;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use serde::Serialize;

use crate::comparison::Summary;
use crate::config::redact;

pub use arms::Arm;
pub use attention::Attention;
pub use curves::Training;
pub use graph::Node;
pub use pictures::{ArmPictures, Pictures};

/// No report is larger, in bytes.
pub const MAX_SIZE: usize = 5_000_000;

/// What the pictures of a report may take of it; less where everything else leaves no room for them.
const PICTURES_SIZES: [usize; 3] = [3_000_000, 1_000_000, 200_000];

/// How something stands, as it is coloured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    Good,
    Bad,
    Attention,
    #[default]
    Plain,
}

/// A word and its tone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Badge {
    pub word: String,
    pub tone: Tone,
}

/// What is known of a run.
#[derive(Debug, Default)]
pub struct Report {
    pub pipeline: String,
    pub description: Option<String>,
    pub state: Badge,
    /// Under the title: when, how long, how many stages.
    pub facts: Vec<String>,
    pub failures: Vec<Failure>,
    pub comparisons: Vec<Comparison>,
    pub trainings: Vec<Training>,
    pub nodes: Vec<Node>,
    pub stages: Vec<Stage>,
    /// Stages that are not among `stages`, because they are too many.
    pub more_stages: usize,
    /// Versions, machine, seeds: what it takes to do it again, by name.
    pub provenance: Vec<(String, String)>,
    /// The command line that does it again.
    pub command: String,
    /// The pipeline as it was resolved.
    pub yaml: String,
}

/// A stage that came to nothing.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    pub stage: String,
    pub error: String,
    /// The end of its log.
    pub log: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    pub name: String,
    pub kind: &'static str,
    pub state: Badge,
    pub time: String,
    pub key: String,
}

/// A comparison, as far as it came.
#[derive(Debug, Default)]
pub struct Comparison {
    pub name: String,
    /// Samples of a file that compares nothing.
    pub is_of_samples: bool,
    /// None until it was made.
    pub summary: Option<Summary>,
    /// `metrics.csv`
    pub metrics: Option<Vec<u8>>,
    pub arms: Vec<Arm>,
    /// None where no arm has images.
    pub pictures: Option<Pictures>,
    /// What layers of attention look at.
    pub attention: Vec<Attention>,
}

impl Report {
    /// The page. The same for the same report.
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
        // Lines of the template that only say what to do leave nothing behind.
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
            positions => comparisons.iter().flat_map(|c| &c.looks).map(attention::Looks::positions).max(),
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

/// Escaped, and free to go on in a new line where a part of it ends: names of instances are long.
fn breakable(text: &str) -> String {
    chart::escape(text).replace(',', ",<wbr>").replace('[', "<wbr>[")
}

/// A comparison as the template shows it.
#[derive(Serialize)]
struct View {
    name: String,
    is_of_samples: bool,
    /// Whether it was made.
    is_done: bool,
    subtitle: String,
    notes: Vec<String>,
    claims: Vec<verdicts::Card>,
    table: Option<table::Table>,
    differences: arms::Differences,
    looks: Vec<attention::Looks>,
    gallery: Option<pictures::Gallery>,
    spectra: Option<curves::Panel>,
}

impl View {
    fn of(comparison: &Comparison, size: usize) -> anyhow::Result<Self> {
        let summary = comparison.summary.as_ref();
        let samples = summary.and_then(|s| s.samples).filter(|samples| *samples > 1);
        let samples = samples.map_or_else(String::new, |samples| format!(", {samples} samples of each"));
        Ok(Self {
            name: comparison.name.clone(),
            is_of_samples: comparison.is_of_samples,
            is_done: summary.is_some(),
            subtitle: summary.map_or_else(String::new, |s| format!("{} test images{samples}", s.images)),
            notes: summary.map(|s| s.notes.clone()).unwrap_or_default(),
            claims: summary.map(|s| s.claims.iter().map(verdicts::Card::of).collect()).unwrap_or_default(),
            table: summary.map(|s| table::Table::of(s, comparison.metrics.as_deref())).transpose()?,
            differences: arms::Differences::of(&comparison.arms),
            looks: comparison.attention.iter().filter_map(|a| a.shown().transpose()).collect::<anyhow::Result<_>>()?,
            gallery: comparison.pictures.as_ref().map(|p| p.gallery(size)).transpose()?,
            spectra: comparison.pictures.as_ref().map(curves::spectra),
        })
    }
}
