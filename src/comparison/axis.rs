//! Tick positions and labels of plot axes.

/// Returns about `count` evenly spaced round values in `low..=high`.
pub fn linear_ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let span = high - low;
    if !(span > 0.0 && span.is_finite()) {
        return vec![low];
    }
    let raw = span / count.max(1) as f64;
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw * 0.999).unwrap_or(raw);
    let first = (low / step - 1e-9).ceil() as i64;
    // Multiplied rather than accumulated, so that errors do not add up.
    (first..).map(|i| i as f64 * step).take_while(|v| *v <= high + 1e-9 * span).collect()
}

/// Returns tick values for a logarithmic axis over `low..=high`, both positive: powers of ten; with 2 and 5 or every
/// multiple in between if there are few; evenly spaced values if the range is narrow.
pub fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let within = |multiples: &[f64]| -> Vec<f64> {
        let all = decades.clone().flat_map(|d| multiples.iter().map(move |m| m * 10_f64.powi(d)));
        all.filter(|v| (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(v)).collect()
    };
    let powers = within(&[1.0]);
    if powers.len() > 8 {
        return powers.into_iter().step_by(2).collect();
    }
    if powers.len() >= 4 {
        return powers;
    }
    for multiples in [&[1.0, 2.0, 5.0][..], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]] {
        let ticks = within(multiples);
        if ticks.len() >= 4 {
            return ticks;
        }
    }
    linear_ticks(low, high, 5)
}

/// Formats a tick's label: 0.05, 2000, 1e-6; without floating-point noise in the last digits.
pub fn label(value: f64) -> String {
    significant(value, 10)
}

/// Formats a value with at most `digits` significant digits: 0.05, 2000, 1e-6.
pub fn significant(value: f64, digits: usize) -> String {
    let precision = digits - 1;
    let rounded: f64 = format!("{value:.precision$e}").parse().unwrap_or(value);
    match rounded.abs() {
        0.0 => "0".to_string(),
        v if (1e-4..1e6).contains(&v) => rounded.to_string(),
        _ => format!("{rounded:e}"),
    }
}

/// Formats a value on a linear axis that spans `range`, rounded to a thousandth of the range or finer, so that rounding
/// noise becomes 0. For ranges below a million, integers are not rounded, because they may be counts of training steps.
pub fn on_axis(value: f64, range: f64) -> String {
    let power = range.abs().log10().floor();
    if !power.is_finite() {
        return significant(value, 4);
    }
    let step = 10_f64.powf(if power < 6.0 { (power - 3.0).min(0.0) } else { power - 3.0 });
    let steps = (value / step).round();
    // Values far from 0 need more digits than the range has.
    if steps.abs() < 1e12 { label(steps * step) } else { label(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: Vec<f64>) -> Vec<String> {
        ticks.into_iter().map(label).collect()
    }

    #[test]
    fn linear_ticks_are_round() {
        assert_eq!(labels(linear_ticks(0.0, 1500.0, 6)), ["0", "500", "1000", "1500"]);
        assert_eq!(labels(linear_ticks(0.0, 10.0, 5)), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(linear_ticks(0.11, 0.13, 5)), ["0.11", "0.115", "0.12", "0.125", "0.13"]);
        assert_eq!(linear_ticks(3.0, 3.0, 5), [3.0]);
    }

    #[test]
    fn values_on_an_axis_have_the_digits_of_its_range() {
        let texts = [-6.07e-18, -0.0, 1.2345678, -12.3456, 0.00049].map(|value| on_axis(value, 25.0));
        assert_eq!(texts, ["0", "0", "1.23", "-12.35", "0"]);
        assert_eq!([99.99951, 100.0001].map(|value| on_axis(value, 0.001)), ["99.99951", "100.0001"]);
        assert_eq!([12_345.6, 3e7].map(|value| on_axis(value, 20_000.0)), ["12346", "3e7"]);
        assert_eq!(on_axis(2.34567e-7, 1e-6), "2.35e-7");
        assert_eq!(on_axis(1.23456, 0.0), "1.235");
        assert_eq!([0.0, -0.0, 1234.5678, 1.5e-7].map(|value| significant(value, 4)), ["0", "0", "1235", "1.5e-7"]);
    }

    #[test]
    fn log_ticks_suit_the_range() {
        assert_eq!(labels(log_ticks(1e-3, 2.0)), ["0.001", "0.01", "0.1", "1"]);
        assert_eq!(labels(log_ticks(0.015, 0.9)), ["0.02", "0.05", "0.1", "0.2", "0.5"]);
        assert_eq!(labels(log_ticks(0.35, 0.8)), ["0.4", "0.5", "0.6", "0.7", "0.8"]);
        assert_eq!(labels(log_ticks(0.101, 0.119)), ["0.105", "0.11", "0.115"]);
        assert_eq!(labels(log_ticks(1e-9, 1e2)).len(), 6);
        assert_eq!(label(2e-7), "2e-7");
    }
}
