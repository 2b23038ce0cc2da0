//! A sparkline of a loss.

/// The maximum number of points; above it, neighbours are merged.
const MOST: usize = 256;

/// The history of a value, in bounded memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Trail {
    points: Vec<f64>,
    /// The number of values per point, as a power of two.
    doublings: u32,
    /// The sum and number of the values of the incomplete last point.
    rest: (f64, u32),
}

impl Trail {
    /// Adds a value. Ignores values that are not finite.
    pub(super) fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.rest = (self.rest.0 + value, self.rest.1 + 1);
        if self.rest.1 < 1 << self.doublings {
            return;
        }
        self.points.push(self.rest.0 / f64::from(self.rest.1));
        self.rest = (0.0, 0);
        if self.points.len() == MOST {
            self.points = self.points.chunks(2).map(|pair| pair.iter().sum::<f64>() / pair.len() as f64).collect();
            self.doublings += 1;
        }
    }

    /// Returns a sparkline of at most `width` characters from ▁ to █, of means over equal spans. The scale is
    /// logarithmic if all values are positive, since losses fall by factors. Empty for fewer than two points.
    pub(super) fn sparkline(&self, width: usize) -> String {
        const MARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let n = self.points.len();
        let width = width.min(n);
        if width < 2 {
            return String::new();
        }
        let span = |i: usize| &self.points[i * n / width..(i + 1) * n / width];
        let means: Vec<f64> = (0..width).map(|i| span(i).iter().sum::<f64>() / span(i).len() as f64).collect();
        let by_magnitude = means.iter().all(|&mean| mean > 0.0);
        let heights: Vec<f64> = means.iter().map(|&mean| if by_magnitude { mean.ln() } else { mean }).collect();
        let low = heights.iter().copied().fold(f64::INFINITY, f64::min);
        let high = heights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mark = |height: f64| match high - low {
            range if range > 0.0 => MARKS[((height - low) / range * 7.0).round() as usize],
            _ => MARKS[0],
        };
        heights.into_iter().map(mark).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(values: impl IntoIterator<Item = f64>) -> Trail {
        let mut trail = Trail::default();
        values.into_iter().for_each(|value| trail.push(value));
        trail
    }

    #[test]
    fn an_exponentially_falling_loss_gives_a_straight_line() {
        assert_eq!(trail((0..8).map(|i| 0.5_f64.powi(i))).sparkline(8), "█▇▆▅▄▃▂▁");
        assert_eq!(trail((0..16).map(|i| -f64::from(i / 2))).sparkline(8), "█▇▆▅▄▃▂▁");
    }

    #[test]
    fn fewer_than_two_points_give_no_sparkline() {
        assert_eq!(trail([0.3]).sparkline(8), "");
        assert_eq!(trail([0.3, f64::NAN]).sparkline(8), "");
        assert_eq!(trail([0.3, 0.3, 0.3]).sparkline(8), "▁▁▁");
    }

    #[test]
    fn a_long_history_takes_bounded_space() {
        let long = trail((1..100_000).map(|i| 1.0 / f64::from(i)));
        assert!(long.points.len() < MOST);
        let line: Vec<char> = long.sparkline(16).chars().collect();
        assert_eq!((line.len(), line[0], line[15]), (16, '█', '▁'));
        assert!(line.windows(2).all(|pair| pair[0] >= pair[1]), "{line:?}");
    }
}
