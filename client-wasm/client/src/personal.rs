//! What training on this device changed: a difference to the shared weights, kept so that it survives a new shared
//! version: personal = shared + difference.

use std::collections::BTreeMap;

use backstitch_onnx::Tensor;
use backstitch_onnx::patch::Patch;
use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

use crate::device::Scope;
use crate::port::{Port, update};

/// The differences of all patches that were trained here.
pub struct Personal {
    scope: Scope,
    changes: BTreeMap<Name, Change>,
}

/// One patch's difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Whether runs use it.
    pub in_use: bool,
    /// Examples that it was trained on.
    pub examples: usize,
    /// Over the trainable tensors in byte order of their names.
    difference: Vec<f32>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    in_use: bool,
    examples: usize,
}

impl Stored {
    fn of(change: &Change) -> Self {
        Self { in_use: change.in_use, examples: change.examples }
    }
}

impl Change {
    /// The difference between two states of one patch.
    pub fn between(
        shared: &Patch,
        trained: &Patch,
        examples: usize,
        in_use: bool,
    ) -> Result<Self, Problem> {
        let (before, after) = (flat(shared)?, flat(trained)?);
        if before.len() != after.len() {
            return Err(Problem::new(
                Code::TrainingDiverged,
                "the trained patch has another shape",
            ));
        }
        let difference = before.iter().zip(&after).map(|(b, a)| a - b).collect();
        Ok(Self { in_use, examples, difference })
    }

    /// The trainable tensors of a shared version with the difference added; `None` where the version has other
    /// shapes, so that the difference means nothing for it.
    pub fn on(&self, shared: &Patch) -> Result<Option<BTreeMap<String, Tensor>>, Problem> {
        let base = flat(shared)?;
        if base.len() != self.difference.len() {
            return Ok(None);
        }
        let mut sum = base.iter().zip(&self.difference).map(|(b, d)| b + d);
        let mut tensors = BTreeMap::new();
        for (name, tensor) in shared.weights() {
            let values: Vec<f32> = sum.by_ref().take(tensor.len()).collect();
            tensors.insert(name, Tensor::new(tensor.shape().to_vec(), &values)?);
        }
        Ok(Some(tensors))
    }
}

impl Personal {
    /// Reads what was trained before. What is damaged is dropped: it can be trained again.
    pub async fn open<P: Port>(port: &P, scope: Scope) -> Result<Self, Problem> {
        let stored = port.load(&scope.key("personal")).await?;
        let index = read_index(stored.as_deref());
        let mut changes = BTreeMap::new();
        for (name, Stored { in_use, examples }) in index {
            let bytes =
                port.load(&scope.key(&format!("personal/{name}"))).await?.unwrap_or_default();
            let difference: Vec<f32> = bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            if !difference.is_empty() && difference.iter().all(|d| d.is_finite()) {
                changes.insert(name, Change { in_use, examples, difference });
            }
        }
        Ok(Self { scope, changes })
    }

    /// The difference of a patch.
    pub fn change(&self, name: &Name) -> Option<&Change> {
        self.changes.get(name)
    }

    /// Keeps differences, durably. Where the device cannot store them, they are used from memory all the same.
    pub async fn keep<P: Port>(
        &mut self,
        port: &P,
        changes: BTreeMap<Name, Change>,
    ) -> Result<(), Problem> {
        self.changes.extend(changes.clone());
        for (name, change) in &changes {
            let bytes: Vec<u8> = change.difference.iter().flat_map(|d| d.to_le_bytes()).collect();
            port.store(&self.scope.key(&format!("personal/{name}")), &bytes).await?;
        }
        let own = |index: &mut BTreeMap<Name, Stored>| {
            index.extend(changes.iter().map(|(name, change)| (name.clone(), Stored::of(change))));
        };
        self.change_index(port, own).await
    }

    /// Decides whether runs use a patch's difference.
    pub async fn set_in_use<P: Port>(
        &mut self,
        port: &P,
        name: &Name,
        in_use: bool,
    ) -> Result<(), Problem> {
        let change = match self.changes.get_mut(name) {
            Some(change) if change.in_use != in_use => change,
            _ => return Ok(()),
        };
        change.in_use = in_use;
        let stored = Stored::of(change);
        let insert = |index: &mut BTreeMap<Name, Stored>| {
            index.insert(name.clone(), stored);
        };
        self.change_index(port, insert).await
    }

    /// Forgets every difference.
    pub async fn clear<P: Port>(&mut self, port: &P) -> Result<(), Problem> {
        let gone = std::mem::take(&mut self.changes);
        self.change_index(port, BTreeMap::clear).await?;
        for name in gone.keys() {
            port.remove(&self.scope.key(&format!("personal/{name}"))).await?;
        }
        Ok(())
    }

    /// Changes the index as it is stored now: another page may have trained other patches.
    async fn change_index<P: Port>(
        &self,
        port: &P,
        change: impl Fn(&mut BTreeMap<Name, Stored>),
    ) -> Result<(), Problem> {
        let changed = |stored: Option<&[u8]>| {
            let mut index = read_index(stored);
            change(&mut index);
            let bytes = serde_json::to_vec(&index).map_err(|e| {
                Problem::new(Code::StorageFailed, format!("the index of personal weights: {e}"))
            })?;
            Ok((bytes, ()))
        };
        update(port, &self.scope.key("personal"), changed).await
    }
}

fn read_index(stored: Option<&[u8]>) -> BTreeMap<Name, Stored> {
    stored.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
}

fn flat(patch: &Patch) -> Result<Vec<f32>, Problem> {
    let mut values = Vec::new();
    for tensor in patch.weights().values() {
        values.extend(tensor.values::<f32>()?);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::memory::MemoryPort;
    use crate::test_library::Fashion;

    fn filled(patch: &Patch, value: f32) -> Patch {
        let tensors = patch.weights().into_iter().map(|(name, tensor)| {
            let values = vec![value; tensor.len()];
            (name, Tensor::new(tensor.shape().to_vec(), &values).unwrap())
        });
        patch.with_weights(tensors.collect()).unwrap()
    }

    #[test]
    fn a_difference_moves_to_the_next_shared_version_and_survives_a_restart() {
        let patch = &Fashion::load().patches[2];
        let name = Name::new("personal-style").unwrap();
        let change = Change::between(&filled(patch, 1.0), &filled(patch, 1.5), 8, true).unwrap();
        let moved = change.on(&filled(patch, 2.0)).unwrap().unwrap();
        assert!(moved.values().all(|t| t.values::<f32>().unwrap().iter().all(|v| *v == 2.5)));
        let port =
            MemoryPort::new(1, |_| Err(Problem::new(Code::NetworkFailed, "no network here")));
        let open = || block_on(Personal::open(&port, Scope::of("x"))).unwrap();
        block_on(open().keep(&port, BTreeMap::from([(name.clone(), change.clone())]))).unwrap();
        assert_eq!(open().change(&name), Some(&change));
        block_on(open().set_in_use(&port, &name, false)).unwrap();
        assert!(!open().change(&name).unwrap().in_use);
        block_on(open().clear(&port)).unwrap();
        assert_eq!(open().change(&name), None);
        assert_eq!(port.stored().len(), 1);
    }

    #[test]
    fn two_pages_keep_each_others_differences_and_a_full_device_uses_memory() {
        let patch = &Fashion::load().patches[2];
        let change = Change::between(&filled(patch, 1.0), &filled(patch, 1.5), 8, true).unwrap();
        let port =
            MemoryPort::new(1, |_| Err(Problem::new(Code::NetworkFailed, "no network here")));
        let open = || block_on(Personal::open(&port, Scope::of("x"))).unwrap();
        let (mut one, mut two) = (open(), open());
        let of = |name: &str| BTreeMap::from([(Name::new(name).unwrap(), change.clone())]);
        block_on(one.keep(&port, of("a"))).unwrap();
        block_on(two.keep(&port, of("b"))).unwrap();
        assert_eq!(open().changes.len(), 2);
        port.full.set(true);
        assert!(block_on(one.keep(&port, of("c"))).unwrap_err().is(Code::StorageFull));
        assert_eq!(one.change(&Name::new("c").unwrap()), Some(&change));
    }

    #[test]
    fn a_difference_of_another_shape_is_not_applied() {
        let patches = Fashion::load().patches;
        let change = Change::between(&patches[2], &patches[2], 1, true).unwrap();
        assert_eq!(change.on(&patches[0]).unwrap(), None);
    }
}
