//! A sparkline of a loss, such as `█▆▅▄▃▂▁▁`.

/// The maximum number of points. When it is reached, neighbouring points are merged.
const MAX_POINTS: usize = 256;

/// The history of a value in bounded memory, which can be drawn as a sparkline.
#[derive(Debug, Clone, Default)]
pub(super) struct Sparkline {
    points: Vec<f64>,
    /// The number of values per point, as a power of two.
    doublings: u32,
    /// The sum and number of the values in the incomplete last point.
    partial: (f64, u32),
}

impl Sparkline {
    /// Adds a value. Ignores values that are not finite.
    pub(super) fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.partial = (self.partial.0 + value, self.partial.1 + 1);
        if self.partial.1 < 1 << self.doublings {
            return;
        }
        self.points.push(self.partial.0 / f64::from(self.partial.1));
        self.partial = (0.0, 0);
        if self.points.len() == MAX_POINTS {
            self.points = self.points.chunks(2).map(|pair| pair.iter().sum::<f64>() / pair.len() as f64).collect();
            self.doublings += 1;
        }
    }

    /// Returns at most `width` characters from ▁ to █, for the means over equal spans; empty for fewer than two points.
    /// The scale is logarithmic if all values are positive, because losses fall by factors.
    pub(super) fn render(&self, width: usize) -> String {
        const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let n = self.points.len();
        let width = width.min(n);
        if width < 2 {
            return String::new();
        }
        let span = |i: usize| &self.points[i * n / width..(i + 1) * n / width];
        let means: Vec<f64> = (0..width).map(|i| span(i).iter().sum::<f64>() / span(i).len() as f64).collect();
        let is_logarithmic = means.iter().all(|&mean| mean > 0.0);
        let heights: Vec<f64> = means.iter().map(|&mean| if is_logarithmic { mean.ln() } else { mean }).collect();
        let low = heights.iter().copied().fold(f64::INFINITY, f64::min);
        let high = heights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let block = |height: f64| match high - low {
            range if range > 0.0 => BLOCKS[((height - low) / range * 7.0).round() as usize],
            _ => BLOCKS[0],
        };
        heights.into_iter().map(block).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparkline(values: impl IntoIterator<Item = f64>) -> Sparkline {
        let mut sparkline = Sparkline::default();
        values.into_iter().for_each(|value| sparkline.push(value));
        sparkline
    }

    #[test]
    fn an_exponentially_falling_loss_gives_a_straight_line() {
        assert_eq!(sparkline((0..8).map(|i| 0.5_f64.powi(i))).render(8), "█▇▆▅▄▃▂▁");
        assert_eq!(sparkline((0..16).map(|i| -f64::from(i / 2))).render(8), "█▇▆▅▄▃▂▁");
    }

    #[test]
    fn fewer_than_two_points_give_no_sparkline() {
        assert_eq!(sparkline([0.3]).render(8), "");
        assert_eq!(sparkline([0.3, f64::NAN]).render(8), "");
        assert_eq!(sparkline([0.3, 0.3, 0.3]).render(8), "▁▁▁");
    }

    #[test]
    fn a_long_history_takes_bounded_space() {
        let long = sparkline((1..100_000).map(|i| 1.0 / f64::from(i)));
        assert!(long.points.len() < MAX_POINTS);
        let line: Vec<char> = long.render(16).chars().collect();
        assert_eq!((line.len(), line[0], line[15]), (16, '█', '▁'));
        assert!(line.windows(2).all(|pair| pair[0] >= pair[1]), "{line:?}");
    }
}
