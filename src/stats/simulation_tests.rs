//! Error rates of the verdicts, from simulated studies with known effects.

use rayon::prelude::*;

use super::{ALPHA, Family, Looks, Question, Verdict, answer, power};
use crate::random::{Purpose, Stream, stream};

/// The distribution of an arm's results over its seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Noise {
    Normal,
    /// Exponentially distributed.
    Skewed,
    /// Student's t with three degrees of freedom.
    HeavyTailed,
}

impl Noise {
    /// Returns a value with mean 0 and standard deviation 1.
    fn draw(self, stream: &mut Stream) -> f64 {
        match self {
            Self::Normal => stream.normal(),
            Self::Skewed => -(1.0 - stream.uniform()).ln() - 1.0,
            Self::HeavyTailed => {
                let square: f64 = (0..3).map(|_| stream.normal().powi(2)).sum();
                stream.normal() / square.sqrt()
            }
        }
    }
}

/// A simulated study that compares arms with one control. It has one result for each arm, seed and test image.
#[derive(Debug, Clone, Copy)]
struct Study {
    /// The number of arms; each is claimed to be better than the control.
    claims: usize,
    seeds: usize,
    noise: Noise,
    /// Whether the control does not vary, like bicubic enlargement.
    is_control_fixed: bool,
    /// The standard deviation between images of an arm's gain over the control, which is the same for all seeds.
    image_sd: f64,
    /// The effect of the first arm.
    effect: f64,
    /// The effect of the other arms.
    effect_of_others: f64,
    margin: f64,
}

const IMAGES: usize = 32;

/// The residual standard deviation of one result.
const REST_SD: f64 = 1.0;

/// A study without any effect, with a margin that is too small to matter.
const NULL: Study = Study {
    claims: 1,
    seeds: 8,
    noise: Noise::Normal,
    is_control_fixed: false,
    image_sd: 0.0,
    effect: 0.0,
    effect_of_others: 0.0,
    margin: 1e-9,
};

/// The fractions of many simulated studies or claims with each outcome.
#[derive(Debug, Default, Clone, Copy)]
struct Rates {
    /// Studies with at least one claim that is confirmed or refuted.
    found: f64,
    /// Studies with at least one claim that is confirmed or refuted by more than the margin.
    beyond_margin: f64,
    /// Studies with at least one claim that is equivalent.
    equivalent: f64,
    /// Studies whose first claim is confirmed.
    power: f64,
    /// Claims whose interval contains the effect.
    coverage: f64,
}

impl Study {
    fn questions(self, number: u64) -> Vec<Question> {
        let mut noise = stream(number, Purpose::Synthetic, 1, 0);
        // The effects of seeds and images, which all arms share. Seeds do not affect a fixed control.
        let shared_sd = if self.is_control_fixed { 0.0 } else { 3.0 };
        let of_seed: Vec<f64> = (0..self.seeds).map(|_| shared_sd * noise.normal()).collect();
        let of_image: Vec<f64> = (0..IMAGES).map(|_| 5.0 * noise.normal()).collect();
        let mut arm = |effect: f64| -> Vec<Vec<f64>> {
            let gains: Vec<f64> =
                of_image.iter().map(|image| image + effect + 0.5_f64.sqrt() * self.image_sd * noise.normal()).collect();
            let row = |seed: &f64| {
                let seed = seed + self.noise.draw(&mut noise);
                gains.iter().map(|gain| gain + seed + REST_SD * noise.normal()).collect()
            };
            of_seed.iter().map(row).collect()
        };
        let control = if self.is_control_fixed { vec![of_image.clone(); self.seeds] } else { arm(0.0) };
        let question = |claim: usize| {
            let rows = arm(self.effect(claim)).into_iter().zip(&control);
            let differences = rows.map(|(a, c)| a.iter().zip(c).map(|(a, c)| a - c).collect()).collect();
            Question { differences, margin: self.margin, share: 1.0 }
        };
        (0..self.claims).map(question).collect()
    }

    fn effect(self, claim: usize) -> f64 {
        if claim == 0 { self.effect } else { self.effect_of_others }
    }

    /// Simulates studies with different random numbers.
    fn rates(self, studies: u64) -> Rates {
        let one = |number: u64| {
            let answers = answer(&self.questions(number), Family { claims: self.claims, alpha: ALPHA });
            let any = |is: fn(&super::Answer) -> bool| f64::from(answers.iter().any(is));
            let covers = |(claim, answer): (usize, &super::Answer)| {
                answer.interval.is_some_and(|[low, high]| low <= self.effect(claim) && self.effect(claim) <= high)
            };
            let covered = answers.iter().enumerate().filter(|&claim| covers(claim)).count();
            [
                any(|a| matches!(a.verdict, Verdict::Confirmed | Verdict::Refuted)),
                any(|a| a.is_beyond_margin),
                any(|a| a.verdict == Verdict::Equivalent),
                f64::from(answers[0].verdict == Verdict::Confirmed),
                covered as f64 / answers.len() as f64,
            ]
        };
        let results: Vec<[f64; 5]> = (0..studies).into_par_iter().map(one).collect();
        let [found, beyond_margin, equivalent, power, coverage] =
            std::array::from_fn(|i| results.iter().map(|result| result[i]).sum::<f64>() / studies as f64);
        Rates { found, beyond_margin, equivalent, power, coverage }
    }

    /// Returns the standard deviation over seeds of the difference, which is the mean over the images.
    fn seed_sd(self) -> f64 {
        (self.varying_arms() * (1.0 + REST_SD * REST_SD / IMAGES as f64)).sqrt()
    }

    /// Returns how many of the two arms of a claim vary.
    fn varying_arms(self) -> f64 {
        if self.is_control_fixed { 1.0 } else { 2.0 }
    }

    /// Returns the standard error of the difference due to the choice of images.
    fn image_error(self) -> f64 {
        (0.5 * self.varying_arms()).sqrt() * self.image_sd / (IMAGES as f64).sqrt()
    }

    /// Returns the smallest effect whose predicted power is 80 %.
    fn detectable(self) -> f64 {
        let family = Family { claims: self.claims, alpha: ALPHA };
        let (mut low, mut high) = (0.0, 100.0);
        for _ in 0..40 {
            let effect = 0.5 * (low + high);
            let power = power::power(self.seeds, self.seed_sd(), self.image_error(), effect, family);
            if power < power::POWER { low = effect } else { high = effect }
        }
        high
    }
}

/// Three standard errors of a fraction near `rate`.
fn tolerance(rate: f64, studies: u64) -> f64 {
    3.0 * (rate * (1.0 - rate) / studies as f64).sqrt()
}

#[test]
fn false_findings_are_rare_in_a_family() {
    for (claims, noise, image_sd) in
        [(1, Noise::Normal, 0.0), (4, Noise::Normal, 4.0), (6, Noise::Skewed, 0.0), (6, Noise::HeavyTailed, 4.0)]
    {
        let rate = Study { claims, noise, image_sd, ..NULL }.rates(500).found;
        assert!(rate <= ALPHA + tolerance(ALPHA, 500), "{claims} {noise:?} {image_sd}: {rate}");
    }
    // Without a correction, about a fifth of the studies with six arms would find a difference.
    let uncorrected = (0..500).filter(|&number| {
        let questions = Study { claims: 6, ..NULL }.questions(number);
        let alone = |q: &Question| answer(std::slice::from_ref(q), Family { claims: 1, alpha: ALPHA })[0].p <= ALPHA;
        questions.iter().any(alone)
    });
    assert!(uncorrected.count() > 60);
}

#[test]
fn arms_that_differ_by_the_margin_are_rarely_equivalent_or_beyond_it() {
    for (claims, noise, image_sd) in [(1, Noise::Normal, 0.0), (6, Noise::Normal, 4.0), (4, Noise::Skewed, 0.0)] {
        let rates =
            Study { claims, noise, image_sd, effect: 4.0, effect_of_others: 4.0, margin: 4.0, ..NULL }.rates(500);
        let limit = ALPHA + tolerance(ALPHA, 500);
        assert!(rates.equivalent <= limit && rates.beyond_margin <= limit, "{claims} {noise:?}: {rates:?}");
    }
    let equal = Study { margin: 4.0, ..NULL }.rates(500);
    assert!(equal.equivalent > 0.8, "{equal:?}");
    let far = Study { effect: 10.0, margin: 4.0, ..NULL }.rates(500);
    assert!(far.beyond_margin > 0.8, "{far:?}");
}

#[test]
fn intervals_cover_the_effect() {
    for (seeds, image_sd) in [(2, 0.0), (2, 6.0), (3, 0.0), (3, 6.0), (5, 2.0), (8, 8.0)] {
        let coverage = Study { seeds, image_sd, effect: 1.0, ..NULL }.rates(2000).coverage;
        assert!((0.93 - 0.012..=0.97 + 0.012).contains(&coverage), "{seeds} {image_sd}: {coverage}");
    }
}

/// Returns the fraction of studies in which at least one test finds a difference, and the fraction in which at least
/// one finds equivalence. Each element of `tests` contains the number of seeds and the share of the error rate of each
/// claim.
fn found_at_any_look(study: Study, tests: &[Vec<(usize, f64)>], studies: u64) -> [f64; 2] {
    let seeds = tests.iter().flatten().map(|(seeds, _)| *seeds).max().unwrap();
    let finds = |number: u64| {
        let whole = Study { seeds, ..study }.questions(number);
        let mut found = [false; 2];
        for test in tests {
            let first = |(q, &(seeds, share)): (&Question, &(usize, f64))| Question {
                differences: q.differences[..seeds].to_vec(),
                share,
                ..*q
            };
            let questions: Vec<Question> = whole.iter().zip(test).map(first).collect();
            let answers = answer(&questions, Family { claims: study.claims, alpha: ALPHA });
            found[0] |= answers.iter().any(|a| matches!(a.verdict, Verdict::Confirmed | Verdict::Refuted));
            found[1] |= answers.iter().any(|a| a.verdict == Verdict::Equivalent);
        }
        found
    };
    let found: Vec<[bool; 2]> = (0..studies).into_par_iter().map(finds).collect();
    [0, 1].map(|of| found.iter().filter(|found| found[of]).count() as f64 / studies as f64)
}

/// Returns the number of seeds of each look, with its share.
fn shares(plan: Looks) -> Vec<(usize, f64)> {
    plan.at().into_iter().map(|n| (n, plan.alpha(n, ALPHA).unwrap() / ALPHA)).collect()
}

#[test]
fn planned_looks_keep_the_error_rate_and_unplanned_looks_do_not() {
    for (claims, plan, looks) in [(1, 12, 3), (1, 14, 2), (4, 16, 4)] {
        let plan = Looks { seeds: plan, looks };
        let tests: Vec<_> = shares(plan).into_iter().map(|look| vec![look; claims]).collect();
        let [rate, _] = found_at_any_look(Study { claims, ..NULL }, &tests, 1000);
        assert!(rate <= ALPHA + tolerance(ALPHA, 1000), "{claims} {plan:?}: {rate}");
    }
    let after_every_seed: Vec<_> = (6..=14).map(|n| vec![(n, 1.0)]).collect();
    let [rate, _] = found_at_any_look(NULL, &after_every_seed, 1000);
    assert!(rate > 0.08, "{rate}");
}

/// Claims whose arms have different numbers of seeds are each tested at their own look, in any order.
#[test]
fn claims_at_different_looks_keep_the_error_rate_of_the_family() {
    let looks = shares(Looks { seeds: 15, looks: 3 });
    let at = |of_claims: [usize; 4]| of_claims.map(|look| looks[look]).to_vec();
    let tests = [[0, 1, 0, 2], [1, 1, 0, 2], [1, 2, 0, 2], [2, 2, 1, 2], [2, 2, 2, 2]].map(at);
    let study = Study { claims: 4, ..NULL };
    let [found, _] = found_at_any_look(study, &tests, 1000);
    assert!(found <= ALPHA + tolerance(ALPHA, 1000), "{found}");
    let at_margin = Study { effect: 3.0, effect_of_others: 3.0, margin: 3.0, ..study };
    let [_, equivalent] = found_at_any_look(at_margin, &tests, 1000);
    assert!(equivalent <= ALPHA + tolerance(ALPHA, 1000), "{equivalent}");
}

#[test]
fn the_power_is_as_planned() {
    for (seeds, claims, image_sd) in [(6, 1, 0.0), (8, 4, 0.0), (10, 6, 2.0)] {
        let study = Study { seeds, claims, image_sd, ..NULL };
        let power = Study { effect: study.detectable(), ..study }.rates(500).power;
        assert!((power - power::POWER).abs() < 0.06, "{seeds} {claims} {image_sd}: {power}");
    }
}

#[test]
fn skewed_variation_against_a_fixed_control_exceeds_the_error_rates() {
    let null = Study { noise: Noise::Skewed, is_control_fixed: true, ..NULL };
    let margin = 3.0 * null.seed_sd() / (null.seeds as f64).sqrt();
    let found = null.rates(1000).found;
    let equivalent = Study { effect: margin, margin, ..null }.rates(1000).equivalent;
    assert!((0.06..0.12).contains(&found) && (0.1..0.18).contains(&equivalent), "{found} {equivalent}");
    let symmetric = Study { noise: Noise::HeavyTailed, ..null }.rates(1000).found;
    assert!(symmetric <= ALPHA + tolerance(ALPHA, 1000), "{symmetric}");
}

/// The number of studies of each row of a table.
const STUDIES: u64 = 2000;

const HEADINGS: &str = "| seeds | claims | noise | images | false findings | false *equivalent* | \
    false *by more than the margin* | coverage | power (planned) |
|---|---|---|---|---|---|---|---|---|";

/// Prints the rates of studies with the parameters of `null`, without any effect and with effects.
fn print_row(null: Study, images: &str) {
    let found = null.rates(STUDIES);
    // With a margin of three standard errors, both errors at the margin are about as likely as possible.
    let margin = 3.0 * (null.seed_sd().powi(2) / null.seeds as f64 + null.image_error().powi(2)).sqrt();
    let at_margin = Study { effect: margin, effect_of_others: margin, margin, ..null }.rates(STUDIES);
    let effect = null.detectable();
    let planned = Study { effect, ..null }.rates(STUDIES).power;
    let planned = if effect < 99.0 { format!("{:.0} % (80 %)", 100.0 * planned) } else { "–".into() };
    println!(
        "| {} | {} | {:?} | {images} | {:.1} % | {:.1} % | {:.1} % | {:.1} % | {planned} |",
        null.seeds,
        null.claims,
        null.noise,
        100.0 * found.found,
        100.0 * at_margin.equivalent,
        100.0 * at_margin.beyond_margin,
        100.0 * found.coverage
    );
}

/// Prints the rates of all combinations as a table.
#[test]
#[ignore = "takes many minutes; prints a table"]
fn the_whole_table() {
    println!("{HEADINGS}");
    for seeds in [2, 3, 5, 6, 8, 10] {
        for claims in [1, 4, 6] {
            for noise in [Noise::Normal, Noise::Skewed, Noise::HeavyTailed] {
                for (images, image_sd) in [("the same gain", 0.0), ("different gains", 6.0)] {
                    print_row(Study { seeds, claims, noise, image_sd, ..NULL }, images);
                }
            }
        }
    }
}

/// Prints the rates of claims against a control that does not vary.
#[test]
#[ignore = "takes a minute; prints a table"]
fn a_fixed_control() {
    println!("{HEADINGS}");
    for seeds in [6, 8, 10] {
        for noise in [Noise::Normal, Noise::Skewed, Noise::HeavyTailed] {
            for (images, image_sd) in [("the same gain", 0.0), ("different gains", 6.0)] {
                print_row(Study { seeds, noise, image_sd, is_control_fixed: true, ..NULL }, images);
            }
        }
    }
}
