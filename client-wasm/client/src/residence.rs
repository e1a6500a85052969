//! What is compiled and prepared, under one limit of bytes. What was not used for longest is dropped when something else
//! needs its place, and is made again, the same, when it is needed.
//!
//! A run that holds a thing keeps it until it is done with it, whatever is dropped meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use backstitch_onnx::{Dims, Model, Program, Value};
use backstitch_protocol::Problem;
use serde::Serialize;

/// What a client's compiled models take, and how often they had to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    /// The limit; `None` where there is none.
    pub limit_bytes: Option<u64>,
    /// Constants of compiled programs, and weights in the engine.
    pub held_bytes: u64,
    /// How many programs and sets of weights that is.
    pub held: usize,
    /// How many have been dropped so far to keep the limit.
    pub dropped: u64,
}

/// Something whose size in memory is known.
pub trait Measured {
    /// Bytes that it takes.
    fn bytes(&self) -> u64;
}

impl Measured for Program {
    fn bytes(&self) -> u64 {
        self.constant_bytes()
    }
}

impl Measured for BTreeMap<String, Value> {
    fn bytes(&self) -> u64 {
        self.values().map(Value::bytes).sum()
    }
}

/// The limit, and everything that is kept under it.
#[derive(Default)]
pub struct Residence {
    limit_bytes: Option<u64>,
    /// Counts uses, so that places can be told apart by their last one.
    uses: AtomicU64,
    dropped: AtomicU64,
    places: Mutex<Vec<Weak<dyn Droppable>>>,
}

impl Residence {
    /// A residence for so many bytes.
    pub fn within(limit_bytes: u64) -> Self {
        Self { limit_bytes: Some(limit_bytes), ..Self::default() }
    }

    /// What is kept now.
    pub fn occupancy(&self) -> Occupancy {
        let taken: Vec<u64> = lock(&self.places)
            .iter()
            .filter_map(|place| place.upgrade().map(|place| place.bytes()))
            .filter(|bytes| *bytes > 0)
            .collect();
        Occupancy {
            limit_bytes: self.limit_bytes,
            held_bytes: taken.iter().sum(),
            held: taken.len(),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    /// A model, compiled now and whenever it is run after it was dropped.
    pub fn program(
        self: &Arc<Self>,
        model: Model,
        dims: Dims,
    ) -> Result<Resident<Program>, Problem> {
        let program = self.program_when_needed(model, dims);
        program.take()?;
        Ok(program)
    }

    /// A model, compiled when it is first run.
    pub fn program_when_needed(self: &Arc<Self>, model: Model, dims: Dims) -> Resident<Program> {
        self.resident(move || Ok(Program::compile(&model, &dims)?))
    }

    /// A thing that is made when it is first needed.
    pub fn resident<T: Measured + Send + Sync + 'static>(
        self: &Arc<Self>,
        make: impl Fn() -> Result<T, Problem> + Send + Sync + 'static,
    ) -> Resident<T> {
        let place = Arc::new(Place::default());
        let known: Weak<dyn Droppable> = Arc::<Place<T>>::downgrade(&place);
        let mut places = lock(&self.places);
        places.retain(|place| place.strong_count() > 0);
        places.push(known);
        drop(places);
        Resident { residence: self.clone(), place, make: Box::new(make) }
    }

    fn tick(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Drops what was not used for longest, but never what was used last, until the rest fits.
    fn make_room(&self) {
        let Some(limit) = self.limit_bytes else { return };
        let mut places: Vec<Arc<dyn Droppable>> =
            lock(&self.places).iter().filter_map(Weak::upgrade).collect();
        places.retain(|place| place.bytes() > 0);
        places.sort_by_key(|place| place.used());
        let mut held: u64 = places.iter().map(|place| place.bytes()).sum();
        places.pop();
        for place in places {
            if held <= limit {
                return;
            }
            held = held.saturating_sub(place.bytes());
            place.leave();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A thing in a [`Residence`], and how it is made.
pub struct Resident<T> {
    residence: Arc<Residence>,
    place: Arc<Place<T>>,
    make: Box<dyn Fn() -> Result<T, Problem> + Send + Sync>,
}

impl<T: Measured + Send + Sync + 'static> Resident<T> {
    /// Whether it is kept now.
    pub fn is_made(&self) -> bool {
        self.place.bytes.load(Ordering::Relaxed) > 0
    }

    /// The thing itself, made anew where it was dropped.
    pub fn take(&self) -> Result<Arc<T>, Problem> {
        self.place.used.store(self.residence.tick(), Ordering::Relaxed);
        let mut thing = lock(&self.place.thing);
        if let Some(thing) = &*thing {
            return Ok(thing.clone());
        }
        let made = Arc::new((self.make)()?);
        self.place.bytes.store(made.bytes().max(1), Ordering::Relaxed);
        *thing = Some(made.clone());
        drop(thing);
        self.residence.make_room();
        Ok(made)
    }
}

impl<T> fmt::Debug for Resident<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resident({} bytes)", self.place.bytes.load(Ordering::Relaxed))
    }
}

/// Where a thing is, while it is kept.
struct Place<T> {
    thing: Mutex<Option<Arc<T>>>,
    used: AtomicU64,
    /// 0 while there is nothing.
    bytes: AtomicU64,
}

impl<T> Default for Place<T> {
    fn default() -> Self {
        Self { thing: Mutex::default(), used: AtomicU64::default(), bytes: AtomicU64::default() }
    }
}

trait Droppable: Send + Sync {
    fn used(&self) -> u64;
    fn bytes(&self) -> u64;
    fn leave(&self);
}

impl<T: Send + Sync> Droppable for Place<T> {
    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn leave(&self) {
        let mut thing = lock(&self.thing);
        *thing = None;
        self.bytes.store(0, Ordering::Relaxed);
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use backstitch_protocol::problem::Code;

    use super::*;

    struct Block(u64);

    impl Measured for Block {
        fn bytes(&self) -> u64 {
            self.0
        }
    }

    /// A thing of so many bytes, and how often it was made.
    fn block(residence: &Arc<Residence>, bytes: u64) -> (Resident<Block>, Arc<AtomicUsize>) {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = made.clone();
        let resident = residence.resident(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Block(bytes))
        });
        (resident, made)
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_comes_back() {
        let residence = Arc::new(Residence::within(100));
        let [(a, made_a), (b, made_b), (c, made_c)] = [40, 40, 40].map(|n| block(&residence, n));
        for resident in [&a, &b, &a, &c] {
            resident.take().unwrap();
        }
        let made = || [&made_a, &made_b, &made_c].map(|made| made.load(Ordering::Relaxed));
        assert_eq!((made(), residence.occupancy().dropped), ([1, 1, 1], 1));
        // `b` has gone, `a` has stayed.
        assert_eq!([&a, &b, &c].map(|resident| resident.is_made()), [true, false, true]);
        a.take().unwrap();
        assert_eq!(made(), [1, 1, 1]);
        b.take().unwrap();
        assert_eq!(made(), [1, 2, 1]);
        let Occupancy { limit_bytes, held_bytes, held, dropped } = residence.occupancy();
        assert_eq!((limit_bytes, held_bytes, held, dropped), (Some(100), 80, 2, 2));
    }

    #[test]
    fn what_is_in_use_outlives_its_place_and_what_nobody_owns_takes_none() {
        let residence = Arc::new(Residence::within(10));
        let (large, made) = block(&residence, 1000);
        let held = large.take().unwrap();
        let (other, _) = block(&residence, 1000);
        other.take().unwrap();
        assert_eq!((held.0, residence.occupancy().held_bytes), (1000, 1000));
        assert_eq!(large.take().unwrap().0, 1000);
        assert_eq!(made.load(Ordering::Relaxed), 2);
        drop((large, other));
        assert_eq!(residence.occupancy().held, 0);
    }

    #[test]
    fn without_a_limit_everything_stays_and_a_failure_is_told_each_time() {
        let residence = Arc::new(Residence::default());
        let blocks: Vec<_> = (0..50).map(|_| block(&residence, u64::MAX / 100)).collect();
        blocks.iter().for_each(|(block, _)| drop(block.take().unwrap()));
        assert_eq!((residence.occupancy().held, residence.occupancy().dropped), (50, 0));
        let fails = || Err(Problem::new(Code::Internal, "no such thing"));
        let broken: Resident<Block> = residence.resident(fails);
        assert!(broken.take().is_err() && broken.take().is_err());
        assert_eq!(residence.occupancy().held, 50);
    }
}
