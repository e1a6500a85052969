//! Privacy quantities as checked types, and the one conversion that both sides show: ρ → ε at δ.

use serde::{Deserialize, Serialize};

use crate::problem::{Code, Problem};

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $valid:expr, $range:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            /// Checks the range; NaN and infinity are outside of every range.
            pub fn new(value: f64) -> Result<Self, Problem> {
                let valid: fn(f64) -> bool = $valid;
                if value.is_finite() && valid(value) {
                    Ok(Self(value))
                } else {
                    Err(Problem::new(Code::PrivacyInvalid, format!("{} {value} is not in {}", stringify!($name), $range)))
                }
            }

            /// The number.
            pub const fn value(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = Problem;
            fn try_from(value: f64) -> Result<Self, Problem> {
                Self::new(value)
            }
        }

        impl From<$name> for f64 {
            fn from(value: $name) -> f64 {
                value.0
            }
        }
    };
}

quantity! {
    /// The largest L2 norm of one device's update, in units of the weights.
    ClipNorm, |v| v > 0.0, "(0, ∞)"
}
quantity! {
    /// z = σ / C: the noise's standard deviation in units of the clip norm.
    NoiseMultiplier, |v| v > 0.0, "(0, ∞)"
}
quantity! {
    /// The ε of (ε, δ) differential privacy.
    Epsilon, |v| v >= 0.0, "[0, ∞)"
}
quantity! {
    /// The δ of (ε, δ) differential privacy.
    Delta, |v| v > 0.0 && v < 1.0, "(0, 1)"
}

impl NoiseMultiplier {
    /// The smallest multiplier, in thousandths, at which so many releases stay within a budget: what is printed for
    /// people to copy must be accepted by the ledger, which rounds each release's cost up.
    pub fn within(budget: RhoQuanta, releases: u32) -> Result<Self, Problem> {
        let releases = u64::from(releases.max(1));
        if budget.0 < releases {
            return Err(Problem::new(
                Code::PrivacyInvalid,
                format!("{releases} releases do not fit into ρ = {:.7}", budget.rho()),
            )
            .with_hint("promise a larger ε, or allow fewer participations"));
        }
        let mut thousandths = (1000.0 * (releases as f64 / (2.0 * budget.rho())).sqrt()).ceil();
        loop {
            let z = Self::new(thousandths / 1000.0)?;
            if RhoQuanta::of_release(z).times(releases) <= budget {
                return Ok(z);
            }
            thousandths += 1.0;
        }
    }
}

/// zCDP in integer quanta of 2⁻²⁰, so that a ledger adds without rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RhoQuanta(pub u64);

impl RhoQuanta {
    /// Quanta per unit of ρ.
    pub const PER_UNIT: f64 = 1_048_576.0;

    /// One Gaussian release at noise multiplier z costs ρ = 1/(2z²) (Bun, Steinke 2016, Proposition 1.6),
    /// rounded up.
    pub fn of_release(z: NoiseMultiplier) -> Self {
        Self((Self::PER_UNIT / (2.0 * z.value() * z.value())).ceil() as u64)
    }

    /// A release of an ε-DP mechanism costs ρ = ε²/2 (Bun, Steinke 2016, Proposition 1.4), rounded up.
    pub fn of_pure(epsilon: Epsilon) -> Self {
        Self((Self::PER_UNIT * epsilon.value() * epsilon.value() / 2.0).ceil() as u64)
    }

    /// The ε of the ε-DP release that was debited at this ρ; by the rounding of a quantum above it, never below.
    pub fn pure_epsilon(self) -> f64 {
        (2.0 * self.rho()).sqrt()
    }

    /// The most ρ that stays within (ε, δ) by [`epsilon_bound_of`], the larger of the two conversions, rounded
    /// down.
    pub fn within(epsilon: Epsilon, delta: Delta) -> Self {
        // An ε is large enough for a ρ where its δ is small enough: no ε has to be sought for each ρ that is tried.
        let lowered = epsilon.value() / UPWARD;
        let small = |found: f64| found <= delta.value();
        let fits = |rho: f64| {
            small(concentrated_delta(lowered, rho)) && small(gaussian_delta(lowered, rho))
        };
        let mut high = 1.0;
        while fits(high) && high < 1e6 {
            high *= 2.0;
        }
        let (low, _) = bisect(0.0, high, fits);
        let found = Self((low * Self::PER_UNIT).floor() as u64);
        // Both ways to ask differ by their last bits, and the promise is held to the other.
        match found.epsilon_bound(delta) <= epsilon.value() {
            true => found,
            false => Self(found.0.saturating_sub(1)),
        }
    }

    /// ρ as a number.
    pub fn rho(self) -> f64 {
        self.0 as f64 / Self::PER_UNIT
    }

    /// The sum, or `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The cost of `times` releases.
    pub fn times(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }

    /// The ε of this ρ at δ, by [`epsilon_of`].
    pub fn epsilon(self, delta: Delta) -> f64 {
        epsilon_of(self.rho(), delta)
    }

    /// The ε of this ρ at δ that budgets are held to, by [`epsilon_bound_of`].
    pub fn epsilon_bound(self, delta: Delta) -> f64 {
        epsilon_bound_of(self.rho(), delta)
    }
}

/// What the reports of all experiments of a library may tell about one device within a period. Each report is ε-DP by
/// itself, and their ε add up (Dwork, Roth 2014, Theorem 3.16): all of a period together are ε-DP, without any δ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportBudget {
    /// ε of the promise for one device and period.
    pub epsilon: Epsilon,
    /// Days of a period.
    pub period_days: u32,
}

impl Default for ReportBudget {
    fn default() -> Self {
        Self { epsilon: Epsilon(4.0), period_days: 30 }
    }
}

impl ReportBudget {
    /// Seconds of a period.
    pub fn period_s(&self) -> u64 {
        u64::from(self.period_days) * 86_400
    }

    /// The ε of reports that were debited at these costs.
    pub fn spent(costs: impl IntoIterator<Item = RhoQuanta>) -> f64 {
        costs.into_iter().map(RhoQuanta::pure_epsilon).sum()
    }

    /// Whether `spent` keeps the promise. The promise is rounded to quanta as the costs are, so that one report of
    /// just this ε fits.
    pub fn permits(&self, spent: f64) -> bool {
        spent <= RhoQuanta::of_pure(self.epsilon).pure_epsilon()
    }
}

/// Raises a result of bisection by more than its rounding, so that it is never below the true value.
const UPWARD: f64 = 1.0 + 1e-9;

/// The smallest ε for which Gaussian mechanisms of total ρ are (ε, δ)-DP: the exact curve
/// δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) with μ = √(2ρ) (Balle, Wang 2018, Theorem 8), rounded up.
pub fn epsilon_of(rho: f64, delta: Delta) -> f64 {
    smallest(rho, delta, |epsilon| gaussian_delta(epsilon, rho))
}

/// An ε for which *every* ρ-zCDP mechanism is (ε, δ)-DP, and never less than [`epsilon_of`]: the bound that the
/// discrete Gaussian is proved for, and that budgets are held to
/// (Canonne, Kamath, Steinke 2020, Proposition 12 and Corollary 13).
pub fn epsilon_bound_of(rho: f64, delta: Delta) -> f64 {
    smallest(rho, delta, |epsilon| concentrated_delta(epsilon, rho)).max(epsilon_of(rho, delta))
}

/// The smallest ε whose δ is small enough, found from above. `delta_at` falls with ε.
fn smallest(rho: f64, delta: Delta, delta_at: impl Fn(f64) -> f64) -> f64 {
    if rho <= 0.0 || delta_at(0.0) <= delta.value() {
        return 0.0;
    }
    let mut high = 1.0;
    while delta_at(high) > delta.value() {
        high *= 2.0;
    }
    bisect(0.0, high, |epsilon| delta_at(epsilon) > delta.value()).1 * UPWARD
}

/// The two neighbouring numbers between which `holds` turns from true to false. It holds at `low` and not at `high`.
fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> (f64, f64) {
    loop {
        let middle = 0.5 * (low + high);
        // Also where one of them is NaN or infinite, so this ends on any numbers.
        if !(low < middle && middle < high) {
            return (low, high);
        }
        match holds(middle) {
            true => low = middle,
            false => high = middle,
        }
    }
}

fn gaussian_delta(epsilon: f64, rho: f64) -> f64 {
    let mu = (2.0 * rho).sqrt();
    let phi = |x: f64| 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
    let (first, second) =
        (phi(mu / 2.0 - epsilon / mu), epsilon.exp() * phi(-mu / 2.0 - epsilon / mu));
    // Beyond ε = 709 the second term leaves the range of f64; without it δ is too large, which is safe.
    if second.is_finite() { first - second } else { first }
}

/// min over α > 1 of exp((α−1)(αρ − ε) + α·ln(1 − 1/α)) / (α−1). The exponent's derivative in α rises, so its
/// root is found by bisection; whatever α comes of it, the value is a bound.
fn concentrated_delta(epsilon: f64, rho: f64) -> f64 {
    let highest = (epsilon + 1.0) / (2.0 * rho) + 2.0;
    let falls = |alpha: f64| (2.0 * alpha - 1.0) * rho - epsilon + (-1.0 / alpha).ln_1p() < 0.0;
    let (_, alpha) = bisect(1.01, highest, falls);
    let exponent = (alpha - 1.0) * (alpha * rho - epsilon) + alpha * (-1.0 / alpha).ln_1p();
    (exponent.exp() / (alpha - 1.0)).min(1.0)
}

/// In plain odds: how certain an observer who starts at even odds can become about one device's data,
/// e^ε / (1 + e^ε), ignoring δ.
pub fn certainty(epsilon: f64) -> f64 {
    1.0 / (1.0 + (-epsilon).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta() -> Delta {
        Delta::new(1e-6).unwrap()
    }

    #[test]
    fn ranges_are_checked() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(NoiseMultiplier::new(bad).is_err());
        }
        assert!(Delta::new(1.0).is_err());
        assert!(serde_json::from_str::<ClipNorm>("-0.5").is_err());
    }

    #[test]
    fn epsilon_matches_the_published_table() {
        // μ = √k / z of the Gaussian trade-off curve at δ = 1e-6.
        for (epsilon, mu) in [(1.0, 0.237), (2.0, 0.448), (4.0, 0.838), (8.0, 1.53)] {
            let found = epsilon_of(mu * mu / 2.0, delta());
            assert!((found / epsilon - 1.0).abs() < 5e-3, "{found} for {epsilon}");
        }
    }

    #[test]
    fn a_budget_holds_exactly_what_it_promises() {
        let z = NoiseMultiplier::new(2.55).unwrap();
        let budget = RhoQuanta::within(Epsilon::new(4.0).unwrap(), delta());
        let four = RhoQuanta::of_release(z).times(4);
        assert!(four <= budget, "{four:?} {budget:?}");
        assert!(RhoQuanta::of_release(z).times(5) > budget);
        assert!(budget.epsilon_bound(delta()) <= 4.0);
        assert!(
            RhoQuanta(budget.0 + 2).epsilon_bound(delta()) > 4.0,
            "not a quantum is given away"
        );
    }

    #[test]
    fn a_budget_is_the_most_that_its_epsilon_permits() {
        for epsilon in [0.01, 0.1, 0.5, 1.0, 2.0, 3.7, 8.0, 20.0, 100.0, 700.0] {
            for delta in [1e-12, 1e-6, 1e-3, 0.4].map(|delta| Delta::new(delta).unwrap()) {
                let budget = RhoQuanta::within(Epsilon::new(epsilon).unwrap(), delta);
                assert!(budget.epsilon_bound(delta) <= epsilon, "{epsilon} {delta:?}");
                // Two quanta, or what the last bits of its ρ tell apart.
                let more = budget.0 + 2 + budget.0 / (1 << 44);
                let beyond = RhoQuanta(more).epsilon_bound(delta);
                assert!(beyond > epsilon * (1.0 - 1e-12), "{epsilon} {delta:?}: {beyond}");
            }
        }
    }

    #[test]
    fn the_accountant_is_within_a_thousandth_of_dp_accounting_and_never_below() {
        let mut points = 0;
        for line in include_str!("../golden/accountant.csv").lines().skip(2) {
            let fields: Vec<&str> = line.split(',').collect();
            let number = |index: usize| fields[index].parse::<f64>().unwrap();
            let (z, k, delta) = (number(0), number(1), Delta::new(number(2)).unwrap());
            let ours = epsilon_of(k / (2.0 * z * z), delta);
            let exact = number(3);
            assert!(ours >= exact && ours <= exact + 1e-3, "{line}: {ours}");
            // Their numerical composition bounds the same curve from above.
            if !fields[4].is_empty() {
                assert!((ours - number(4)).abs() < 1e-3, "{line}: {ours}");
            }
            let quanta = RhoQuanta::of_release(NoiseMultiplier::new(z).unwrap()).times(k as u64);
            let ledger = quanta.epsilon(delta);
            assert!(
                ledger >= exact && ledger <= exact * 1.01 + 1e-3,
                "{line}: {ledger} by the ledger"
            );
            assert!(quanta.epsilon_bound(delta) >= ledger, "{line}");
            points += 1;
        }
        assert!(points >= 200, "{points}");
    }

    #[test]
    fn reports_add_up_to_their_budget_and_not_beyond() {
        let budget = ReportBudget { epsilon: Epsilon::new(4.0).unwrap(), period_days: 30 };
        let of = |epsilon: f64| RhoQuanta::of_pure(Epsilon::new(epsilon).unwrap());
        let fits =
            |costs: &[f64]| budget.permits(ReportBudget::spent(costs.iter().map(|e| of(*e))));
        assert!(fits(&[1.0; 4]) && fits(&[4.0]) && fits(&[2.0, 1.0, 0.5, 0.5]) && fits(&[]));
        assert!(!fits(&[1.0, 1.0, 1.0, 1.0, 0.01]) && !fits(&[4.001]));
        for epsilon in [0.1, 0.3, 3.3, 7.7] {
            let one = ReportBudget { epsilon: Epsilon::new(epsilon).unwrap(), ..budget };
            assert!(one.permits(ReportBudget::spent([of(epsilon)])), "{epsilon}");
            assert!(of(epsilon).pure_epsilon() >= epsilon);
        }
    }

    #[test]
    fn odds_are_plain() {
        assert!((certainty(1.0) - 0.731).abs() < 1e-3);
        assert!((certainty(0.0) - 0.5).abs() < 1e-12);
    }
}
