//! Looks at a growing study: with a plan, a claim is tested only at certain numbers of seeds.

use crate::config::SeedPlan;
use crate::stats::{self, Family, Looks, seeds_needed};

/// A look at a claim with a certain number of seeds.
pub(super) struct Look {
    pub(super) plan: Option<SeedPlan>,
    /// This look's share of the 5 % error rate; 0 if no test is planned at this number of seeds.
    pub(super) alpha: f64,
    /// The reason why the claim is not tested at this number of seeds, if it is not.
    pub(super) objection: Option<String>,
}

impl Look {
    pub(super) fn of(plan: Option<SeedPlan>, seeds: usize) -> Self {
        let unplanned = Self { plan, alpha: stats::ALPHA, objection: None };
        let Some(looks) = plan.map(looks) else { return unplanned };
        if let Some(alpha) = looks.alpha(seeds, stats::ALPHA) {
            return Self { alpha, ..unplanned };
        }
        let at: Vec<String> = looks.at().iter().map(usize::to_string).collect();
        let objection = format!("the claim has {seeds} seeds, but its tests are planned at {}", at.join(", "));
        Self { objection: Some(objection), alpha: 0.0, ..unplanned }
    }

    /// Returns this look's share of the error rate as a fraction of the whole rate.
    pub(super) fn share(&self) -> f64 {
        self.alpha / stats::ALPHA
    }

    /// Whether a difference between `n` pairs of seeds may be called significant. It may not with fewer seeds than a
    /// single claim needs for a verdict, or between planned looks.
    pub(super) fn allows(&self, n: usize) -> bool {
        self.objection.is_none() && n >= self.seeds_needed(Family { claims: 1, alpha: self.alpha })
    }

    /// Returns the minimum number of seeds with which a claim can be confirmed or refuted.
    pub(super) fn seeds_needed(&self, family: Family) -> usize {
        let Some(looks) = self.plan.map(looks) else { return seeds_needed(family) };
        let is_enough = |n: &usize| {
            let alpha = looks.alpha(*n, stats::ALPHA);
            alpha.is_some_and(|alpha| seeds_needed(Family { alpha, ..family }) <= *n)
        };
        looks.at().into_iter().find(is_enough).unwrap_or_else(|| seeds_needed(family).max(looks.seeds + 1))
    }
}

fn looks(plan: SeedPlan) -> Looks {
    Looks { seeds: plan.plan, looks: plan.looks }
}
