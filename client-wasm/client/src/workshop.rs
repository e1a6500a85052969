//! What is compiled once and then shared: sessions, patches, trainers. Several clients of one process share a
//! workshop, so that a fleet of simulated devices compiles everything a single time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use backstitch_onnx::patch::Patch;
use backstitch_onnx::{Digest, Model};
use backstitch_protocol::Problem;

use crate::residence::{Occupancy, Residence};
use crate::session::{Compiled, Session, Weights};
use crate::training::Trainer;

/// Things that are kept although nobody uses them just now.
const SPARE: usize = 32;

/// A version of a patch, and its weights in the engine.
pub type Ready = (Arc<Patch>, Arc<Weights>);

/// Compiled things by what they were made of.
#[derive(Default)]
pub struct Workshop {
    sessions: Shelf<Session>,
    compiled: Shelf<Compiled>,
    trainers: Shelf<Trainer>,
    versions: Shelf<Ready>,
    residence: Arc<Residence>,
}

impl Workshop {
    /// A workshop whose things take so many bytes at most, but for what runs just now.
    pub fn within(limit_bytes: u64) -> Self {
        Self { residence: Arc::new(Residence::within(limit_bytes)), ..Self::default() }
    }

    /// What its things take now.
    pub fn occupancy(&self) -> Occupancy {
        self.residence.occupancy()
    }

    /// The session of a primary, given as its file, cut at these sites. `shape` is that of one prepared input, where
    /// the library says how inputs are prepared.
    pub fn session(
        &self,
        file: &[u8],
        (input, shape): (&str, Option<&[usize]>),
        output: &str,
        sites: &BTreeSet<String>,
    ) -> Result<Arc<Session>, Problem> {
        let digest = Digest::of(file);
        let names: Vec<&str> =
            [input, output].into_iter().chain(sites.iter().map(String::as_str)).collect();
        let names = format!("{}\0{shape:?}", names.join("\0"));
        let key = Digest::of(&[digest.as_bytes().as_slice(), names.as_bytes()].concat());
        self.sessions.take(key, || {
            let mut model = Model::from_bytes(file)?;
            if let Some(shape) = shape {
                model = model.taking(input, shape)?;
            }
            Session::compile_in(&self.residence, model, digest, input, output, sites)
        })
    }

    /// A patch's programs, for this session.
    pub fn compiled(&self, session: &Session, patch: &Patch) -> Result<Arc<Compiled>, Problem> {
        let key = Compiled::key(session, patch);
        self.compiled.take(key, || Compiled::new(session, patch))
    }

    /// A version of a patch with its weights in the engine. `key` names the files it was made of.
    pub fn version(
        &self,
        key: Digest,
        make: impl FnOnce() -> Result<Ready, Problem>,
    ) -> Result<Arc<Ready>, Problem> {
        self.versions.take(key, make)
    }

    /// The trainer of these patches together. It holds no weights: every version of them shares one.
    pub fn trainer(
        &self,
        session: &Session,
        patches: &[&Patch],
    ) -> Result<(Digest, Arc<Trainer>), Problem> {
        let mut bytes = Vec::new();
        for patch in patches {
            bytes.extend_from_slice(Compiled::key(session, patch).as_bytes());
            bytes.extend(serde_json::to_vec(&patch.manifest().training).unwrap_or_default());
        }
        let key = Digest::of(&bytes);
        Ok((key, self.trainers.take(key, || Trainer::compile(session, patches))?))
    }
}

struct Shelf<T>(Mutex<BTreeMap<Digest, Arc<T>>>);

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Shelf<T> {
    /// The thing of this key, made while the shelf is locked, so that two threads never make it twice.
    fn take(
        &self,
        key: Digest,
        make: impl FnOnce() -> Result<T, Problem>,
    ) -> Result<Arc<T>, Problem> {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = shelf.get(&key) {
            return Ok(found.clone());
        }
        let made = Arc::new(make()?);
        if shelf.len() >= SPARE {
            shelf.retain(|_, thing| Arc::strong_count(thing) > 1);
        }
        shelf.insert(key, made.clone());
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_library::Fashion;

    #[test]
    fn things_are_made_once_and_dropped_when_nobody_uses_them() {
        let shelf: Shelf<usize> = Shelf::default();
        let key = |i: usize| Digest::of(&i.to_le_bytes());
        let kept = shelf.take(key(0), || Ok(7)).unwrap();
        assert!(Arc::ptr_eq(&kept, &shelf.take(key(0), || unreachable!()).unwrap()));
        (1..100).for_each(|i| drop(shelf.take(key(i), || Ok(i)).unwrap()));
        let left = shelf.0.lock().unwrap();
        assert!(left.len() <= SPARE && left.contains_key(&key(0)));
    }

    #[test]
    fn versions_of_a_patch_share_programs_and_trainer() {
        let library = Fashion::load();
        let workshop = Workshop::default();
        let sites = ["image", "features", "logits"].map(str::to_owned).into();
        let image = ("image", Some([1, 1, 28, 28].as_slice()));
        let session = workshop.session(&library.bytes, image, "logits", &sites).unwrap();
        assert!(Arc::ptr_eq(
            &session,
            &workshop.session(&library.bytes, image, "logits", &sites).unwrap()
        ));
        let first = &library.patches[2];
        let weights = first.weights().into_iter().map(|(name, tensor)| {
            let ones = vec![1.0f32; tensor.len()];
            (name, backstitch_onnx::Tensor::new(tensor.shape().to_vec(), &ones).unwrap())
        });
        let second = first.with_weights(weights.collect()).unwrap();
        let compiled = |patch: &Patch| workshop.compiled(&session, patch).unwrap();
        assert!(Arc::ptr_eq(&compiled(first), &compiled(&second)));
        let trainer = |patch: &Patch| workshop.trainer(&session, &[patch]).unwrap().1;
        assert!(Arc::ptr_eq(&trainer(first), &trainer(&second)));
    }
}
