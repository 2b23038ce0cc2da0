//! Charts of training losses and image spectra.

use serde::Serialize;

use super::chart::{Axis, COLOURS, Chart, Line, Pen};
use super::pictures::Pictures;
use crate::comparison::BICUBIC;
use crate::comparison::loss::{self, Curve, LossRow};

/// A training run, or the runs of one arm with different seeds.
#[derive(Debug, Clone)]
pub struct Training {
    /// The curve of the first seed.
    pub curve: Curve,
    /// The curves of the other seeds.
    pub other_seeds: Vec<Vec<LossRow>>,
    /// The index of its arm, for the colour.
    pub arm: usize,
    /// Seconds per step, if known: the mean of the measured training times.
    pub seconds_per_step: Option<f64>,
}

/// The training runs of an arm paired with those of its control.
#[derive(Debug, Clone)]
pub struct PairedTrainings {
    pub(in crate::report) arm: String,
    pub(in crate::report) control: String,
    /// The index of the arm, for the colour.
    pub(in crate::report) place: usize,
    /// The losses of the arm and of its control, for each seed.
    pub(in crate::report) pairs: Vec<[Vec<LossRow>; 2]>,
    /// Seconds per step of the arm and of its control, if known.
    pub(in crate::report) seconds_per_step: [Option<f64>; 2],
}

/// Charts of the same lines, one of which is visible.
#[derive(Debug, Serialize)]
pub(super) struct Panel {
    title: String,
    /// The label of the selector, and the chart.
    charts: Vec<(&'static str, String)>,
    /// The style class of each line, and its name.
    legend: Vec<(String, String)>,
    /// The number of lines beyond the maximum, which are not drawn.
    more: usize,
}

impl Panel {
    /// Creates a panel without a title.
    pub(super) fn of(charts: Vec<(&'static str, String)>, legend: Vec<(String, String)>, more: usize) -> Self {
        Self { title: String::new(), charts, legend, more }
    }

    #[cfg(test)]
    pub(super) fn titles(&self) -> Vec<&'static str> {
        self.charts.iter().map(|(title, _)| *title).collect()
    }
}

/// The legend text of the high-resolution images.
const TRUTH: &str = "real images";

/// The maximum number of curves to draw.
const MOST_CURVES: usize = 80;

/// The maximum number of points of all lines in a chart.
const MOST_POINTS: usize = 12_000;

/// Returns one panel for each kind of loss.
pub(super) fn panels(trainings: &[Training]) -> Vec<Panel> {
    let curves: Vec<Curve> = trainings.iter().map(|training| training.curve.clone()).collect();
    let panel = |panel: loss::Panel| {
        let shown: Vec<&Training> = panel.curves.iter().take(MOST_CURVES).map(|&i| &trainings[i]).collect();
        let crowded = shown.len() > loss::CROWD;
        let most = MOST_POINTS / shown.len().max(1);
        let lines: Vec<Vec<Line>> = shown.iter().map(|training| lines(training, crowded, most)).collect();
        let against = |title: &'static str, scale: &dyn Fn(&Training) -> Option<f64>| {
            let scaled = shown.iter().zip(&lines).filter_map(|(training, lines)| {
                let factor = scale(training)?;
                let line = |line: &Line| Line {
                    name: line.name.clone(),
                    points: line.points.iter().map(|(step, loss)| (factor * step, *loss)).collect(),
                    bands: line.bands.clone(),
                    ..*line
                };
                Some(lines.iter().map(line).collect::<Vec<_>>())
            });
            let lines: Vec<Line> = scaled.flatten().collect();
            let x = Axis { title, is_logarithmic: false };
            Chart { x, y: Axis { title: "loss", is_logarithmic: true }, lines, mark: None }.html()
        };
        let charts = [
            ("steps", against("steps", &|_| Some(1.0))),
            ("operations", against("TFLOPs", &|training| flops_per_step(&training.curve.rows).map(|f| f / 1e12))),
            ("seconds", against("seconds", &|training| training.seconds_per_step)),
        ];
        Panel {
            title: panel.title,
            charts: charts.into_iter().filter_map(|(name, chart)| Some((name, chart?))).collect(),
            legend: shown.iter().map(|t| (Pen::Arm(t.arm).class(), t.curve.name.clone())).collect(),
            more: panel.curves.len() - shown.len(),
        }
    };
    loss::panels(&curves).into_iter().map(panel).filter(|panel| !panel.charts.is_empty()).collect()
}

/// Draws how far each arm's validation loss is below that of its control, with confidence bands over the seeds. `None`
/// if no arm can be compared.
pub(super) fn leads(trainings: &[PairedTrainings]) -> Option<Panel> {
    let shown = &trainings[..trainings.len().min(MOST_CURVES)];
    let have_one_control = shown.windows(2).all(|pair| pair[0].control == pair[1].control);
    let name = |training: &PairedTrainings| match have_one_control {
        true => training.arm.clone(),
        false => format!("{} vs. {}", training.arm, training.control),
    };
    // Further lines of the same arm have the same colour but another dash pattern.
    let pen = |index: usize| {
        let earlier = shown[..index].iter().filter(|other| other.place == shown[index].place).count();
        Pen::Arm(shown[index].place + COLOURS * earlier)
    };
    let against = |title: &'static str, cost: &dyn Fn(&PairedTrainings, usize) -> Option<f64>| {
        let line = |(index, training): (usize, &PairedTrainings)| {
            let [arm, control] = [cost(training, 0)?, cost(training, 1)?];
            let mut pairs = vec![];
            for [of_arm, of_control] in &training.pairs {
                pairs.push([
                    loss::ScaledCurve { rows: of_arm, step: arm },
                    loss::ScaledCurve { rows: of_control, step: control },
                ]);
            }
            let leads = loss::lead(&pairs);
            let band = |of: fn(&loss::Lead) -> Option<[f64; 2]>| -> Option<Vec<(f64, f64)>> {
                leads.iter().map(|lead| of(lead).map(|[low, high]| (low, high))).collect()
            };
            Some(Line {
                name: name(training),
                pen: pen(index),
                has_dots: true,
                points: leads.iter().map(|lead| (lead.at, lead.percent)).collect(),
                bands: [band(|lead| lead.simultaneous), band(|lead| lead.pointwise)].into_iter().flatten().collect(),
                ..Line::default()
            })
        };
        let x = Axis { title, is_logarithmic: false };
        let y = Axis { title: "% lower validation loss than the control", is_logarithmic: false };
        Chart { x, y, lines: shown.iter().enumerate().filter_map(line).collect(), mark: None }.html()
    };
    let flops = |training: &PairedTrainings, side: usize| flops_per_step(&training.pairs.first()?[side]);
    let charts = [
        ("steps", against("steps", &|_, _| Some(1.0))),
        ("operations", against("TFLOPs", &|training, side| Some(flops(training, side)? / 1e12))),
        ("seconds", against("seconds", &|training, side| training.seconds_per_step[side])),
    ];
    let charts: Vec<_> = charts.into_iter().filter_map(|(name, chart)| Some((name, chart?))).collect();
    (!charts.is_empty()).then(|| Panel {
        title: String::new(),
        charts,
        legend: shown.iter().enumerate().map(|(index, t)| (pen(index).class(), name(t))).collect(),
        more: trainings.len() - shown.len(),
    })
}

/// Returns the operations per step, which are constant.
fn flops_per_step(rows: &[LossRow]) -> Option<f64> {
    rows.iter().rev().find_map(|row| Some(row.flops? / row.step as f64)).filter(|flops| *flops > 0.0)
}

/// Draws the validation losses over the seeds and, unless there are many, the smoothed training loss of the first seed.
fn lines(training: &Training, crowded: bool, most: usize) -> Vec<Line> {
    let first = loss::Lines::of(&training.curve, crowded);
    let pen = Pen::Arm(training.arm);
    let name = &training.curve.name;
    let back = Line { pen, is_background: true, points: thin(first.training, most / 2), ..Line::default() };
    let seeds: Vec<&[LossRow]> =
        std::iter::once(&training.curve.rows).chain(&training.other_seeds).map(Vec::as_slice).collect();
    let mut front = Line { name: name.clone(), pen, has_dots: true, ..Line::default() };
    let mut band = vec![];
    for (step, loss) in thin(first.validation, most) {
        let at_step = |rows: &&[LossRow]| rows.iter().find(|row| row.step as f64 == step)?.val_loss;
        let losses: Vec<f64> = seeds.iter().filter_map(at_step).filter(|loss| loss.is_finite()).collect();
        if losses.len() < 2 {
            front.points.push((step, loss));
            band.push((loss, loss));
            continue;
        }
        front.points.push((step, losses.iter().sum::<f64>() / losses.len() as f64));
        let ends = losses.iter().fold((loss, loss), |(low, high), loss| (low.min(*loss), high.max(*loss)));
        band.push(ends);
    }
    if !training.other_seeds.is_empty() {
        front.bands.push(band);
    }
    if front.points.is_empty() {
        // Only the training loss is available.
        return vec![Line { name: name.clone(), is_background: false, ..back }];
    }
    vec![back, front].into_iter().filter(|line| !line.points.is_empty()).collect()
}

/// Returns at most `most` of the points, including the last.
fn thin(points: Vec<(f64, f64)>, most: usize) -> Vec<(f64, f64)> {
    let stride = points.len().div_ceil(most.max(2)).max(1);
    let last = points.len().saturating_sub(1);
    points.into_iter().enumerate().filter(|(i, _)| (last - i).is_multiple_of(stride)).map(|(_, point)| point).collect()
}

/// Draws the power by frequency: of the real images, of bicubic enlargement and of each arm's samples.
pub(super) fn spectra(pictures: &Pictures) -> Panel {
    let truth = pictures.spectrum().decibels();
    let arms = pictures.arms().iter().enumerate().take(MOST_CURVES);
    let of_arms = arms.map(|(i, arm)| (Pen::Arm(i), arm.name.as_str(), arm.spectrum().decibels()));
    let bicubic = (Pen::Bicubic, BICUBIC, pictures.bicubic().spectrum().decibels());
    let all: Vec<(Pen, &str, Vec<f64>)> =
        [(Pen::Truth, TRUTH, truth.clone()), bicubic].into_iter().chain(of_arms).collect();
    let size = 2.0 * (truth.len() - 1) as f64;
    // Ring 0 is the remainder of the mean, which was subtracted.
    let against = |title: &'static str, reference: &dyn Fn(usize) -> f64| {
        let line = |(pen, name, decibels): &(Pen, &str, Vec<f64>)| Line {
            name: name.to_string(),
            pen: *pen,
            points: (1..decibels.len()).map(|ring| (ring as f64 / size, decibels[ring] - reference(ring))).collect(),
            ..Line::default()
        };
        let x = Axis { title: "cycles per pixel", is_logarithmic: false };
        let mark = Some((0.5 / pictures.scale() as f64, "Nyquist limit of LR"));
        let y = Axis { title, is_logarithmic: false };
        Chart { x, y, lines: all.iter().map(line).collect(), mark }.html()
    };
    let charts = [
        ("power", against("dB", &|_| truth.get(1).copied().unwrap_or_default())),
        ("relative to real images", against("dB relative to real images", &|ring| truth[ring])),
    ];
    Panel {
        title: String::new(),
        charts: charts.into_iter().filter_map(|(name, chart)| Some((name, chart?))).collect(),
        legend: all.iter().map(|(pen, name, _)| (pen.class(), name.to_string())).collect(),
        more: pictures.arms().len().saturating_sub(MOST_CURVES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::loss::tests::{curve, row};

    #[test]
    fn thinning_keeps_the_last_point() {
        let points: Vec<(f64, f64)> = (0..100).map(|i| (i as f64, 0.0)).collect();
        let thinned = thin(points.clone(), 30);
        assert_eq!((thinned.len(), thinned.last()), (25, points.last()));
        assert_eq!(thin(points.clone(), 100), points);
        assert_eq!(thin(vec![], 5), []);
    }

    #[test]
    fn seeds_are_drawn_as_a_line_with_a_band() {
        let rows = |loss: f64| vec![row(10, None, Some(loss)), row(20, None, Some(loss / 2.0))];
        let training = Training {
            curve: curve("a", rows(1.0)),
            other_seeds: vec![rows(2.0), rows(6.0)],
            arm: 3,
            seconds_per_step: Some(0.5),
        };
        let lines = lines(&training, false, 100);
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].points[0], lines[0].bands[0][0]), ((10.0, 3.0), (1.0, 6.0)));
        let panels = panels(&[training]);
        let names: Vec<&str> = panels[0].charts.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["steps", "seconds"], "operations are unknown");
        assert!(
            panels[0].charts[1].1.contains("<b>5 seconds</b>") && panels[0].charts[1].1.contains("<b>10 seconds</b>")
        );
    }

    #[test]
    fn every_arm_with_a_control_has_a_line_of_its_own() {
        let rows = |loss: f64| vec![row(10, None, Some(loss)), row(20, None, Some(loss / 2.0))];
        let paired = |arm: &str, place: usize, control: &str| PairedTrainings {
            arm: arm.to_string(),
            control: control.to_string(),
            place,
            pairs: vec![[rows(1.0), rows(2.0)]],
            seconds_per_step: [None, None],
        };
        let legend = |paired: &[PairedTrainings]| leads(paired).unwrap().legend;
        let text = |entries: [(&str, &str); 2]| entries.map(|(class, name)| (class.to_string(), name.to_string()));
        let of_one = legend(&[paired("a", 0, "c"), paired("b", 1, "c")]);
        assert_eq!(of_one, text([("p0 d0", "a"), ("p1 d0", "b")]));
        let of_two = legend(&[paired("a", 0, "b"), paired("a", 0, "c")]);
        assert_eq!(of_two, text([("p0 d0", "a vs. b"), ("p0 d1", "a vs. c")]));
        let panel = leads(&[paired("a", 0, "b"), paired("a", 0, "c")]).unwrap();
        assert_eq!(panel.charts[0].1.matches("<g class=\"line ").count(), 2);
    }
}
