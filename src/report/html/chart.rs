//! Line charts as SVG. The style sheet defines colours and fonts, so that they follow light and dark mode. Transparent
//! strips over a chart each show the values at their position on hover, without a script.

use std::fmt::Write;

use crate::comparison::axis::{label, linear_ticks, log_ticks, on_axis, significant};
use crate::comparison::names::short;

/// A chart of lines on two axes.
pub(super) struct Chart<'a> {
    pub(super) x: Axis<'a>,
    pub(super) y: Axis<'a>,
    pub(super) lines: Vec<Line>,
    /// A vertical line and its label.
    pub(super) mark: Option<(f64, &'a str)>,
}

pub(super) struct Axis<'a> {
    pub(super) title: &'a str,
    pub(super) is_logarithmic: bool,
}

#[derive(Default)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) pen: Pen,
    /// Whether the line is in the background: pale, and without values on hover.
    pub(super) is_background: bool,
    pub(super) has_dots: bool,
    pub(super) points: Vec<(f64, f64)>,
    /// Ranges around the line at each of its points, if it is the mean of several; the widest first.
    pub(super) bands: Vec<Vec<(f64, f64)>>,
}

/// The style class of an arm's line, the same in all charts of a comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Pen {
    #[default]
    Truth,
    Bicubic,
    Arm(usize),
}

/// The number of colours for arms.
pub(super) const COLOURS: usize = 7;

impl Pen {
    /// Seven colours that colour-blind readers can distinguish, then dashes, then dots.
    pub(super) fn class(self) -> String {
        match self {
            Self::Truth => "truth".into(),
            Self::Bicubic => "bicubic".into(),
            Self::Arm(index) => format!("p{} d{}", index % COLOURS, index / COLOURS % 3),
        }
    }
}

const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 588.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 276.0;

/// Lines with more points than this have no dots.
const MANY_POINTS: usize = 40;

/// The maximum number of hover positions in a chart.
const READINGS: usize = 48;

/// The maximum number of lines with values on hover.
const READ_TOGETHER: usize = 8;

/// A line has no value this far from its ends.
const NEAR: f64 = 24.0;

/// The maximum length in bytes of a name where there is little room.
const LONG_NAME: usize = 24;

impl Chart<'_> {
    /// Returns the drawing and its hover values, for one container; `None` without points. Logarithmic axes omit values
    /// that are not positive.
    pub(super) fn html(&self) -> Option<String> {
        let all =
            || self.lines.iter().flat_map(|line| &line.points).filter(|p| fits(&self.x, p.0) && fits(&self.y, p.1));
        let bands = || {
            let ends = self.lines.iter().flat_map(|line| line.bands.iter().flatten().flat_map(|b| [b.0, b.1]));
            ends.filter(|v| fits(&self.y, *v))
        };
        let x = Scale::around(all().map(|p| p.0), self.x.is_logarithmic, 0.0, [LEFT, RIGHT])?;
        let y = Scale::around(all().map(|p| p.1).chain(bands()), self.y.is_logarithmic, 0.04, [BOTTOM, TOP])?;
        let mut svg = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} against {}\">",
            escape(self.y.title),
            escape(self.x.title),
        );
        self.axes(&mut svg, &x, &y);
        if let Some((at, text)) = self.mark.filter(|(at, _)| (x.low..=x.high).contains(at)) {
            let at = number(x.place(at));
            let _ = write!(
                svg,
                "<line class=\"mark\" x1=\"{at}\" x2=\"{at}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>\
                 <text class=\"mark\" x=\"{at}\" dx=\"5\" y=\"{}\">{}</text>",
                TOP + 12.0,
                escape(text)
            );
        }
        for line in self.lines.iter().filter(|line| line.is_background) {
            let points = places(&x, &y, line.points.iter().filter(|p| fits(&self.x, p.0) && fits(&self.y, p.1)));
            let _ = write!(svg, "<polyline class=\"back {}\" points=\"{points}\"/>", line.pen.class());
        }
        for line in self.lines.iter().filter(|line| !line.is_background) {
            let kept: Vec<&(f64, f64)> =
                line.points.iter().filter(|p| fits(&self.x, p.0) && fits(&self.y, p.1)).collect();
            let class = line.pen.class();
            let _ = write!(svg, "<g class=\"line {class}\">");
            for band in line.bands.iter().filter(|band| band.len() == line.points.len()) {
                let ends = || line.points.iter().zip(band).filter(|(p, b)| fits(&self.x, p.0) && fits(&self.y, b.0));
                let low: Vec<(f64, f64)> = ends().map(|(p, b)| (p.0, b.0)).collect();
                let high: Vec<(f64, f64)> = ends().map(|(p, b)| (p.0, b.1)).collect();
                let outline = places(&x, &y, low.iter().chain(high.iter().rev()));
                let _ = write!(svg, "<polygon points=\"{outline}\"/>");
            }
            let _ = write!(svg, "<polyline points=\"{}\"/>", places(&x, &y, kept.iter().copied()));
            if line.has_dots && kept.len() <= MANY_POINTS {
                for &&(at, value) in &kept {
                    let (cx, cy) = (number(x.place(at)), number(y.place(value)));
                    let _ = write!(svg, "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"3\"/>");
                }
            }
            svg.push_str("</g>");
        }
        svg.push_str("</svg>");
        self.readings(&mut svg, &x, &y);
        Some(svg)
    }

    /// Returns the values of the lines at each position where one of them has a point, or at evenly spaced positions if
    /// there are many. Between points, values are interpolated as drawn.
    fn readings(&self, html: &mut String, x: &Scale, y: &Scale) {
        let lines: Vec<&Line> = self.lines.iter().filter(|line| !line.is_background).collect();
        let placed = |line: &&Line| -> Vec<(f64, f64)> {
            let fitting = line.points.iter().filter(|p| fits(&self.x, p.0) && fits(&self.y, p.1));
            fitting.map(|&(at, value)| (x.place(at), y.place(value))).collect()
        };
        let points: Vec<Vec<(f64, f64)>> = lines.iter().map(placed).collect();
        let names: Vec<&str> = lines.iter().map(|line| &*line.name).collect();
        let names = match names.iter().any(|name| name.len() > LONG_NAME) {
            true => short(&names),
            false => names.iter().map(|name| name.to_string()).collect(),
        };
        let mut places: Vec<f64> = points.iter().flatten().map(|point| point.0).collect();
        places.sort_by(f64::total_cmp);
        let (Some(&first), Some(&last)) = (places.first(), places.last()) else { return };
        places.dedup_by(|b, a| *b - *a < 1.0);
        if places.len() > READINGS {
            places = (0..READINGS).map(|i| first + (last - first) * i as f64 / (READINGS - 1) as f64).collect();
        }
        for (i, &place) in places.iter().enumerate() {
            // Sorted from top to bottom.
            let there = points.iter().enumerate().filter_map(|(line, points)| Some((line, height_at(points, place)?)));
            let mut there: Vec<(usize, f64)> = there.collect();
            there.sort_by(|a, b| a.1.total_cmp(&b.1));
            let from = if i == 0 { (place - NEAR).max(0.0) } else { (places[i - 1] + place) / 2.0 };
            let to = places.get(i + 1).map_or((place + NEAR).min(WIDTH), |next| (place + next) / 2.0);
            let _ = write!(
                html,
                "<div class=\"at{}\" style=\"left:{}%;width:{}%;--at:{}%\"><div class=\"tip\"><b>{} {}</b>",
                if place > WIDTH / 2.0 { " late" } else { "" },
                number(from / WIDTH * 100.0),
                number((to - from) / WIDTH * 100.0),
                number((place - from) / (to - from) * 100.0),
                x.text(place),
                escape(self.x.title),
            );
            let left_out = there.len().saturating_sub(READ_TOGETHER);
            for (i, &(line, height)) in there.iter().enumerate() {
                // The topmost and bottommost are the best and the worst.
                let between = i.checked_sub(READ_TOGETHER / 2).filter(|between| *between < left_out);
                if between == Some(0) {
                    let _ = write!(html, "<div>{left_out} more in between</div>");
                }
                if between.is_some() {
                    continue;
                }
                let (class, name, value) = (lines[line].pen.class(), escape(&names[line]), y.text(height));
                let _ = write!(html, "<div><i class=\"{class}\"></i><span>{name}</span><b>{value}</b></div>");
            }
            html.push_str("</div></div>");
        }
    }

    fn axes(&self, svg: &mut String, x: &Scale, y: &Scale) {
        for tick in x.ticks(6) {
            let at = number(x.place(tick));
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{at}\" x2=\"{at}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>\
                 <text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                BOTTOM + 17.0,
                label(tick)
            );
        }
        for tick in y.ticks(5) {
            let at = y.place(tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{0}\" y2=\"{0}\"/>\
                 <text x=\"{1}\" y=\"{2}\" text-anchor=\"end\">{3}</text>",
                number(at),
                LEFT - 7.0,
                number(at + 4.0),
                label(tick)
            );
        }
        let _ = write!(
            svg,
            "<polyline class=\"axis\" points=\"{LEFT},{TOP} {LEFT},{BOTTOM} {RIGHT},{BOTTOM}\"/>\
             <text class=\"title\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text class=\"title\" x=\"4\" y=\"14\">{}</text>",
            (LEFT + RIGHT) / 2.0,
            HEIGHT - 6.0,
            escape(self.x.title),
            escape(self.y.title),
        );
    }
}

/// Returns the height of a line at a position; `None` if it is not drawn nearby.
fn height_at(points: &[(f64, f64)], place: f64) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    match points.iter().position(|point| point.0 >= place) {
        Some(0) => (first.0 - place < NEAR).then_some(first.1),
        None => (place - last.0 < NEAR).then_some(last.1),
        Some(i) => {
            let (before, after) = (points[i - 1], points[i]);
            Some(before.1 + (after.1 - before.1) * (place - before.0) / (after.0 - before.0))
        }
    }
}

/// Whether a value can be drawn on an axis.
fn fits(axis: &Axis, value: f64) -> bool {
    value.is_finite() && (!axis.is_logarithmic || value > 0.0)
}

/// Maps values to positions.
struct Scale {
    low: f64,
    high: f64,
    is_logarithmic: bool,
    places: [f64; 2],
}

impl Scale {
    /// Adds a margin of `room` times the range at both ends. Returns `None` without values.
    fn around(values: impl Iterator<Item = f64>, is_logarithmic: bool, room: f64, places: [f64; 2]) -> Option<Self> {
        let range = values.fold(None, |range: Option<(f64, f64)>, v| {
            Some(range.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
        });
        let (low, high) = range?;
        let (low, high) = match is_logarithmic {
            true => {
                let factor = (high / low).powf(room).max(if low < high { 1.0 } else { 1.05 });
                (low / factor, high * factor)
            }
            false => {
                let span = if low < high { (high - low) * room } else { 0.5 };
                (low - span, high + span)
            }
        };
        Some(Self { low, high, is_logarithmic, places })
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.is_logarithmic {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        self.places[0] + share * (self.places[1] - self.places[0])
    }

    /// Returns the value at a position.
    fn value(&self, place: f64) -> f64 {
        let share = (place - self.places[0]) / (self.places[1] - self.places[0]);
        match self.is_logarithmic {
            true => self.low * (self.high / self.low).powf(share),
            false => self.low + share * (self.high - self.low),
        }
    }

    /// Formats the value at a position.
    fn text(&self, place: f64) -> String {
        let value = self.value(place);
        if self.is_logarithmic { significant(value, 4) } else { on_axis(value, self.high - self.low) }
    }

    fn ticks(&self, count: usize) -> Vec<f64> {
        let ticks = match self.is_logarithmic {
            true => log_ticks(self.low, self.high),
            false => linear_ticks(self.low, self.high, count),
        };
        ticks.into_iter().filter(|t| (self.low..=self.high).contains(t)).collect()
    }
}

fn places<'a>(x: &Scale, y: &Scale, points: impl Iterator<Item = &'a (f64, f64)>) -> String {
    let place = |&(at, value): &(f64, f64)| format!("{},{}", number(x.place(at)), number(y.place(value)));
    points.map(place).collect::<Vec<_>>().join(" ")
}

/// Formats a length in a drawing with two decimals, so that values read back from it remain distinct.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Escapes text for use between tags or in quotes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)], is_logarithmic: bool) -> Option<String> {
        let line = Line { name: "<a> & \"b\"".into(), has_dots: true, points: points.to_vec(), ..Line::default() };
        let axis = |title| Axis { title, is_logarithmic: false };
        Chart { x: axis("step"), y: Axis { title: "loss", is_logarithmic }, lines: vec![line], mark: None }.html()
    }

    #[test]
    fn values_are_drawn_at_their_positions() {
        let svg = chart(&[(0.0, 1.0), (100.0, 0.01), (200.0, f64::NAN), (300.0, 0.0)], true).unwrap();
        // The axis of steps has no margin, and values that cannot be drawn are omitted.
        let points = svg.rsplit("points=\"").next().unwrap().split('"').next().unwrap();
        let x: Vec<&str> = points.split(' ').map(|p| p.split(',').next().unwrap()).collect();
        assert_eq!(x, ["58", "588"]);
        assert!(
            svg.contains(
                "<b>100 step</b><div><i class=\"truth\"></i><span>&lt;a&gt; &amp; &quot;b&quot;</span><b>0.01</b>"
            ),
            "{svg}"
        );
        assert!(!svg.contains("<a>"));
        assert_eq!(chart(&[(0.0, 0.0)], true), None);
        assert!(chart(&[(0.0, 0.0)], false).is_some());
    }

    #[test]
    fn values_that_are_rounding_noise_are_0_on_hover() {
        for zero in [0.0, -6.07e-18, 3e-15] {
            let svg = chart(&[(0.0, -0.3), (1.0, zero), (2.0, 0.7)], false).unwrap();
            assert!(svg.contains("<b>1 step</b>") && svg.contains("</span><b>0</b>"), "{svg}");
        }
    }

    #[test]
    fn few_points_all_have_hover_values_and_many_are_sampled() {
        let of =
            |count: usize| chart(&(0..count).map(|i| (i as f64, 1.0 + i as f64)).collect::<Vec<_>>(), false).unwrap();
        let few = of(5);
        let shown: Vec<&str> =
            few.split("<div class=\"tip\"><b>").skip(1).map(|t| t.split(' ').next().unwrap()).collect();
        assert_eq!(shown, ["0", "1", "2", "3", "4"]);
        // The strips are adjacent, from before the first point to after the last.
        let number = |strip: &str, name: &str| -> f64 {
            strip.split(name).nth(1).unwrap().split('%').next().unwrap().parse().unwrap()
        };
        let strips: Vec<(f64, f64)> =
            few.split("class=\"at").skip(1).map(|s| (number(s, "left:"), number(s, "width:"))).collect();
        assert!(strips.windows(2).all(|w| (w[0].0 + w[0].1 - w[1].0).abs() < 0.02), "{strips:?}");
        assert!(strips[0].0 < 100.0 * LEFT / WIDTH && strips[4].0 + strips[4].1 > 100.0 * RIGHT / WIDTH, "{strips:?}");
        let many = of(1000);
        assert_eq!(many.matches("class=\"tip\"").count(), READINGS);
        assert!(many.contains("<b>0 step</b>") && many.contains("<b>999 step</b>"));
    }

    #[test]
    fn values_between_points_are_interpolated() {
        let points = [(0.0, 0.0), (100.0, 50.0), (200.0, 0.0)];
        assert_eq!([50.0, 100.0, 175.0].map(|place| height_at(&points, place).unwrap()), [25.0, 50.0, 12.5]);
        assert_eq!([-10.0, 210.0].map(|place| height_at(&points, place).unwrap()), [0.0, 0.0]);
        assert_eq!([-30.0, 230.0].map(|place| height_at(&points, place)), [None, None]);
        assert_eq!(height_at(&[], 0.0), None);
    }

    #[test]
    fn of_many_lines_the_highest_and_lowest_have_hover_values() {
        let line = |i: usize| Line { name: format!("n{i}"), points: vec![(1.0, 1.0 + i as f64)], ..Line::default() };
        let axis = |title| Axis { title, is_logarithmic: false };
        let lines = (0..READ_TOGETHER + 3).map(line).collect();
        let html = Chart { x: axis("step"), y: axis("loss"), lines, mark: None }.html().unwrap();
        assert!(
            html.contains("<span>n10</span><b>11</b>")
                && html.contains("<span>n0</span><b>1</b>")
                && !html.contains("<span>n5<")
                && html.contains("<div>3 more in between</div>"),
            "{html}"
        );
    }

    #[test]
    fn lengths_have_at_most_two_decimals() {
        assert_eq!([1.0, 1.5, 1.234, 100.0].map(number), ["1", "1.5", "1.23", "100"]);
    }
}
