//! What the user taught: examples that stay on this device. They are stored locally and have no encoder for the network.

use std::collections::BTreeMap;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

use crate::device::Scope;
use crate::input::{Input, no_gaps};
use crate::port::{Port, update};

/// Most examples that are kept; the oldest leave first.
pub const MAX_EXAMPLES: usize = 500;

/// Most bytes that all examples take; the oldest leave first.
pub const MAX_BYTES: usize = 32 << 20;

/// As many examples of so many values are kept.
pub fn capacity(values: usize) -> usize {
    MAX_EXAMPLES.min(MAX_BYTES / bytes_of(values))
}

fn bytes_of(values: usize) -> usize {
    4 * values + 64
}

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
        bytes_of(self.values.len())
    }
}

/// Where the ids of examples begin for which the device has no room.
const UNSAVED: u64 = 5 << 50;

/// All examples of one library on this device.
///
/// Each is a row of its own, under an id that only one page can take, and the list of ids is only ever changed by
/// [`update`]: what two pages teach at the same time is kept, both of it.
pub struct Examples {
    scope: Scope,
    /// No id below was ever free again.
    next: u64,
    /// The list of ids as it was last seen.
    seen: Option<Vec<u8>>,
    /// Oldest first; those that are in memory only come last.
    kept: Vec<Example>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    next: u64,
    ids: Vec<u64>,
}

impl Index {
    fn read(stored: Option<&[u8]>) -> Self {
        stored.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
    }

    fn write(&self) -> Result<Vec<u8>, Problem> {
        serde_json::to_vec(self)
            .map_err(|e| Problem::new(Code::StorageFailed, format!("the index of examples: {e}")))
    }
}

impl Examples {
    /// Reads the stored examples. One that is damaged is dropped: it can be taught again.
    pub async fn open<P: Port>(port: &P, scope: Scope) -> Result<Self, Problem> {
        let mut examples = Self { scope, next: 0, seen: None, kept: Vec::new() };
        examples.refresh(port).await?;
        // A page that ended between an example and the list of ids left one that no list names.
        while port.load(&examples.key_of(examples.next)).await?.is_some() {
            examples.enlist(port, examples.next, 0).await?;
            examples.refresh(port).await?;
        }
        Ok(examples)
    }

    /// Sees what other pages have taught or forgotten meanwhile. Where the whole store was cleared, its examples are
    /// gone here too: whoever clears a site's data means it.
    pub async fn refresh<P: Port>(&mut self, port: &P) -> Result<(), Problem> {
        let stored = port.load(&self.scope.key("examples")).await?;
        if stored == self.seen {
            return Ok(());
        }
        let index = Index::read(stored.as_deref());
        let mut known: BTreeMap<u64, Example> =
            std::mem::take(&mut self.kept).into_iter().map(|e| (e.id, e)).collect();
        let unsaved = known.split_off(&UNSAVED);
        for id in index.ids.iter().rev().take(MAX_EXAMPLES).rev() {
            let known = match known.remove(id) {
                Some(example) => Some(example),
                None => port.load(&self.key_of(*id)).await?.and_then(|b| decode(*id, &b)),
            };
            self.kept.extend(known);
        }
        self.kept.extend(unsaved.into_values());
        self.next = self.next.max(index.next);
        self.seen = stored;
        Ok(())
    }

    /// The examples, oldest first.
    pub fn all(&self) -> &[Example] {
        &self.kept
    }

    /// Examples for which the device has no room: they are gone when the page is closed.
    pub fn unsaved(&self) -> usize {
        self.kept.iter().filter(|example| example.id >= UNSAVED).count()
    }

    /// Bytes that the examples take.
    pub fn bytes(&self) -> usize {
        self.kept.iter().map(Example::bytes).sum()
    }

    /// Adds an example, durably, and returns its id. The oldest leave where the quota is full.
    ///
    /// Where the device cannot store it (`storage_full`, `storage_failed`), the example is used from memory all the
    /// same, and stored with the next one that can be.
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
        let last = self.kept.last().map_or(0, |e| e.id + 1);
        let example = Example { id: last.max(UNSAVED), shape, values, target };
        if example.bytes() > MAX_BYTES {
            let detail = format!(
                "an example of {} bytes is above the quota of {MAX_BYTES}",
                example.bytes()
            );
            return Err(Problem::new(Code::InputInvalid, detail));
        }
        self.kept.push(example);
        self.trim();
        self.save(port).await.map_err(in_memory_only)
    }

    /// Forgets every example.
    pub async fn clear<P: Port>(&mut self, port: &P) -> Result<(), Problem> {
        let mut gone: Vec<u64> = std::mem::take(&mut self.kept).iter().map(|e| e.id).collect();
        let clear = |stored: Option<&[u8]>| {
            let index = Index::read(stored);
            let empty = Index { next: index.next, ids: Vec::new() }.write()?;
            Ok((empty.clone(), (empty, index.ids)))
        };
        let (empty, ids) = update(port, &self.scope.key("examples"), clear).await?;
        self.seen = Some(empty);
        gone.extend(ids);
        self.remove(port, &gone).await
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

    /// Stores what is in memory only, oldest first, and returns the last id.
    async fn save<P: Port>(&mut self, port: &P) -> Result<u64, Problem> {
        self.refresh(port).await?;
        while let Some(place) = self.kept.iter().position(|e| e.id >= UNSAVED) {
            let (bytes, size) = (encode(&self.kept[place]), self.kept[place].bytes());
            let mut id = self.next;
            // An id that another page has taken holds bytes already.
            while !port.swap(&self.key_of(id), None, &bytes).await? {
                id += 1;
            }
            let gone = match self.enlist(port, id, size).await {
                Ok(gone) => gone,
                Err(problem) => {
                    // Else it would be found and counted twice.
                    let _best_effort = port.remove(&self.key_of(id)).await;
                    return Err(problem);
                }
            };
            self.next = id + 1;
            self.kept[place].id = id;
            self.remove(port, &gone).await?;
            self.refresh(port).await?;
        }
        Ok(self.next.saturating_sub(1))
    }

    /// Puts an id on the list and returns those that have to leave for it.
    async fn enlist<P: Port>(&self, port: &P, id: u64, bytes: usize) -> Result<Vec<u64>, Problem> {
        let sizes: BTreeMap<u64, usize> = self.kept.iter().map(|e| (e.id, e.bytes())).collect();
        // What another page has just taught counts as this example does.
        let size = |id: &u64| sizes.get(id).copied().unwrap_or(bytes);
        let add = |stored: Option<&[u8]>| {
            let mut index = Index::read(stored);
            if !index.ids.contains(&id) {
                index.ids.push(id);
            }
            index.ids.sort_unstable();
            index.next = index.next.max(id + 1);
            let mut total: usize = index.ids.iter().map(size).sum();
            let mut gone = Vec::new();
            while index.ids.len() > MAX_EXAMPLES || (total > MAX_BYTES && index.ids.len() > 1) {
                let oldest = index.ids.remove(0);
                total -= size(&oldest);
                gone.push(oldest);
            }
            Ok((index.write()?, gone))
        };
        update(port, &self.scope.key("examples"), add).await
    }

    async fn remove<P: Port>(&self, port: &P, ids: &[u64]) -> Result<(), Problem> {
        for id in ids.iter().filter(|id| **id < UNSAVED) {
            port.remove(&self.key_of(*id)).await?;
        }
        Ok(())
    }

    /// Keeps the quota in memory too.
    fn trim(&mut self) {
        while self.kept.len() > MAX_EXAMPLES || self.bytes() > MAX_BYTES {
            self.kept.remove(0);
        }
    }

    fn key_of(&self, id: u64) -> String {
        self.scope.key(&format!("example/{id}"))
    }
}

fn in_memory_only(problem: Problem) -> Problem {
    let hint = "free some space on this device and teach one more; until this page is closed, the example is used \
                from memory";
    problem.with_hint(hint)
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

    fn add(examples: &mut Examples, port: &MemoryPort, class: usize) -> Result<u64, Problem> {
        block_on(examples.add(port, vec![1], vec![0.5], Target::Class(class)))
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
        assert!(open(&port).all().is_empty());
        // An id is never given twice.
        assert_eq!(add(&mut examples, &port, 0).unwrap(), MAX_EXAMPLES as u64 + 3);
    }

    #[test]
    fn what_two_pages_teach_at_the_same_time_is_kept() {
        let port = port();
        let (mut one, mut two) = (open(&port), open(&port));
        block_on(async {
            let teach = async |examples: &mut Examples, start: usize| {
                for class in start..start + 20 {
                    let added = examples.add(&port, vec![1], vec![0.5], Target::Class(class)).await;
                    added.unwrap();
                }
            };
            futures::join!(teach(&mut one, 0), teach(&mut two, 100));
        });
        let classes: BTreeMap<usize, usize> = open(&port).per_class();
        assert_eq!(classes.len(), 40);
        for examples in [&mut one, &mut two] {
            block_on(examples.refresh(&port)).unwrap();
            assert_eq!(examples.per_class(), classes);
        }
        // What one page forgets, the other one does too.
        block_on(one.clear(&port)).unwrap();
        block_on(two.refresh(&port)).unwrap();
        assert!(two.all().is_empty());
    }

    #[test]
    fn a_full_device_keeps_examples_in_memory_and_stores_them_later() {
        let port = port();
        let mut examples = open(&port);
        add(&mut examples, &port, 0).unwrap();
        port.full.set(true);
        for class in 1..4 {
            let problem = add(&mut examples, &port, class).unwrap_err();
            assert!(problem.is(Code::StorageFull) && problem.hint().unwrap().contains("memory"));
        }
        assert_eq!((examples.all().len(), examples.unsaved()), (4, 3));
        assert_eq!(open(&port).all().len(), 1);
        port.full.set(false);
        add(&mut examples, &port, 4).unwrap();
        assert_eq!(examples.unsaved(), 0);
        assert_eq!(open(&port).per_class(), examples.per_class());
        assert_eq!(open(&port).all(), examples.all());
    }

    #[test]
    fn a_page_that_ended_before_the_list_loses_nothing() {
        let port = port();
        let mut examples = open(&port);
        let before = port.stored().clone();
        for class in 0..3 {
            add(&mut examples, &port, class).unwrap();
        }
        let index = Scope::of("x").key("examples");
        assert!(!before.contains_key(&index));
        port.stored().remove(&index);
        assert_eq!(open(&port).all(), examples.all());
    }

    #[test]
    fn a_cleared_store_takes_its_examples_along() {
        let port = port();
        let mut examples = open(&port);
        add(&mut examples, &port, 1).unwrap();
        port.stored().clear();
        block_on(examples.refresh(&port)).unwrap();
        assert!(examples.all().is_empty());
        // The next one is not taken for the one that was.
        assert_eq!(add(&mut examples, &port, 2).unwrap(), 1);
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
