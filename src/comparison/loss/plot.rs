//! Draws `loss.png`.

use super::super::axis::{label, linear_ticks, log_ticks};
use super::super::canvas::Canvas;
use super::super::color::Color;
use super::super::names::wrapped;
use super::super::text::{Align, Style};
use super::{CROWD, Curve, Lines, Panel, panels};

/// Okabe and Ito's colour-blind-safe palette, without yellow, which is hard to see on white.
const COLORS: [Color; 7] = [
    Color([0, 114, 178]),
    Color([213, 94, 0]),
    Color([0, 158, 115]),
    Color([204, 121, 167]),
    Color([230, 159, 0]),
    Color([86, 180, 233]),
    Color([70, 70, 70]),
];

/// The length of dashes and gaps in pixels; 0 is a solid line.
const DASHES: [f32; 3] = [0.0, 9.0, 4.0];

const PLOT_WIDTH: f32 = 800.0;
/// The height of a single plot, and of each of several.
const PLOT_HEIGHTS: [f32; 2] = [528.0, 340.0];
const LEFT: f32 = 96.0;
const RIGHT: f32 = LEFT + PLOT_WIDTH;
/// The margins above a plot, with its title, and below it, with its axis.
const ABOVE: f32 = 44.0;
const BELOW: f32 = 72.0;
const LEGEND_WIDTH: f32 = 280.0;
const LEGEND_LINE: f32 = 26.0;
const INK: Color = Color([20, 20, 20]);
const GREY: Color = Color([110, 110, 110]);
const GRID: Color = Color([228, 228, 228]);
const TICK: Style = Style::regular(16.0, INK);
const AXIS: Style = Style::regular(17.0, INK);
const TITLE: Style = Style::bold(17.0, INK);
const NOTE: Style = Style::regular(15.0, GREY);

/// Draws the curves as a PNG, one plot per kind of loss: validation losses as lines with markers, with smoothed
/// training losses as thin lines behind them, on a logarithmic axis. Losses that are not positive and finite are
/// omitted.
pub fn loss_curves(curves: &[Curve]) -> anyhow::Result<Vec<u8>> {
    let panels = panels(curves);
    let plot_height = PLOT_HEIGHTS[usize::from(panels.len() > 1)];
    let plots: Vec<Plot> = panels.iter().map(|panel| Plot::new(panel, curves, plot_height)).collect();
    let height = plots.iter().map(Plot::height).sum::<f32>().max(ABOVE + PLOT_HEIGHTS[0] + BELOW);
    let mut canvas = Canvas::new((RIGHT + LEGEND_WIDTH) as usize, height.ceil() as usize)?;
    if plots.iter().all(|plot| plot.points().next().is_none()) {
        canvas.text("no losses were measured", RIGHT / 2.0, height / 2.0, Align::Center, AXIS);
        return canvas.png();
    }
    // Steps are comparable, so all plots share one range.
    let last_step = plots.iter().flat_map(Plot::points).map(|(step, _)| *step).fold(1.0, f64::max);
    let mut top = 0.0;
    for plot in &plots {
        plot.draw(&mut canvas, top, last_step);
        top += plot.height();
    }
    canvas.png()
}

/// The layout of one panel.
struct Plot<'a> {
    title: &'a str,
    /// The points, legend name and style of each curve.
    lines: Vec<(Lines, Vec<String>, Pen)>,
    /// The area of the axes.
    height: f32,
}

/// A line's style, the same in every plot.
#[derive(Clone, Copy)]
struct Pen {
    color: Color,
    dash: f32,
}

impl Pen {
    /// Lines are dashed after all colours are used.
    fn of(curve: usize) -> Self {
        let round = curve / COLORS.len();
        Self { color: COLORS[curve % COLORS.len()], dash: DASHES[round % DASHES.len()] }
    }
}

impl<'a> Plot<'a> {
    fn new(panel: &'a Panel, curves: &[Curve], height: f32) -> Self {
        let crowded = panel.curves.len() > CROWD;
        let names: Vec<&str> = panel.curves.iter().map(|&i| &*curves[i].name).collect();
        let legend = wrapped(&names, |_, name| TICK.wrap(name, LEGEND_WIDTH - 76.0, 3));
        let line = |(&i, name)| (Lines::of(&curves[i], crowded), name, Pen::of(i));
        Self { title: &panel.title, lines: panel.curves.iter().zip(legend).map(line).collect(), height }
    }

    fn points(&self) -> impl Iterator<Item = &(f64, f64)> {
        self.lines.iter().flat_map(|(line, ..)| line.training.iter().chain(&line.validation))
    }

    /// Including the labels around the axes.
    fn height(&self) -> f32 {
        let names = self.lines.iter().map(|(_, name, _)| name.len()).sum::<usize>();
        (ABOVE + self.height + BELOW).max(ABOVE + (names + 4) as f32 * LEGEND_LINE)
    }

    fn draw(&self, canvas: &mut Canvas, top: f32, last_step: f64) {
        let (top, bottom) = (top + ABOVE, top + ABOVE + self.height);
        canvas.text(self.title, LEFT + 12.0, top - 16.0, Align::Left, TITLE);
        let Some(frame) = Frame::around(self.points(), last_step, top, bottom) else {
            let names: Vec<String> = self.lines.iter().map(|(_, name, _)| name.join(" ")).collect();
            let text = format!("no losses of {} were measured", names.join(", "));
            canvas.text(&text, (LEFT + RIGHT) / 2.0, (top + bottom) / 2.0, Align::Center, AXIS);
            return;
        };
        frame.draw(canvas);
        for (line, _, pen) in &self.lines {
            canvas.line(&frame.place(&line.training), 1.6, pen.color.tint(0.45));
        }
        for (line, _, pen) in &self.lines {
            let points = frame.place(&line.validation);
            canvas.dashed_line(&points, 2.4, pen.color, pen.dash);
            if points.len() <= 40 {
                points.iter().for_each(|&(x, y)| canvas.dot(x, y, 4.0, pen.color));
            }
        }
        self.legend(canvas, top);
    }

    fn legend(&self, canvas: &mut Canvas, top: f32) {
        let left = RIGHT + 24.0;
        let mut y = top + LEGEND_LINE;
        for (_, name, pen) in &self.lines {
            canvas.dashed_line(&[(left, y - 5.0), (left + 26.0, y - 5.0)], 3.0, pen.color, pen.dash);
            for text in name {
                canvas.text(text, left + 36.0, y, Align::Left, TICK);
                y += LEGEND_LINE;
            }
        }
        y += LEGEND_LINE / 2.0;
        canvas.line(&[(left, y - 5.0), (left + 26.0, y - 5.0)], 2.4, GREY);
        canvas.dot(left + 13.0, y - 5.0, 4.0, GREY);
        canvas.text("validation", left + 36.0, y, Align::Left, NOTE);
        if self.lines.iter().any(|(line, ..)| !line.training.is_empty()) {
            y += LEGEND_LINE;
            canvas.line(&[(left, y - 5.0), (left + 26.0, y - 5.0)], 1.6, GREY.tint(0.45));
            canvas.text("training, smoothed", left + 36.0, y, Align::Left, NOTE);
        }
    }
}

/// A plot's ranges and its area in the image.
struct Frame {
    last_step: f64,
    low: f64,
    high: f64,
    top: f32,
    bottom: f32,
}

impl Frame {
    /// Returns the ranges from 0 to `last_step` and over the losses, with some margin; `None` without points.
    fn around<'a>(points: impl Iterator<Item = &'a (f64, f64)>, last_step: f64, top: f32, bottom: f32) -> Option<Self> {
        let mut range: Option<(f64, f64)> = None;
        for &(_, loss) in points {
            let (low, high) = range.unwrap_or((loss, loss));
            range = Some((low.min(loss), high.max(loss)));
        }
        let (low, high) = range?;
        let room = (high / low).powf(0.04).max(1.05);
        Some(Self { last_step, low: low / room, high: high * room, top, bottom })
    }

    fn x(&self, step: f64) -> f32 {
        LEFT + PLOT_WIDTH * (step / self.last_step) as f32
    }

    fn y(&self, loss: f64) -> f32 {
        let part = (loss / self.low).ln() / (self.high / self.low).ln();
        self.bottom - (self.bottom - self.top) * part as f32
    }

    fn place(&self, points: &[(f64, f64)]) -> Vec<(f32, f32)> {
        points.iter().map(|&(step, loss)| (self.x(step), self.y(loss))).collect()
    }

    /// Draws the axes with their ticks.
    fn draw(&self, canvas: &mut Canvas) {
        let (top, bottom) = (self.top, self.bottom);
        for step in linear_ticks(0.0, self.last_step, 6) {
            let x = self.x(step);
            canvas.line(&[(x, top), (x, bottom)], 1.0, GRID);
            canvas.text(&label(step), x, bottom + 24.0, Align::Center, TICK);
        }
        for loss in log_ticks(self.low, self.high) {
            let y = self.y(loss);
            canvas.line(&[(LEFT, y), (RIGHT, y)], 1.0, GRID);
            canvas.text(&label(loss), LEFT - 10.0, y + 5.5, Align::Right, TICK);
        }
        canvas.line(&[(LEFT, top), (LEFT, bottom), (RIGHT, bottom)], 1.5, INK);
        canvas.text("step", (LEFT + RIGHT) / 2.0, bottom + 54.0, Align::Center, AXIS);
        canvas.text("loss", LEFT - 10.0, top - 16.0, Align::Right, AXIS);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{curve, row};
    use super::*;
    use crate::config::{DiffusionParams, PredictionType};

    fn size(png: &[u8]) -> (u32, u32) {
        let png = image::load_from_memory(png).unwrap();
        (png.width(), png.height())
    }

    #[test]
    fn losses_lie_within_the_frame_on_a_logarithmic_axis() {
        let frame = Frame::around([(10.0, 1.0), (1000.0, 0.01)].iter(), 1000.0, 50.0, 400.0).unwrap();
        let middle = (frame.y(1.0) + frame.y(0.01)) / 2.0;
        assert!((frame.y(0.1) - middle).abs() < 1e-3);
        assert!(50.0 < frame.y(1.0) && frame.y(0.01) < 400.0 && frame.y(1.0) < frame.y(0.1));
        assert_eq!((frame.x(0.0), frame.x(1000.0)), (LEFT, RIGHT));
        // A single point or a flat curve still has a range.
        let flat = Frame::around([(5.0, 0.3)].iter(), 5.0, 50.0, 400.0).unwrap();
        assert!(flat.low < 0.3 && flat.high > 0.3);
    }

    #[test]
    fn losses_that_cannot_be_drawn_are_omitted() {
        let rows = vec![row(1, Some(f64::NAN), Some(0.0)), row(2, Some(-1.0), Some(f64::INFINITY)), row(3, None, None)];
        let diverged = curve("diverged", rows);
        assert_eq!(size(&loss_curves(std::slice::from_ref(&diverged)).unwrap()), (1176, 644));
        assert_eq!(size(&loss_curves(&[]).unwrap()), (1176, 644));
        // Next to another curve, the diverged one has an empty panel.
        let mut other = curve("regression", vec![row(1, Some(1.0), None)]);
        other.diffusion.as_mut().unwrap().objective = PredictionType::Regression;
        assert_eq!(size(&loss_curves(&[diverged, other]).unwrap()), (1176, 2 * 456));
    }

    /// A curve's colour occurs in its own panel and nowhere else.
    #[test]
    fn every_kind_of_loss_has_a_panel_of_its_own() {
        let rows = || (0..=10).map(|i| row(100 * i, None, Some(1.0 / (i + 1) as f64))).collect();
        let regression = DiffusionParams { objective: PredictionType::Regression, ..Default::default() };
        let curves = [curve("v", rows()), Curve { diffusion: Some(regression), ..curve("regression", rows()) }];
        let png = image::load_from_memory(&loss_curves(&curves).unwrap()).unwrap().to_rgb8();
        for (panel, color) in [COLORS[0], COLORS[1]].into_iter().enumerate() {
            let rows = png.enumerate_pixels().filter(|(_, _, pixel)| pixel.0 == color.0).map(|(_, y, _)| y as usize);
            let (low, high) = rows.fold((usize::MAX, 0), |(low, high), y| (low.min(y), high.max(y)));
            assert_eq!((low / 456, high / 456), (panel, panel), "{low} to {high}");
        }
    }

    #[test]
    fn the_picture_grows_with_its_legend() {
        let curve = |i: usize| curve(&format!("arm {i}"), vec![row(1, Some(1.0), None)]);
        let png = loss_curves(&(0..40).map(curve).collect::<Vec<_>>()).unwrap();
        assert!(size(&png).1 > 40 * 26);
    }
}
