//! Correlated noise over releases, in exact integers: each release publishes a weighted sum of the last rounds with
//! noise of its own, and what one release's noise did wrong, the next ones take back.
//!
//! With integer coefficients c₀ ≥ c₁ ≥ … of a band b, release i publishes yᵢ = Σⱼ cⱼ·xᵢ₋ⱼ + Zᵢ and recovers
//! x̂ᵢ = (yᵢ − Σ_{j≥1} cⱼ·x̂ᵢ₋ⱼ)/c₀, which is post-processing. A contribution to round r moves yᵣ … yᵣ₊ᵦ₋₁ by at most
//! cⱼ·32767 each, so with σ = z·32767·√Σcⱼ² all of them together cost ρ = 1/(2z²): what one release with noise of
//! its own costs. `docs/PRIVACY.md` has the proof. The coefficients are those of (1 − x)^(−1/2)
//! (Fichtenberger, Henzinger, Upadhyay 2023; Dvijotham et al. 2024), cut off at b.

use std::collections::VecDeque;

use backstitch_protocol::Problem;
use backstitch_protocol::delta::CLIP_INTEGER;
use backstitch_protocol::privacy::{ClipNorm, NoiseMultiplier};
use backstitch_protocol::problem::Code;

use crate::failure::{Result, internal};

/// The integer that stands for a coefficient norm of 1.
const SCALE: f64 = 4096.0;

/// Releases that share noise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// c₀, c₁ …; `[1]` where every release has noise of its own.
    coefficients: Vec<i64>,
}

impl Band {
    /// The widest band: a block keeps as many sums in memory.
    pub const WIDEST: u32 = 64;

    /// A band over this many releases, 1 to [`Band::WIDEST`].
    pub fn new(width: u32) -> Result<Self> {
        if !(1..=Self::WIDEST).contains(&width) {
            return Err(Problem::new(
                Code::PrivacyInvalid,
                format!("noise_band {width} is not 1 to {}", Self::WIDEST),
            ));
        }
        if width == 1 {
            return Ok(Self { coefficients: vec![1] });
        }
        let mut real = vec![1.0f64];
        for j in 1..f64::from(width) as usize {
            let j = j as f64;
            real.push(real[real.len() - 1] * (2.0 * j - 1.0) / (2.0 * j));
        }
        let norm = real.iter().map(|c| c * c).sum::<f64>().sqrt();
        Ok(Self { coefficients: real.iter().map(|c| (c / norm * SCALE).round() as i64).collect() })
    }

    /// b.
    pub fn width(&self) -> usize {
        self.coefficients.len()
    }

    /// The most by which one contribution moves all releases of its band together, in L2: 32767·√Σc², rounded up.
    pub fn sensitivity(&self) -> f64 {
        match self.coefficients[..] {
            [1] => CLIP_INTEGER as f64,
            _ => (CLIP_INTEGER as f64 * self.norm().next_up()).next_up(),
        }
    }

    /// How many times smaller the error of the accumulated model is than with plain noise at the same ρ: the root
    /// mean square over all prefixes of this many releases.
    pub fn improvement(&self, releases: usize) -> f64 {
        // Column of the inverse: how the noise of one release stands in the estimates of the ones after it.
        let mut inverse: Vec<f64> = Vec::with_capacity(releases);
        let first = self.coefficients[0] as f64;
        for i in 0..releases {
            let tail = self.coefficients.iter().enumerate().skip(1).take(i);
            let known: f64 = tail.map(|(j, c)| *c as f64 * inverse[i - j]).sum();
            inverse.push((if i == 0 { 1.0 } else { 0.0 } - known) / first);
        }
        let (mut prefix, mut variance, mut total, mut plain) = (0.0, 0.0, 0.0, 0.0);
        for (i, coefficient) in inverse.iter().enumerate() {
            prefix += coefficient;
            variance += prefix * prefix;
            total += variance;
            plain += (i + 1) as f64;
        }
        (plain / total).sqrt() / self.norm()
    }

    /// √Σc².
    fn norm(&self) -> f64 {
        (self.coefficients.iter().map(|c| c * c).sum::<i64>() as f64).sqrt()
    }
}

/// What must stay the same within a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Terms {
    pub(crate) round: u64,
    pub(crate) noise_band: u32,
    pub(crate) noise_multiplier: NoiseMultiplier,
    pub(crate) clip_norm: ClipNorm,
    pub(crate) values: usize,
}

impl Terms {
    /// Whether these are the terms of the round after `before`.
    fn follow(&self, before: &Self) -> bool {
        *self == Self { round: before.round + 1, ..*before }
    }
}

/// The last sums of a block, which are secret, and their estimates, which are public.
///
/// It lives in memory alone and is used up by the release that reads it: no copy of it can be loaded after a
/// release, and whoever loses it begins a new block, which costs accuracy and no privacy.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Of the newest release in it.
    terms: Option<Terms>,
    /// Newest first: (x, x̂).
    past: VecDeque<(Vec<i64>, Vec<f64>)>,
    /// Releases so far.
    releases: u64,
}

/// A sum that has been weighed with the ones before it, and is to be noised.
pub(super) struct Weighed {
    band: Band,
    block: Block,
    terms: Terms,
    sum: Vec<i64>,
}

impl Block {
    /// Takes the sum of the next round into the block, or begins a new one where this one does not go on.
    pub(super) fn weigh(self, terms: Terms, sum: Vec<i64>) -> Result<Weighed> {
        let band = Band::new(terms.noise_band)?;
        let goes_on = self.terms.is_some_and(|before| terms.follow(&before));
        let block = if goes_on { self } else { Self::default() };
        Ok(Weighed { band, block, terms, sum })
    }
}

impl Weighed {
    /// By how much one contribution moves its whole band.
    pub(super) fn sensitivity(&self) -> f64 {
        self.band.sensitivity()
    }

    /// The release's place in its block, counted from 0.
    pub(super) fn position(&self) -> u64 {
        self.block.releases
    }

    /// Σⱼ cⱼ·xᵢ₋ⱼ: what the noise is added to.
    pub(super) fn combined(&self) -> Result<Vec<i64>> {
        let mut combined = vec![0i64; self.sum.len()];
        let past = self.block.past.iter().map(|(sum, _)| sum);
        for (coefficient, sum) in
            self.band.coefficients.iter().zip([&self.sum].into_iter().chain(past))
        {
            for (total, value) in combined.iter_mut().zip(sum) {
                *total = coefficient
                    .checked_mul(*value)
                    .and_then(|product| total.checked_add(product))
                    .ok_or_else(|| internal("a weighed sum is out of range"))?;
            }
        }
        Ok(combined)
    }

    /// x̂ from the noised values, and the block with this release in it.
    pub(super) fn estimate(self, noised: &[i64]) -> (Vec<f64>, Block) {
        let Self { band, mut block, terms, sum } = self;
        let mut estimate: Vec<f64> = noised.iter().map(|y| *y as f64).collect();
        for (coefficient, (_, earlier)) in band.coefficients.iter().skip(1).zip(&block.past) {
            for (value, known) in estimate.iter_mut().zip(earlier) {
                *value -= *coefficient as f64 * known;
            }
        }
        estimate.iter_mut().for_each(|value| *value /= band.coefficients[0] as f64);
        block.past.push_front((sum, estimate.clone()));
        block.past.truncate(band.width() - 1);
        (estimate, Block { terms: Some(terms), past: block.past, releases: block.releases + 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms(round: u64, noise_band: u32, values: usize) -> Terms {
        Terms {
            round,
            noise_band,
            noise_multiplier: NoiseMultiplier::new(2.54).unwrap(),
            clip_norm: ClipNorm::new(1.0).unwrap(),
            values,
        }
    }

    /// Releases these sums in order, each with the noise that `noise` gives for it.
    fn releases(
        sums: &[Vec<i64>],
        width: u32,
        noise: &mut impl FnMut(&Weighed) -> Vec<i64>,
    ) -> Vec<Vec<f64>> {
        let mut block = Block::default();
        let mut estimates = Vec::new();
        for (round, sum) in sums.iter().enumerate() {
            let weighed = block.weigh(terms(round as u64, width, sum.len()), sum.clone()).unwrap();
            assert_eq!(weighed.position(), round as u64);
            let noise = noise(&weighed);
            let noised: Vec<i64> =
                weighed.combined().unwrap().iter().zip(noise).map(|(v, n)| v + n).collect();
            let (estimate, next) = weighed.estimate(&noised);
            estimates.push(estimate);
            block = next;
        }
        estimates
    }

    proptest! {
        #[test]
        fn without_noise_every_sum_comes_back(
            width in 1u32..12,
            sums in prop::collection::vec(prop::collection::vec(-3_000_000i64..3_000_000, 3), 1..30),
        ) {
            let estimates = releases(&sums, width, &mut |weighed| vec![0; weighed.sum.len()]);
            for (estimate, sum) in estimates.iter().zip(&sums) {
                for (value, exact) in estimate.iter().zip(sum) {
                    prop_assert!((value - *exact as f64).abs() < 1e-3, "{value} {exact}");
                }
            }
        }

        /// The bound of the proof: one contribution of norm 32767 at round r moves what is noised by at most
        /// the sensitivity, over all releases of the block together, and only within its band.
        #[test]
        fn one_contribution_moves_its_band_by_at_most_the_sensitivity(
            width in 1u32..12,
            round in 0usize..20,
            raw in prop::collection::vec(-1f64..1.0, 4),
        ) {
            let norm = raw.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-9);
            let moved: Vec<i64> =
                raw.iter().map(|v| (v / norm * CLIP_INTEGER as f64).trunc() as i64).collect();
            let mut combined = [Vec::new(), Vec::new()];
            for (with, combined) in combined.iter_mut().enumerate() {
                let sums: Vec<Vec<i64>> = (0..32)
                    .map(|i| if with == 1 && i == round { moved.clone() } else { vec![7; 4] })
                    .map(|sum| sum.iter().map(|v| v + 1).collect())
                    .collect();
                releases(&sums, width, &mut |weighed| {
                    combined.push(weighed.combined().unwrap());
                    vec![0; 4]
                });
            }
            let mut squares = 0.0;
            for (i, (a, b)) in combined[0].iter().zip(&combined[1]).enumerate() {
                let change: f64 = a.iter().zip(b).map(|(a, b)| ((a - b) as f64).powi(2)).sum();
                prop_assert!(change == 0.0 || (round..round + width as usize).contains(&i));
                squares += change;
            }
            // The other rounds hold 8, so the difference is at most 32767 + √4·7.
            let slack = 1.0 + 14.0 / CLIP_INTEGER as f64;
            prop_assert!(squares.sqrt() <= Band::new(width).unwrap().sensitivity() * slack);
        }
    }

    #[test]
    fn coefficients_fall_and_their_norm_is_the_scale() {
        for width in 2..=Band::WIDEST {
            let band = Band::new(width).unwrap();
            assert_eq!(band.width(), width as usize);
            // Positive and falling: the inverse filter is stable (Eneström, Kakeya), so errors do not build up.
            assert!(band.coefficients.windows(2).all(|pair| pair[0] > pair[1]));
            assert!(band.coefficients[width as usize - 1] > 0);
            assert!((band.norm() / SCALE - 1.0).abs() < 1e-3);
            let exact: i128 = band.coefficients.iter().map(|c| i128::from(c * c)).sum::<i128>()
                * i128::from(CLIP_INTEGER * CLIP_INTEGER);
            assert!(band.sensitivity().powi(2) >= exact as f64);
        }
        assert_eq!(Band::new(1).unwrap().sensitivity(), CLIP_INTEGER as f64);
        assert!(Band::new(0).is_err() && Band::new(Band::WIDEST + 1).is_err());
    }

    #[test]
    fn the_error_of_the_accumulated_model_falls_as_published() {
        for (releases, width, wanted) in
            [(100, 2, 1.33), (100, 5, 1.88), (100, 10, 2.34), (100, 25, 2.86), (500, 50, 4.42)]
        {
            let found = Band::new(width).unwrap().improvement(releases);
            assert!((found / wanted - 1.0).abs() < 0.02, "{releases} {width}: {found}");
        }
        assert!((Band::new(1).unwrap().improvement(100) - 1.0).abs() < 1e-12);
    }

    /// With the real noise of the releases, at the same z and so at the same ρ.
    #[test]
    fn banded_noise_errs_a_fraction_of_plain_noise_at_the_same_rho() {
        let (rounds, parameters) = (100, 200);
        let sums = vec![vec![0i64; parameters]; rounds];
        let error = |width| {
            let estimates = releases(&sums, width, &mut |weighed| {
                super::super::noise::tests::draw_at(2.54, weighed.sensitivity(), parameters)
            });
            let mut accumulated = vec![0.0; parameters];
            let mut squares = 0.0;
            for estimate in estimates {
                for (total, value) in accumulated.iter_mut().zip(estimate) {
                    *total += value;
                    squares += *total * *total;
                }
            }
            (squares / (rounds * parameters) as f64).sqrt()
        };
        let plain = error(1);
        for (width, bar) in [(5, 1.6), (10, 1.9), (25, 2.3)] {
            let ratio = plain / error(width);
            let expected = Band::new(width).unwrap().improvement(rounds);
            println!("band {width}: {ratio:.2} times less error, {expected:.2} expected");
            assert!(ratio > bar, "{width}: {ratio}");
        }
    }

    #[test]
    fn other_terms_and_a_missed_round_begin_a_new_block() {
        let begin = || {
            let weighed = Block::default().weigh(terms(1, 3, 2), vec![5, 5]).unwrap();
            let noised = weighed.combined().unwrap();
            weighed.estimate(&noised).1
        };
        assert_eq!(begin().weigh(terms(2, 3, 2), vec![1, 1]).unwrap().position(), 1);
        let other = [
            terms(3, 3, 2),
            terms(1, 3, 2),
            terms(2, 4, 2),
            terms(2, 3, 1),
            Terms { clip_norm: ClipNorm::new(2.0).unwrap(), ..terms(2, 3, 2) },
            Terms { noise_multiplier: NoiseMultiplier::new(3.0).unwrap(), ..terms(2, 3, 2) },
        ];
        for terms in other {
            let fresh = begin().weigh(terms, vec![1; terms.values]).unwrap();
            assert_eq!(fresh.position(), 0, "{terms:?}");
            let first = fresh.band.coefficients[0];
            assert_eq!(
                fresh.combined().unwrap(),
                vec![first; terms.values],
                "nothing of the old block"
            );
        }
    }
}
