//! From trained weights to the only thing that may leave a device: a clipped integer vector.
//!
//! `Delta` → [`ClippedDelta`] is the single path; NaN and ∞ cannot enter, and no other type has an encoder.

use crate::measure::{self, Measure};
use crate::privacy::ClipNorm;
use crate::problem::{Code, Problem};

/// The integer image of the clip norm C: ‖q‖₂ ≤ `CLIP_INTEGER` exactly, so every coordinate fits an i16.
pub const CLIP_INTEGER: i64 = 32_767;

/// Keeps the scaled norm clear of the bound, so that floating-point rounding cannot cross it.
const MARGIN: f64 = 1.0 - 1e-5;

/// What a device learnt: trained minus base, over all trainable tensors of a task in their fixed order.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta(Vec<f32>);

impl Delta {
    /// The difference of two weight vectors of equal length; non-finite values are refused.
    pub fn between(base: &[f32], trained: &[f32]) -> Result<Self, Problem> {
        if base.len() != trained.len() {
            return Err(Problem::new(
                Code::TrainingDiverged,
                format!("{} trained values for {} base values", trained.len(), base.len()),
            ));
        }
        let values: Vec<f32> = base.iter().zip(trained).map(|(b, t)| t - b).collect();
        match values.iter().position(|v| !v.is_finite()) {
            Some(index) => Err(Problem::new(
                Code::TrainingDiverged,
                format!("parameter {index} is {}", values[index]),
            )
            .with_hint("lower the learning rate or remove the example that caused it")),
            None => Ok(Self(values)),
        }
    }

    /// The L2 norm, in f64 and in index order, so that it is the same number everywhere.
    pub fn norm(&self) -> f64 {
        self.0.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt()
    }

    /// Clips to `clip` in L2 and quantises toward zero: q = trunc(Δ · min(1, C/‖Δ‖) · 32767/C).
    ///
    /// Truncation never raises a magnitude, so ‖q‖₂ ≤ 32767 holds with certainty; it is verified in integers.
    pub fn clip(&self, clip: ClipNorm) -> Result<ClippedDelta, Problem> {
        self.clip_with(clip, &[])
    }

    /// The same with numbers of [−1, 1] behind the update, all within the one bound: the update keeps
    /// √(1 − Σ shares) of it.
    pub fn clip_with(
        &self,
        clip: ClipNorm,
        measured: &[(Measure, f64)],
    ) -> Result<ClippedDelta, Problem> {
        let bound = clip.value() * MARGIN;
        let norm = self.norm();
        let factor = if norm > bound { bound / norm } else { 1.0 };
        let measures: Vec<Measure> = measured.iter().map(|(measure, _)| *measure).collect();
        measure::check(&measures)?;
        let share = measure::update_share(&measures).sqrt();
        let scale = factor * share * CLIP_INTEGER as f64 / clip.value();
        // Within ±32767 by construction; the cast saturates rather than wraps if it ever were not.
        let update = self.0.iter().map(|v| (f64::from(*v) * scale).trunc() as i16);
        let beside = measured.iter().map(|(measure, value)| measure.quantise(*value));
        let values: Vec<i16> = update.chain(beside).collect();
        match within_bound(&values) {
            true => Ok(ClippedDelta { values, clipped: factor < 1.0 }),
            false => {
                Err(Problem::new(Code::NormExceeded, "the quantised update exceeds the clip norm"))
            }
        }
    }
}

/// Whether Σq² ≤ 32767², in exact integers.
pub fn within_bound(values: &[i16]) -> bool {
    let squares: u64 = values.iter().map(|q| u64::from(q.unsigned_abs()).pow(2)).sum();
    squares <= CLIP_INTEGER.unsigned_abs().pow(2)
}

/// A clipped, quantised update. Built by [`Delta::clip`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClippedDelta {
    values: Vec<i16>,
    clipped: bool,
}

impl ClippedDelta {
    /// The integers, in the task's parameter order.
    pub fn values(&self) -> &[i16] {
        &self.values
    }

    /// Whether the norm had to be reduced.
    pub fn was_clipped(&self) -> bool {
        self.clipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clip_norm() -> ClipNorm {
        ClipNorm::new(0.5).unwrap()
    }

    #[test]
    fn non_finite_values_never_enter() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(
                Delta::between(&[0.0, 0.0], &[0.0, bad]).unwrap_err().is(Code::TrainingDiverged)
            );
        }
        // A finite pair can still overflow in the difference.
        assert!(Delta::between(&[f32::MIN], &[f32::MAX]).is_err());
    }

    #[test]
    fn a_small_update_keeps_its_values() {
        let delta = Delta::between(&[0.0, 1.0], &[0.25, 1.0]).unwrap();
        let clipped = delta.clip(clip_norm()).unwrap();
        assert_eq!(clipped.values(), [16_383, 0]);
        assert!(!clipped.was_clipped());
    }

    proptest! {
        #[test]
        fn the_norm_bound_is_exact(raw in prop::collection::vec(any::<f32>(), 1..200), c in 1e-6f64..1e6) {
            let base = vec![0.0; raw.len()];
            if let Ok(delta) = Delta::between(&base, &raw) {
                let clipped = delta.clip(ClipNorm::new(c).unwrap()).unwrap();
                prop_assert!(within_bound(clipped.values()));
            }
        }

        #[test]
        fn measures_share_the_bound_with_the_update(
            raw in prop::collection::vec(-9f32..9.0, 1..50),
            measured in -2f64..2.0,
            share in 0.01f64..0.25,
        ) {
            let measures = [measure::Kind::WithinClip, measure::Kind::AccuracyAfter]
                .map(|kind| (Measure { kind, share }, measured));
            let delta = Delta::between(&vec![0.0; raw.len()], &raw).unwrap();
            let clipped = delta.clip_with(clip_norm(), &measures).unwrap();
            prop_assert_eq!(clipped.values().len(), raw.len() + 2);
            prop_assert!(within_bound(clipped.values()));
        }
    }
}
