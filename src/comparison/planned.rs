//! When a claim may be tested: at any time, or at its planned looks.

use crate::config::SeedPlan;
use crate::stats::{self, Family, Looks, seeds_needed};

/// When a claim may be tested.
pub(super) struct Look {
    pub(super) plan: Option<SeedPlan>,
    /// The share of the error rate for this look, 0 if the claim may not be tested.
    pub(super) alpha: f64,
    /// Why the claim may not be tested at this number of seeds.
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

    /// Returns the share of the family's error rate for this look.
    pub(super) fn share(&self) -> f64 {
        self.alpha / stats::ALPHA
    }

    /// Whether a difference of `n` seeds may be called significant: no verdict is possible with fewer seeds than a single
    /// claim needs, nor between planned looks.
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
