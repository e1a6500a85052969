//! Numbers that travel beside the update in one frame: the same clip, the same noise, the same debit.
//!
//! A measure takes a share of the frame's squared norm, so the whole frame keeps ‖q‖₂ ≤ 32767 and a release costs
//! the same ρ with measures as without. What they take, the update loses: its noise grows by 1/√(1 − Σ shares).

use serde::{Deserialize, Serialize};

use crate::delta::CLIP_INTEGER;
use crate::problem::{Code, Problem};

/// The most of the frame that measures may take; the update keeps the rest.
pub const LARGEST_SHARE: f64 = 0.5;

/// What is measured on the device, as a number in [−1, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Whether the update was within the clip norm before clipping: 1 or −1 (Andrew et al. 2021).
    WithinClip,
    /// Accuracy of the round's weights on the device's judging examples: 2·accuracy − 1.
    AccuracyBefore,
    /// The same after the device's training.
    AccuracyAfter,
}

/// One measure of a task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// What.
    pub kind: Kind,
    /// Its share of the frame's squared norm, in (0, 1).
    pub share: f64,
}

impl Measure {
    /// The integer that stands for 1.
    pub fn amplitude(&self) -> i64 {
        (self.share.sqrt() * CLIP_INTEGER as f64).trunc() as i64
    }

    /// The integer of a measured number; what is not within [−1, 1] is moved there, NaN is 0.
    pub fn quantise(&self, value: f64) -> i16 {
        // Within ±32767; the cast takes NaN to 0.
        (value.clamp(-1.0, 1.0) * self.amplitude() as f64).trunc() as i16
    }

    /// The mean over `goal` devices from a noised sum, moved into [−1, 1]: what noise adds beyond that says nothing.
    pub fn mean(&self, sum: f64, goal: u32) -> f64 {
        (sum / (self.amplitude() as f64 * f64::from(goal))).clamp(-1.0, 1.0)
    }

    /// The standard deviation of [`Measure::mean`] that noise of this multiplier causes.
    pub fn deviation(&self, noise_multiplier: f64, goal: u32) -> f64 {
        noise_multiplier * CLIP_INTEGER as f64 / (self.amplitude() as f64 * f64::from(goal))
    }
}

/// The share of the squared norm that is left to the update: 1 without measures.
pub fn update_share(measures: &[Measure]) -> f64 {
    1.0 - measures.iter().map(|measure| measure.share).sum::<f64>()
}

/// Refuses measures that are named twice, or that take too much or nothing.
pub fn check(measures: &[Measure]) -> Result<(), Problem> {
    let invalid = |what: String| Err(Problem::new(Code::PrivacyInvalid, what));
    for (index, measure) in measures.iter().enumerate() {
        if !(measure.share > 0.0 && measure.share < 1.0) || measure.amplitude() == 0 {
            return invalid(format!("the share {} of a measure is not in (0, 1)", measure.share));
        }
        if measures[..index].iter().any(|earlier| earlier.kind == measure.kind) {
            return invalid(format!("the measure {:?} is named twice", measure.kind));
        }
    }
    let taken = 1.0 - update_share(measures);
    match taken <= LARGEST_SHARE {
        true => Ok(()),
        false => {
            invalid(format!("measures take {taken:.2} of the frame; {LARGEST_SHARE} is the most"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(share: f64) -> Measure {
        Measure { kind: Kind::WithinClip, share }
    }

    #[test]
    fn a_mean_comes_back_and_nothing_leaves_its_range() {
        let clip = measure(0.1);
        let sum: i64 = [1.0, -1.0, 1.0, 0.5].iter().map(|v| i64::from(clip.quantise(*v))).sum();
        assert!((clip.mean(sum as f64, 4) - 0.375).abs() < 1e-3);
        assert_eq!(clip.quantise(f64::NAN), 0);
        assert_eq!(i64::from(clip.quantise(9.0)), clip.amplitude());
        assert_eq!(clip.mean(1e12, 4), 1.0);
    }

    #[test]
    fn shares_are_checked() {
        check(&[]).unwrap();
        check(&[measure(0.1)]).unwrap();
        for bad in [0.0, -0.1, f64::NAN, 1.0, 0.6, 1e-12] {
            assert!(check(&[measure(bad)]).unwrap_err().is(Code::PrivacyInvalid), "{bad}");
        }
        assert!(check(&[measure(0.1), measure(0.1)]).unwrap_err().detail().contains("twice"));
    }
}
