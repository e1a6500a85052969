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
    /// The empty sum over this many parameters.
    pub fn new(parameters: u32) -> Self {
        Self { sum: vec![0; parameters as usize], contributions: 0 }
    }

    /// Adds one contribution. 2⁶³ / 32767 of them fit before an overflow, so there is none.
    pub fn add(&mut self, contribution: &Contribution) -> Result<()> {
        let values = contribution.values();
        if values.len() != self.sum.len() {
            return Err(Problem::new(
                Code::FrameLength,
                format!("{} values for {} parameters", values.len(), self.sum.len()),
            ));
        }
        for (sum, value) in self.sum.iter_mut().zip(values) {
            *sum += i64::from(*value);
        }
        self.contributions += 1;
        Ok(())
    }

    /// The stored form of the sum: i64 little-endian.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        integers_to_bytes(&self.sum)
    }

    /// Reads the stored form.
    pub(crate) fn from_bytes(bytes: &[u8], contributions: u32) -> Result<Self> {
        Ok(Self { sum: integers_from_bytes(bytes)?, contributions })
    }

    /// How many contributions are in it.
    pub fn contributions(&self) -> u32 {
        self.contributions
    }

    /// The number of parameters.
    pub fn parameters(&self) -> usize {
        self.sum.len()
    }

    /// The raw sum, for the noise alone.
    pub(crate) fn into_sum(self) -> Vec<i64> {
        self.sum
    }
}

/// i64 little-endian, the form of sums and noised results in the store.
pub(crate) fn integers_to_bytes(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The inverse of [`integers_to_bytes`].
pub(crate) fn integers_from_bytes(bytes: &[u8]) -> Result<Vec<i64>> {
    let (whole, rest) = bytes.as_chunks::<8>();
    match rest.is_empty() {
        true => Ok(whole.iter().map(|b| i64::from_le_bytes(*b)).collect()),
        false => Err(internal(format!("a stored vector has {} bytes", bytes.len()))),
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

    #[test]
    fn one_contribution_moves_the_sum_by_at_most_the_clip_norm() {
        let huge = sum(&[contribution(&[1e9, 1e9, -1e9])]).into_sum();
        let norm = huge.iter().map(|v| v * v).sum::<i64>();
        assert!(norm <= 32_767 * 32_767 && norm > 32_700 * 32_700);
    }
}
