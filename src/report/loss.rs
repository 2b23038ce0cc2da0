//! `loss.csv` as training writes it, and `loss.png`: the arms' losses against the steps.

use anyhow::Context;
use serde::Deserialize;

use super::axis::{label, linear_ticks, log_ticks};
use super::canvas::{Canvas, Color};
use super::text::{Align, Style};

/// A row of `loss.csv`: what was measured after a step.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LossRow {
    pub step: u64,
    /// The mean of the training loss over the steps since the row before.
    pub loss: Option<f64>,
    pub heldout_loss: Option<f64>,
    /// Floating-point operations of training so far.
    #[serde(default)]
    pub flops: Option<f64>,
}

/// One training's losses.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    pub name: String,
    pub rows: Vec<LossRow>,
}

/// Reads `loss.csv`; other columns are left alone.
pub fn read_loss(csv: &[u8]) -> anyhow::Result<Vec<LossRow>> {
    let rows: Result<_, _> = csv::Reader::from_reader(csv).into_deserialize().collect();
    rows.context("reading loss.csv")
}

/// Okabe and Ito's colours, which colour-blind readers can tell apart, without the yellow that white drowns.
const COLORS: [Color; 7] = [
    Color([0, 114, 178]),
    Color([213, 94, 0]),
    Color([0, 158, 115]),
    Color([204, 121, 167]),
    Color([230, 159, 0]),
    Color([86, 180, 233]),
    Color([70, 70, 70]),
];

/// Lengths of dash and gap in pixels; 0 is a solid line.
const DASHES: [f32; 3] = [0.0, 9.0, 4.0];

/// Above so many curves, training losses are drawn only of those that have no held-out loss.
const CROWD: usize = 6;

const HEIGHT: usize = 640;
const PLOT_WIDTH: f32 = 800.0;
const LEFT: f32 = 96.0;
const TOP: f32 = 40.0;
const BOTTOM: f32 = HEIGHT as f32 - 72.0;
const LEGEND_WIDTH: f32 = 280.0;
const LEGEND_LINE: f32 = 26.0;
const INK: Color = Color([20, 20, 20]);
const GREY: Color = Color([110, 110, 110]);
const GRID: Color = Color([228, 228, 228]);
const TICK: Style = Style::regular(16.0, INK);
const AXIS: Style = Style::regular(17.0, INK);
const NOTE: Style = Style::regular(15.0, GREY);

/// The curves as a PNG: held-out losses as marked lines, smoothed training losses thin behind them, on a logarithmic
/// axis. Losses that are not positive numbers have no place on it and are left out.
pub fn loss_curves(curves: &[Curve]) -> anyhow::Result<Vec<u8>> {
    let crowded = curves.len() > CROWD;
    let lines: Vec<Lines> = curves.iter().map(|c| Lines::of(c, crowded)).collect();
    let points = || lines.iter().flat_map(|l| l.training.iter().chain(&l.heldout));
    let names: Vec<Vec<String>> = curves.iter().map(|c| TICK.wrap(&c.name, LEGEND_WIDTH - 76.0, 3)).collect();
    let legend_lines = names.iter().map(Vec::len).sum::<usize>() + 3;
    let legend_bottom = TOP + legend_lines as f32 * LEGEND_LINE + LEGEND_LINE;
    let right = LEFT + PLOT_WIDTH;
    let mut canvas = Canvas::new((right + LEGEND_WIDTH) as usize, HEIGHT.max(legend_bottom as usize))?;

    let Some(frame) = Frame::around(points()) else {
        canvas.text("no loss was measured", right / 2.0, HEIGHT as f32 / 2.0, Align::Center, AXIS);
        return canvas.png();
    };
    for step in linear_ticks(0.0, frame.last_step, 6) {
        let x = frame.x(step);
        canvas.line(&[(x, TOP), (x, BOTTOM)], 1.0, GRID);
        canvas.text(&label(step), x, BOTTOM + 24.0, Align::Center, TICK);
    }
    for loss in log_ticks(frame.low, frame.high) {
        let y = frame.y(loss);
        canvas.line(&[(LEFT, y), (right, y)], 1.0, GRID);
        canvas.text(&label(loss), LEFT - 10.0, y + 5.5, Align::Right, TICK);
    }
    let corners = [(LEFT, TOP), (LEFT, BOTTOM), (right, BOTTOM)];
    canvas.line(&corners, 1.5, INK);
    canvas.text("step", (LEFT + right) / 2.0, BOTTOM + 54.0, Align::Center, AXIS);
    canvas.text("loss", LEFT - 10.0, TOP - 14.0, Align::Right, AXIS);

    let colors = || COLORS.iter().copied().cycle();
    // Once round the colours, lines are dashed.
    let dashes = || (0..).map(|i| DASHES[i / COLORS.len() % DASHES.len()]);
    let place = |points: &[(f64, f64)]| -> Vec<(f32, f32)> {
        points.iter().map(|&(step, loss)| (frame.x(step), frame.y(loss))).collect()
    };
    for (line, color) in lines.iter().zip(colors()) {
        canvas.line(&place(&line.training), 1.6, color.tint(0.45));
    }
    for ((line, color), dash) in lines.iter().zip(colors()).zip(dashes()) {
        let points = place(&line.heldout);
        canvas.dashed_line(&points, 2.4, color, dash);
        if points.len() <= 40 {
            points.iter().for_each(|&(x, y)| canvas.dot(x, y, 4.0, color));
        }
    }

    let left = right + 24.0;
    let mut y = TOP + LEGEND_LINE;
    for ((name, color), dash) in names.iter().zip(colors()).zip(dashes()) {
        canvas.dashed_line(&[(left, y - 5.0), (left + 26.0, y - 5.0)], 3.0, color, dash);
        for text in name {
            canvas.text(text, left + 36.0, y, Align::Left, TICK);
            y += LEGEND_LINE;
        }
    }
    y += LEGEND_LINE / 2.0;
    canvas.line(&[(left, y - 5.0), (left + 26.0, y - 5.0)], 2.4, GREY);
    canvas.dot(left + 13.0, y - 5.0, 4.0, GREY);
    canvas.text("held-out", left + 36.0, y, Align::Left, NOTE);
    if lines.iter().all(|l| l.training.is_empty()) {
        return canvas.png();
    }
    y += LEGEND_LINE;
    canvas.line(&[(left, y - 5.0), (left + 26.0, y - 5.0)], 1.6, GREY.tint(0.45));
    canvas.text("training, smoothed", left + 36.0, y, Align::Left, NOTE);
    canvas.png()
}

/// A curve's points that can be drawn: (step, loss).
struct Lines {
    training: Vec<(f64, f64)>,
    heldout: Vec<(f64, f64)>,
}

impl Lines {
    fn of(curve: &Curve, crowded: bool) -> Self {
        let points = |value: fn(&LossRow) -> Option<f64>| -> Vec<(f64, f64)> {
            let all = curve.rows.iter().filter_map(|r| value(r).map(|v| (r.step as f64, v)));
            all.filter(|(_, v)| v.is_finite() && *v > 0.0).collect()
        };
        let heldout = points(|r| r.heldout_loss);
        let training = if crowded && !heldout.is_empty() { vec![] } else { smooth(&points(|r| r.loss)) };
        Self { training, heldout }
    }
}

/// The mean over a window of a twentieth of the points about each; of more than a thousand points some are left out.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 40;
    let stride = points.len() / 1000 + 1;
    let mean = |i: usize| {
        // As far to either side, so that the ends are not drawn towards the middle.
        let reach = reach.min(i).min(points.len() - 1 - i);
        let window = &points[i - reach..=i + reach];
        (points[i].0, window.iter().map(|p| p.1).sum::<f64>() / window.len() as f64)
    };
    let mut kept: Vec<usize> = (0..points.len()).step_by(stride).collect();
    if let Some(last) = points.len().checked_sub(1).filter(|last| kept.last() != Some(last)) {
        kept.push(last);
    }
    kept.into_iter().map(mean).collect()
}

/// The plot's ranges.
struct Frame {
    last_step: f64,
    low: f64,
    high: f64,
}

impl Frame {
    /// The steps from 0 and the losses, with a little room; `None` without points.
    fn around<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> Option<Self> {
        let mut range: Option<(f64, f64, f64)> = None;
        for &(step, loss) in points {
            let (last, low, high) = range.unwrap_or((1.0, loss, loss));
            range = Some((last.max(step), low.min(loss), high.max(loss)));
        }
        let (last_step, low, high) = range?;
        let room = (high / low).powf(0.04).max(1.05);
        Some(Self { last_step, low: low / room, high: high * room })
    }

    fn x(&self, step: f64) -> f32 {
        LEFT + PLOT_WIDTH * (step / self.last_step) as f32
    }

    fn y(&self, loss: f64) -> f32 {
        BOTTOM - (BOTTOM - TOP) * ((loss / self.low).ln() / (self.high / self.low).ln()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: u64, loss: Option<f64>, heldout_loss: Option<f64>) -> LossRow {
        LossRow { step, loss, heldout_loss, flops: None }
    }

    fn size(png: &[u8]) -> (u32, u32) {
        let png = image::load_from_memory(png).unwrap();
        (png.width(), png.height())
    }

    #[test]
    fn empty_cells_and_other_columns_are_allowed() {
        let csv = b"step,loss,heldout_loss,lr,gradient_norm\n10,0.5,,1e-3,2\n20,NaN,0.25,1e-3,\n";
        let rows = read_loss(csv).unwrap();
        assert_eq!(rows[0], row(10, Some(0.5), None));
        assert!(rows[1].loss.unwrap().is_nan() && rows[1].heldout_loss == Some(0.25));
        assert_eq!(read_loss(b"step,loss,heldout_loss,lr,gradient_norm\n").unwrap(), []);
        assert!(read_loss(b"step,loss,heldout_loss\nten,1,\n").is_err());
        assert!(read_loss(b"when,loss\n1,1\n").is_err());
    }

    #[test]
    fn smoothing_keeps_lines_straight_and_evens_out_noise() {
        let line: Vec<(f64, f64)> = (0..400).map(|i| (i as f64, 3.0 + 2.0 * i as f64)).collect();
        assert!(smooth(&line).iter().all(|(x, y)| (y - 3.0 - 2.0 * x).abs() < 1e-9));
        let noise: Vec<(f64, f64)> = (0..400).map(|i| (i as f64, 5.0 + f64::from(i % 2))).collect();
        let smoothed = smooth(&noise);
        assert!(smoothed[11..389].iter().all(|(_, y)| (y - 5.5).abs() < 0.05));
        let many: Vec<(f64, f64)> = (0..12_345).map(|i| (i as f64, 1.0)).collect();
        let kept = smooth(&many);
        assert!(kept.len() <= 1001 && kept.last() == many.last());
        assert_eq!(smooth(&[]), []);
    }

    #[test]
    fn losses_lie_within_the_frame_on_a_logarithmic_axis() {
        let frame = Frame::around([(10.0, 1.0), (1000.0, 0.01)].iter()).unwrap();
        let middle = (frame.y(1.0) + frame.y(0.01)) / 2.0;
        assert!((frame.y(0.1) - middle).abs() < 1e-3);
        assert!(TOP < frame.y(1.0) && frame.y(0.01) < BOTTOM && frame.y(1.0) < frame.y(0.1));
        assert_eq!((frame.x(0.0), frame.x(1000.0)), (LEFT, LEFT + PLOT_WIDTH));
        // One point, or a flat curve, still has a range.
        let flat = Frame::around([(5.0, 0.3)].iter()).unwrap();
        assert!(flat.low < 0.3 && flat.high > 0.3);
    }

    #[test]
    fn losses_that_no_axis_has_are_left_out() {
        let rows = vec![row(1, Some(f64::NAN), Some(0.0)), row(2, Some(-1.0), Some(f64::INFINITY)), row(3, None, None)];
        let curve = Curve { name: "diverged".into(), rows };
        assert!(Frame::around(Lines::of(&curve, false).training.iter()).is_none());
        assert_eq!(size(&loss_curves(&[curve]).unwrap()), (1176, 640));
        assert_eq!(size(&loss_curves(&[]).unwrap()), (1176, 640));
    }

    #[test]
    fn many_curves_are_drawn_without_noise() {
        let measured = Curve { name: "a".into(), rows: vec![row(1, Some(1.0), Some(2.0))] };
        let unmeasured = Curve { name: "b".into(), rows: vec![row(1, Some(1.0), None)] };
        assert_eq!(Lines::of(&measured, false).training, [(1.0, 1.0)]);
        assert_eq!(
            (Lines::of(&measured, true).training, Lines::of(&measured, true).heldout),
            (vec![], vec![(1.0, 2.0)])
        );
        assert_eq!(Lines::of(&unmeasured, true).training, [(1.0, 1.0)]);
    }

    #[test]
    fn the_picture_grows_with_its_legend() {
        let curve = |i: usize| Curve { name: format!("arm {i}"), rows: vec![row(1, Some(1.0), None)] };
        let png = loss_curves(&(0..40).map(curve).collect::<Vec<_>>()).unwrap();
        assert!(size(&png).1 > 40 * 26);
    }
}
