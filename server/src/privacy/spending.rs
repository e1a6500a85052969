//! What the worst-placed profile of a task may have spent: arithmetic over the ledger's past releases.

use std::collections::BTreeMap;

use backstitch_protocol::Problem;
use backstitch_protocol::privacy::{Delta, Epsilon, NoiseMultiplier, RhoQuanta};
use backstitch_protocol::problem::Code;

use crate::failure::Result;
use crate::task::TaskId;

/// What a task promises to each profile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Promise {
    /// σ / C of a release.
    pub noise_multiplier: NoiseMultiplier,
    /// k: the rounds of a period that one profile may be in. The client's own ledger enforces it.
    pub max_participations: u32,
    /// Days of a period.
    pub period_days: u32,
    /// ε of the promise for a period.
    pub epsilon: Epsilon,
    /// δ of the promise.
    pub delta: Delta,
}

impl Promise {
    /// ρ of one release.
    pub fn cost(&self) -> RhoQuanta {
        RhoQuanta::of_release(self.noise_multiplier)
    }

    /// The most ρ that keeps the promise.
    pub fn budget(&self) -> RhoQuanta {
        RhoQuanta::within(self.epsilon, self.delta)
    }

    /// Seconds of a period.
    pub fn period_s(&self) -> u64 {
        u64::from(self.period_days) * 86_400
    }

    /// Refuses settings under which even undisturbed rounds would end over the budget.
    pub fn check(&self) -> Result<()> {
        if self.max_participations == 0 || self.period_days == 0 {
            return Err(Problem::new(
                Code::PrivacyInvalid,
                "max_participations and period_days must be at least 1",
            ));
        }
        let (cost, budget) = (self.cost(), self.budget());
        let worst = cost.times(u64::from(self.max_participations));
        if worst > budget {
            let fitting = self.max_participations.min((budget.0 / cost.0.max(1)) as u32);
            let z = NoiseMultiplier::within(budget, self.max_participations)?.value();
            return Err(Problem::new(
                Code::PrivacyInvalid,
                format!(
                    "{} participations at noise multiplier {} cost ρ = {:.4}, ε = {:.2} at δ = {}; the promise is ε = {} (ρ = {:.4})",
                    self.max_participations,
                    self.noise_multiplier.value(),
                    worst.rho(),
                    worst.epsilon_bound(self.delta),
                    self.delta.value(),
                    self.epsilon.value(),
                    budget.rho(),
                ),
            )
            .with_hint(format!("raise noise_multiplier to {z:.3} or lower max_participations to {fitting}")));
        }
        Ok(())
    }
}

/// One debit of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Debit {
    /// Seconds since 1970.
    pub(crate) at: u64,
    /// The round that it was for. A round debited twice costs its participants twice.
    pub(crate) round: u64,
    /// The cost.
    pub(crate) rho: RhoQuanta,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spending {
    /// The worst-placed profile's spending in the period that ends now.
    pub period: RhoQuanta,
    /// The same after one more release.
    pub next: RhoQuanta,
    /// The limit on both.
    pub budget: RhoQuanta,
    /// An upper bound on the worst-placed profile's spending ever; it only grows.
    pub lifetime: RhoQuanta,
    /// The same after one more release.
    pub lifetime_next: RhoQuanta,
}

impl Spending {
    /// The standing at `now`, and what a release of `round` would make of it.
    pub(crate) fn after(debits: &[Debit], promise: &Promise, round: u64, now: u64) -> Self {
        let k = promise.max_participations as usize;
        let window: Vec<Debit> =
            debits.iter().copied().filter(|d| d.at + promise.period_s() > now).collect();
        // As the ledger will date it: a clock that went back does not put a debit before the last one.
        let at = debits.last().map_or(now, |last| now.max(last.at));
        let next = Debit { at, round, rho: promise.cost() };
        Self {
            period: worst_placed(window.iter().copied(), k),
            next: worst_placed(window.iter().copied().chain([next]), k),
            budget: promise.budget(),
            lifetime: lifetime(debits, promise),
            lifetime_next: lifetime(&[debits, &[next]].concat(), promise),
        }
    }

    /// Refuses one more release where it would break the promise, with the numbers.
    pub(crate) fn permit(&self, task: &TaskId, promise: &Promise) -> Result<()> {
        if self.permits() {
            return Ok(());
        }
        Err(Problem::new(
            Code::BudgetExhausted,
            format!(
                "one more release of {task} would take its worst-placed profile to ρ = {:.4}, ε = {:.2} at δ = {}; the promise is ε = {} (ρ = {:.4}) in {} days",
                self.next.rho(),
                self.next.epsilon_bound(promise.delta),
                promise.delta.value(),
                promise.epsilon.value(),
                self.budget.rho(),
                promise.period_days,
            ),
        )
        .with_hint("wait until earlier releases leave the period; a debit is never refunded"))
    }

    /// Whether one more release keeps the promise.
    pub fn permits(&self) -> bool {
        self.next <= self.budget
    }
}

/// The k dearest rounds: nobody can be in more, nor in dearer ones. With equal costs min(releases, k)·ρ.
fn worst_placed(debits: impl Iterator<Item = Debit>, k: usize) -> RhoQuanta {
    let mut rounds: BTreeMap<u64, u64> = BTreeMap::new();
    for debit in debits {
        let cost = rounds.entry(debit.round).or_default();
        *cost = cost.saturating_add(debit.rho.0);
    }
    let mut costs: Vec<u64> = rounds.into_values().collect();
    costs.sort_unstable_by(|a, b| b.cmp(a));
    RhoQuanta(costs.iter().take(k).fold(0, |sum, cost| sum.saturating_add(*cost)))
}

/// Cuts time into consecutive periods from the first debit on; whoever keeps to k rounds in *every* period
/// keeps to k in each of these, so the sum of their worst cases bounds the lifetime from above. It never
/// falls, which is what clients check in the signed catalog.
fn lifetime(debits: &[Debit], promise: &Promise) -> RhoQuanta {
    let k = promise.max_participations as usize;
    let mut total = 0u64;
    let mut rest = debits;
    while let Some(first) = rest.first() {
        let end = first.at + promise.period_s();
        let (inside, after) = rest.split_at(rest.partition_point(|d| d.at < end));
        total = total.saturating_add(worst_placed(inside.iter().copied(), k).0);
        rest = after;
    }
    RhoQuanta(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn promise(z: f64, k: u32) -> Promise {
        Promise {
            noise_multiplier: NoiseMultiplier::new(z).unwrap(),
            max_participations: k,
            period_days: 30,
            epsilon: Epsilon::new(4.0).unwrap(),
            delta: Delta::new(1e-6).unwrap(),
        }
    }

    fn releases(times: u64, promise: &Promise) -> Vec<Debit> {
        (1..=times).map(|round| Debit { at: 1000 + round, round, rho: promise.cost() }).collect()
    }

    #[test]
    fn the_worst_placed_profile_pays_for_k_rounds_at_most() {
        let promise = promise(2.54, 4);
        for (n, paid) in [(0, 0), (1, 1), (4, 4), (50, 4)] {
            let spending = Spending::after(&releases(n, &promise), &promise, n + 1, 2000);
            assert_eq!(spending.period, promise.cost().times(paid));
            assert!(spending.permits());
        }
    }

    #[test]
    fn a_lower_noise_in_mid_period_is_refused() {
        let before = promise(2.54, 4);
        let debits = releases(4, &before);
        let lowered = promise(1.5, 4);
        assert!(!Spending::after(&debits, &lowered, 5, 2000).permits());
        // After the period the old releases no longer count.
        assert_eq!(Spending::after(&debits, &before, 5, 2000 + 30 * 86_400).period, RhoQuanta(0));
    }

    #[test]
    fn settings_that_cannot_hold_are_refused_with_numbers() {
        assert!(promise(2.54, 4).check().is_ok());
        let refused = promise(2.54, 5).check().unwrap_err();
        assert!(refused.is(Code::PrivacyInvalid));
        assert!(refused.detail().contains("5 participations"), "{refused}");
        assert!(refused.hint().unwrap().contains("max_participations to 4"), "{refused}");
    }

    #[test]
    fn a_round_that_is_noised_twice_costs_twice() {
        let promise = promise(2.54, 4);
        let mut debits = releases(3, &promise);
        debits.push(Debit { at: 1010, round: 3, rho: promise.cost() });
        let spending = Spending::after(&debits, &promise, 4, 2000);
        assert_eq!(spending.period, promise.cost().times(4));
        assert!(!spending.permits(), "five times ρ in four rounds is more than the budget");
    }

    #[test]
    fn a_clock_that_went_back_makes_nothing_cheaper() {
        let promise = promise(2.54, 1);
        let day = 86_400;
        let debit = |at, round| Debit { at, round, rho: promise.cost() };
        // Two periods, each with a debit; then the clock says a day within the first one.
        let debits = [debit(0, 1), debit(10 * day, 2), debit(40 * day, 3)];
        let spending = Spending::after(&debits, &promise, 4, 5 * day);
        assert_eq!(spending.lifetime, promise.cost().times(2));
        assert!(spending.lifetime_next >= spending.lifetime, "clients refuse a ledger that fell");
        assert_eq!(spending.next, promise.cost(), "k = 1: nobody is in two of them");
    }

    proptest! {
        #[test]
        fn the_lifetime_never_falls(gaps in prop::collection::vec(0u64..20 * 86_400, 1..40)) {
            let promise = promise(2.54, 2);
            let mut at = 0;
            let debits: Vec<Debit> = gaps.iter().enumerate().map(|(i, gap)| {
                at += gap;
                Debit { at, round: i as u64, rho: promise.cost() }
            }).collect();
            let series: Vec<RhoQuanta> = (0..=debits.len()).map(|n| lifetime(&debits[..n], &promise)).collect();
            prop_assert!(series.is_sorted());
        }
    }
}
