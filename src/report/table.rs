//! The comparison for the terminal.

use super::summary::{ArmSummary, Summary};

/// One column of figures.
struct Metric {
    head: &'static str,
    value: fn(&ArmSummary) -> Option<f64>,
    decimals: usize,
    /// Whether the arms can be ranked by it, more being better. A held-out loss cannot rank: models of different
    /// objectives and targets measure different things.
    ranks: bool,
    /// Of the mean of K samples: only of interest where there is more than one.
    of_mean: bool,
}

const METRICS: [Metric; 8] = [
    Metric { head: "PSNR", value: |a| Some(a.figures.psnr_sample), decimals: 2, ranks: true, of_mean: false },
    Metric { head: "of mean", value: |a| Some(a.figures.psnr_mean), decimals: 2, ranks: true, of_mean: true },
    Metric { head: "PSNR-Y", value: |a| a.figures.psnr_y_sample, decimals: 2, ranks: true, of_mean: false },
    Metric { head: "of mean", value: |a| a.figures.psnr_y_mean, decimals: 2, ranks: true, of_mean: true },
    Metric { head: "SSIM", value: |a| a.figures.ssim_sample, decimals: 4, ranks: true, of_mean: false },
    Metric { head: "of mean", value: |a| a.figures.ssim_mean, decimals: 4, ranks: true, of_mean: true },
    Metric { head: "LR-PSNR", value: |a| Some(a.figures.consistency_psnr), decimals: 2, ranks: true, of_mean: false },
    Metric { head: "loss", value: |a| a.figures.heldout_loss, decimals: 5, ranks: false, of_mean: false },
];

/// Arms × metrics as rows of strings, the heads first; the best of a column ends in `*`, the others in a space, so
/// that right-aligned columns stay even. Metrics that no arm has are left out, as are means where there is one sample.
pub fn table(summary: &Summary) -> Vec<Vec<String>> {
    let arms: Vec<(&str, &ArmSummary)> = summary.in_order().collect();
    let applies = |m: &&Metric| (summary.samples > 1 || !m.of_mean) && arms.iter().any(|(_, a)| (m.value)(a).is_some());
    let metrics: Vec<&Metric> = METRICS.iter().filter(applies).collect();
    let best = |m: &Metric| arms.iter().filter_map(|(_, a)| (m.value)(a)).max_by(f64::total_cmp).filter(|_| m.ranks);

    let mut rows = vec![vec!["arm".to_string()]];
    rows[0].extend(metrics.iter().map(|m| format!("{} ", m.head)));
    for (name, arm) in &arms {
        let mut row = vec![name.to_string()];
        row.extend(metrics.iter().map(|m| match (m.value)(arm) {
            Some(v) => format!("{v:.*}{}", m.decimals, if best(m) == Some(v) { '*' } else { ' ' }),
            None => "- ".to_string(),
        }));
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::tests::{FLOORS, measured};

    #[test]
    fn the_best_of_a_column_is_marked() {
        let rows = table(&Summary::of(&measured(), FLOORS));
        let rows: Vec<String> = rows.iter().map(|r| r.join("|")).collect();
        assert_eq!(
            rows,
            [
                "arm|PSNR |of mean |PSNR-Y |of mean |LR-PSNR |loss ",
                "bicubic|21.25*|21.25 |22.25*|22.25 |42.50*|- ",
                "attention, 2|18.50 |21.50*|19.50 |22.50*|37.00 |0.12500 ",
                "baseline|18.25 |21.00 |19.25 |22.00 |36.50 |- ",
            ]
        );
    }

    #[test]
    fn one_sample_has_no_mean() {
        let mut arms = measured();
        arms.truncate(1);
        assert_eq!(table(&Summary::of(&arms, FLOORS))[0], ["arm", "PSNR ", "PSNR-Y ", "LR-PSNR "]);
    }
}
