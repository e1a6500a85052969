//! What the user taught: examples that stay on this device. They are stored locally and have no encoder for the network.

use std::collections::BTreeMap;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

use crate::device::Scope;
use crate::input::{Input, no_gaps};
use crate::port::Port;

/// Most examples that are kept; the oldest leave first.
pub const MAX_EXAMPLES: usize = 500;

/// Most bytes that all examples take; the oldest leave first.
pub const MAX_BYTES: usize = 32 << 20;

/// Every fifth example judges the training and is never trained on.
const HELD_OUT_EVERY: u64 = 5;

/// What the model should have said.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// The index of a class.
    Class(usize),
    /// Numbers in the shape of the output.
    Values(Vec<f32>),
}

/// One taught input, as the primary's input takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Counts from 0 over the life of the store.
    pub id: u64,
    /// The prepared input.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
    /// The right answer.
    pub target: Target,
}

impl Example {
    /// Whether this example only judges.
    pub fn is_held_out(&self) -> bool {
        self.id % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    }

    fn bytes(&self) -> usize {
        4 * self.values.len() + 64
    }
}

/// All examples of one library on this device.
pub struct Examples {
    scope: Scope,
    next: u64,
    kept: Vec<Example>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    next: u64,
    ids: Vec<u64>,
}

impl Examples {
    /// Reads the stored examples. One that is damaged is dropped: it can be taught again.
    pub async fn open<P: Port>(port: &P, scope: Scope) -> Result<Self, Problem> {
        let stored = port.load(&scope.key("examples")).await?;
        let index = stored.and_then(|bytes| serde_json::from_slice::<Index>(&bytes).ok());
        let index = index.unwrap_or(Index { next: 0, ids: Vec::new() });
        let mut kept = Vec::new();
        for id in index.ids.into_iter().take(MAX_EXAMPLES) {
            let bytes = port.load(&scope.key(&format!("example/{id}"))).await?;
            kept.extend(bytes.and_then(|bytes| decode(id, &bytes)));
        }
        Ok(Self { scope, next: index.next, kept })
    }

    /// The examples, oldest first.
    pub fn all(&self) -> &[Example] {
        &self.kept
    }

    /// Grows with every change, so that what was computed from the examples can be recognised as old.
    pub fn revision(&self) -> (u64, usize) {
        (self.next, self.kept.len())
    }

    /// Bytes that the examples take.
    pub fn bytes(&self) -> usize {
        self.kept.iter().map(Example::bytes).sum()
    }

    /// Adds an example, durably, and returns its id. The oldest leave where the quota is full.
    pub async fn add<P: Port>(
        &mut self,
        port: &P,
        shape: Vec<usize>,
        values: Vec<f32>,
        target: Target,
    ) -> Result<u64, Problem> {
        // The same checks as for an input, so that nothing else is ever trained on.
        no_gaps(&values)?;
        let Input::Tensor { shape, values } = Input::tensor(shape, values)? else {
            return Err(Problem::new(Code::InputInvalid, "an example is a tensor"));
        };
        let example = Example { id: self.next, shape, values, target };
        if example.bytes() > MAX_BYTES {
            let detail = format!(
                "an example of {} bytes is above the quota of {MAX_BYTES}",
                example.bytes()
            );
            return Err(Problem::new(Code::InputInvalid, detail));
        }
        port.store(&self.scope.key(&format!("example/{}", example.id)), &encode(&example)).await?;
        let id = example.id;
        self.next += 1;
        self.kept.push(example);
        let mut gone = Vec::new();
        while self.kept.len() > MAX_EXAMPLES || self.bytes() > MAX_BYTES {
            gone.push(self.kept.remove(0).id);
        }
        self.write_index(port).await?;
        for id in gone {
            port.remove(&self.scope.key(&format!("example/{id}"))).await?;
        }
        Ok(id)
    }

    /// Forgets every example.
    pub async fn clear<P: Port>(&mut self, port: &P) -> Result<(), Problem> {
        let gone = std::mem::take(&mut self.kept);
        self.write_index(port).await?;
        for example in gone {
            port.remove(&self.scope.key(&format!("example/{}", example.id))).await?;
        }
        Ok(())
    }

    /// Examples per class index.
    pub fn per_class(&self) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        for example in &self.kept {
            if let Target::Class(class) = example.target {
                *counts.entry(class).or_insert(0) += 1;
            }
        }
        counts
    }

    async fn write_index<P: Port>(&self, port: &P) -> Result<(), Problem> {
        let index = Index { next: self.next, ids: self.kept.iter().map(|e| e.id).collect() };
        let bytes = serde_json::to_vec(&index).map_err(|e| {
            Problem::new(Code::StorageFailed, format!("the index of examples: {e}"))
        })?;
        port.store(&self.scope.key("examples"), &bytes).await
    }
}

/// The local form: rank, dimensions, kind and count of the target as u32, then f32 values, all little-endian.
fn encode(example: &Example) -> Vec<u8> {
    let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = Vec::with_capacity(example.bytes());
    bytes.extend(word(example.shape.len()));
    example.shape.iter().for_each(|d| bytes.extend(word(*d)));
    let targets: &[f32] = match &example.target {
        Target::Class(class) => {
            bytes.extend(word(0));
            bytes.extend(word(*class));
            &[]
        }
        Target::Values(values) => {
            bytes.extend(word(1));
            bytes.extend(word(values.len()));
            values
        }
    };
    example.values.iter().chain(targets).for_each(|v| bytes.extend(v.to_le_bytes()));
    bytes
}

fn decode(id: u64, bytes: &[u8]) -> Option<Example> {
    let mut words = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
    let mut word = || words.next().map(|w| u32::from_le_bytes(w) as usize);
    let rank = word().filter(|rank| *rank <= 8)?;
    let shape: Vec<usize> = (0..rank).map(|_| word()).collect::<Option<_>>()?;
    let (kind, n) = (word()?, word()?);
    let floats: Vec<f32> = words.map(f32::from_le_bytes).collect();
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    let (values, targets) = floats.split_at_checked(count)?;
    let target = match kind {
        0 if targets.is_empty() => Target::Class(n),
        1 if targets.len() == n => Target::Values(targets.to_vec()),
        _ => return None,
    };
    let finite = floats.iter().all(|v| v.is_finite()) && bytes.len().is_multiple_of(4);
    finite.then(|| Example { id, shape, values: values.to_vec(), target })
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::memory::MemoryPort;

    fn port() -> MemoryPort {
        MemoryPort::new(1, |_| Err(Problem::new(Code::NetworkFailed, "no network here")))
    }

    fn open(port: &MemoryPort) -> Examples {
        block_on(Examples::open(port, Scope::of("x"))).unwrap()
    }

    #[test]
    fn examples_survive_a_restart_and_damage_costs_one() {
        let port = port();
        let mut examples = open(&port);
        for class in 0..6 {
            block_on(examples.add(
                &port,
                vec![1, 2],
                vec![0.5, class as f32],
                Target::Class(class),
            ))
            .unwrap();
        }
        block_on(examples.add(&port, vec![1], vec![1.0], Target::Values(vec![0.1, 0.2]))).unwrap();
        assert_eq!(open(&port).all(), examples.all());
        assert_eq!(examples.all().iter().filter(|e| e.is_held_out()).count(), 1);
        port.stored().values_mut().filter(|v| v.len() == 28).take(1).for_each(|v| v.truncate(9));
        assert_eq!(open(&port).all().len(), 6);
    }

    #[test]
    fn the_quota_drops_the_oldest_and_clearing_removes_all() {
        let port = port();
        let mut examples = open(&port);
        for class in 0..MAX_EXAMPLES + 3 {
            block_on(examples.add(&port, vec![1], vec![0.0], Target::Class(class))).unwrap();
        }
        assert_eq!(examples.all()[0].id, 3);
        assert_eq!(port.stored().len(), MAX_EXAMPLES + 1);
        block_on(examples.clear(&port)).unwrap();
        assert_eq!(port.stored().len(), 1);
        assert_eq!(open(&port).revision(), (MAX_EXAMPLES as u64 + 3, 0));
    }

    #[test]
    fn what_is_not_finite_is_never_kept() {
        let port = port();
        let mut examples = open(&port);
        let problem =
            block_on(examples.add(&port, vec![1], vec![f32::NAN], Target::Class(0))).unwrap_err();
        assert!(problem.is(Code::InputInvalid));
        assert!(port.stored().is_empty());
    }

    #[test]
    fn arbitrary_stored_bytes_never_panic() {
        let mut draws = crate::random::SplitMix::new(5);
        for _ in 0..2000 {
            let length = draws.below(64);
            let bytes: Vec<u8> = (0..length)
                .map(|_| if draws.below(3) > 0 { 0 } else { draws.next_u64() as u8 })
                .collect();
            let _ = decode(0, &bytes);
        }
    }
}
