//! The client: one library, opened on one device.
//!
//! Every method takes `&self`. State that a command changes over several awaits stands behind an async lock of its
//! own, so that commands of one kind queue while others go on; what a run needs is one immutable snapshot.

mod adapt;
mod admission;
mod background;
mod contribute;
mod decide;
mod describe;
mod estimate;
mod feedback;
mod learn;
mod open;
mod ranking;
mod refresh;
mod run;
mod stream;
mod train;
mod unlabelled;
mod warm;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use futures::lock::Mutex;

pub use adapt::{Adapted, Slot, Trained};
pub use learn::Answer;
pub use run::{Pending, RunOptions, WeightChoice};
pub use stream::Stream;
pub use train::TrainOptions;

use crate::catalog::{Address, Source};
use crate::cost::CostModel;
use crate::device::{Device, Scope};
use crate::examples::Examples;
use crate::experiment::Window;
use crate::feedback::Feedback;
use crate::library::Library;
use crate::overlap::Overlap;
use crate::personal::Personal;
use crate::port::Port;
use crate::residence::Occupancy;
use crate::selection::CostLimit;
use crate::training::Activation;
use crate::workshop::Workshop;

/// How to open a library.
#[derive(Clone, Default)]
pub struct Options {
    /// Hex of the operator's root key; without it the first root that is seen is pinned.
    pub public_key: Option<String>,
    /// The word of the site's login, where the server enrols nobody without.
    pub voucher: Option<String>,
    /// What one answer may cost.
    pub limit: CostLimit,
    /// Shared with other clients of this process.
    pub workshop: Arc<Workshop>,
}

/// Says whether the caller wants an operation to stop.
pub type Cancelled<'a> = dyn Fn() -> bool + 'a;

/// One library on one device.
pub struct Client<P: Port> {
    port: P,
    address: Address,
    scope: Scope,
    voucher: Option<String>,
    limit: CostLimit,
    workshop: Arc<Workshop>,
    /// Only ever borrowed to clone or to replace the `Arc`.
    live: RefCell<Arc<Adapted>>,
    /// Borrowed for one sum at a time.
    cost: RefCell<CostModel>,
    /// Borrowed to read one correction or to add one outcome.
    feedback: RefCell<Feedback>,
    overlap: Cell<Overlap>,
    /// By trainer and example; the frozen part of the model has run once for each.
    activations: RefCell<BTreeMap<(Digest, u64), Arc<Activation>>>,
    source: Mutex<Source>,
    /// A device whose record is damaged still runs, but takes part in nothing.
    device: Mutex<Result<Device, Problem>>,
    windows: Mutex<BTreeMap<Name, Window>>,
    examples: Mutex<Examples>,
    personal: Mutex<Personal>,
    /// Held while a training runs.
    training: Mutex<()>,
    /// A training in slices, between two of them; taken out for each.
    underway: RefCell<Option<background::Underway>>,
    closed: Cell<bool>,
}

impl<P: Port> Client<P> {
    /// The outside world of this client.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// What runs now.
    pub fn live(&self) -> Arc<Adapted> {
        self.live.borrow().clone()
    }

    /// What compiled programs and weights take, and how often some had to go.
    pub fn memory(&self) -> Occupancy {
        self.workshop.occupancy()
    }

    /// Refuses everything from now on, with `closed`. A run in flight ends first.
    pub fn close(&self) {
        self.closed.set(true);
        self.activations.borrow_mut().clear();
    }

    fn check_open(&self) -> Result<(), Problem> {
        match self.closed.get() {
            true => {
                Err(Problem::new(Code::Closed, "this model was closed").with_hint("open it again"))
            }
            false => Ok(()),
        }
    }

    fn library(&self) -> Arc<Library> {
        self.live.borrow().library.clone()
    }
}

fn check_cancelled(cancelled: &Cancelled<'_>) -> Result<(), Problem> {
    match cancelled() {
        true => Err(Problem::new(Code::Aborted, "the caller cancelled")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
