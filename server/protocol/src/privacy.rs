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

    /// The most ρ that stays within (ε, δ), rounded down.
    pub fn within(epsilon: Epsilon, delta: Delta) -> Self {
        let (mut low, mut high) = (0.0, 1.0);
        while epsilon_of(high, delta) <= epsilon.value() && high < 1e6 {
            high *= 2.0;
        }
        for _ in 0..80 {
            let middle = 0.5 * (low + high);
            match epsilon_of(middle, delta) <= epsilon.value() {
                true => low = middle,
                false => high = middle,
            }
        }
        Self((low * Self::PER_UNIT).floor() as u64)
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
}

/// The smallest ε for which Gaussian mechanisms of total ρ are (ε, δ)-DP: the exact curve
/// δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) with μ = √(2ρ) (Balle, Wang 2018, Theorem 8), solved by bisection
/// from above, so that the result is never below the true value by more than 1e-12.
pub fn epsilon_of(rho: f64, delta: Delta) -> f64 {
    if rho <= 0.0 {
        return 0.0;
    }
    let mu = (2.0 * rho).sqrt();
    if gaussian_delta(0.0, mu) <= delta.value() {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while gaussian_delta(high, mu) > delta.value() {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        match gaussian_delta(middle, mu) > delta.value() {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

fn gaussian_delta(epsilon: f64, mu: f64) -> f64 {
    let phi = |x: f64| 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
    phi(mu / 2.0 - epsilon / mu) - epsilon.exp() * phi(-mu / 2.0 - epsilon / mu)
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
        let z = NoiseMultiplier::new(2.39).unwrap();
        let budget = RhoQuanta::within(Epsilon::new(4.0).unwrap(), delta());
        let four = RhoQuanta::of_release(z).times(4);
        assert!(four <= budget, "{four:?} {budget:?}");
        assert!(RhoQuanta::of_release(z).times(5) > budget);
        assert!(budget.epsilon(delta()) <= 4.0);
    }

    #[test]
    fn odds_are_plain() {
        assert!((certainty(1.0) - 0.731).abs() < 1e-3);
        assert!((certainty(0.0) - 0.5).abs() < 1e-12);
    }
}
