//! The sum of a round's contributions, in integers: any order and any sharding give the same bits.

use backstitch_protocol::Problem;
use backstitch_protocol::contribution::Contribution;
use backstitch_protocol::problem::Code;

use crate::failure::{Result, internal};

/// A partial sum. It holds no single contribution, and nothing that publishes accepts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    sum: Vec<i64>,
    contributions: u32,
}

impl Aggregate {
    /// The empty sum over this many values of a frame.
    pub fn new(values: u32) -> Self {
        Self { sum: vec![0; values as usize], contributions: 0 }
    }

    /// Adds one contribution. 2⁶³ / 32767 of them fit before an overflow, so there is none.
    pub fn add(&mut self, contribution: &Contribution) -> Result<()> {
        let values = contribution.values();
        if values.len() != self.sum.len() {
            return Err(Problem::new(
                Code::FrameLength,
                format!("{} values for a sum of {}", values.len(), self.sum.len()),
            ));
        }
        for (sum, value) in self.sum.iter_mut().zip(values) {
            *sum += i64::from(*value);
        }
        self.contributions += 1;
        Ok(())
    }

    /// Counts a contribution whose values are not taken: a filter that refuses it must not show in the count.
    pub fn add_zeros(&mut self) {
        self.contributions += 1;
    }

    /// The stored form of the sum: i64 little-endian.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.sum.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// Reads the stored form.
    pub(crate) fn from_bytes(bytes: &[u8], contributions: u32) -> Result<Self> {
        let (whole, rest) = bytes.as_chunks::<8>();
        match rest.is_empty() {
            true => {
                let sum = whole.iter().map(|b| i64::from_le_bytes(*b)).collect();
                Ok(Self { sum, contributions })
            }
            false => Err(internal(format!("a stored sum has {} bytes", bytes.len()))),
        }
    }

    /// How many contributions are in it.
    pub fn contributions(&self) -> u32 {
        self.contributions
    }

    /// The number of values.
    pub fn values(&self) -> usize {
        self.sum.len()
    }

    /// The raw sum, for the noise alone.
    pub(crate) fn into_sum(self) -> Vec<i64> {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstitch_onnx::Digest;
    use backstitch_protocol::contribution::Nullifier;
    use backstitch_protocol::delta::Delta;
    use backstitch_protocol::id::Name;
    use backstitch_protocol::privacy::ClipNorm;
    use proptest::prelude::*;

    fn contribution(values: &[f32]) -> Contribution {
        let delta = Delta::between(&vec![0.0; values.len()], values).unwrap();
        let clipped = delta.clip(ClipNorm::new(1.0).unwrap()).unwrap();
        let nullifier = Nullifier::derive(&[1; 32], &Name::new("t").unwrap(), 1);
        Contribution::new(Digest::of(b""), nullifier, clipped)
    }

    fn sum(contributions: &[Contribution]) -> Aggregate {
        let mut aggregate = Aggregate::new(3);
        contributions.iter().for_each(|c| aggregate.add(c).unwrap());
        aggregate
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same_bytes(
            raw in prop::collection::vec([-2f32..2.0, -2f32..2.0, -2f32..2.0], 1..20),
            seed in any::<usize>(),
        ) {
            let mut all: Vec<_> = raw.iter().map(|v| contribution(v)).collect();
            let before = sum(&all).to_bytes();
            let at = seed % all.len();
            all.rotate_left(at);
            all.reverse();
            prop_assert_eq!(sum(&all).to_bytes(), before.clone());
            prop_assert_eq!(Aggregate::from_bytes(&before, 0).unwrap().to_bytes(), before);
        }
    }

    proptest! {
        /// m attackers of n contributors, whatever they send, move the mean of a round by at most m·C/n.
        #[test]
        fn attackers_move_the_mean_by_at_most_their_share_of_the_clip_norm(
            honest in prop::collection::vec([-2f32..2.0, -2f32..2.0, -2f32..2.0], 1..20),
            hostile in prop::collection::vec([any::<f32>(), any::<f32>(), any::<f32>()], 1..10),
        ) {
            let clip = 1.0;
            let finite = |v: &&[f32; 3]| v.iter().all(|x| x.is_finite());
            let hostile: Vec<_> = hostile.iter().filter(finite).map(|v| contribution(v)).collect();
            let honest: Vec<_> = honest.iter().map(|v| contribution(v)).collect();
            let all: Vec<_> = honest.iter().chain(&hostile).cloned().collect();
            let n = all.len() as f64;
            // In a mean over n, the hostile are zeros or what they sent.
            let moved = sum(&all).into_sum().iter().zip(sum(&honest).into_sum())
                .map(|(a, b)| ((a - b) as f64 * clip / 32_767.0 / n).powi(2)).sum::<f64>().sqrt();
            prop_assert!(moved <= hostile.len() as f64 * clip / n + 1e-12, "{moved}");
        }
    }

    #[test]
    fn one_contribution_moves_the_sum_by_at_most_the_clip_norm() {
        let huge = sum(&[contribution(&[1e9, 1e9, -1e9])]).into_sum();
        let norm = huge.iter().map(|v| v * v).sum::<i64>();
        assert!(norm <= 32_767 * 32_767 && norm > 32_700 * 32_700);
    }
}
