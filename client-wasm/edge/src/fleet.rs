//! Many simulated devices on real data that contribute to a running server, as browsers would.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use backstitch_client::workshop::Workshop;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

use crate::data::{Example, Pictures};
use crate::node::Node;
use crate::port::Network;

/// How a fleet works.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// `http://host:port/v1/libraries/name`.
    pub library_url: String,
    /// Devices in all.
    pub nodes: usize,
    /// Threads that they share.
    pub threads: usize,
    /// Time between two contributions of one thread, so that an onlooker can follow.
    pub pace: Duration,
    /// Decides who owns which pictures.
    pub seed: u64,
}

/// What happens in a fleet.
#[derive(Clone, Debug)]
pub enum FleetEvent {
    /// A device contributed to this round.
    Contributed {
        /// The round.
        round: u64,
    },
    /// A device kept its update to itself, for this reason.
    Kept {
        /// The stable code.
        code: String,
    },
    /// The server could not be reached or refused.
    Failed(Problem),
    /// No device of a thread may take part any more in this period.
    Retired {
        /// How many of them.
        nodes: usize,
    },
}

/// A running fleet. Dropping it asks it to stop.
pub struct Fleet {
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Longest nap between two looks at the stop sign.
const NAP: Duration = Duration::from_millis(50);

impl Fleet {
    /// Starts the devices; `told` hears of every event, from several threads.
    pub fn start(
        options: &FleetOptions,
        pictures: &Pictures,
        told: impl Fn(FleetEvent) + Send + Sync + 'static,
    ) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let people = Mutex::new(pictures.people(options.nodes, options.seed));
        let shared = Arc::new(Shared {
            options: options.clone(),
            network: Network::default(),
            workshop: Arc::default(),
            people,
            stopping: stopping.clone(),
            told: Box::new(told),
        });
        let threads = (0..options.threads.max(1))
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || shared.work())
            })
            .collect();
        Self { stopping, threads }
    }

    /// Stops and waits until every thread has ended.
    pub fn stop(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to wait for.
            let _ = thread.join();
        }
    }

    /// Whether all devices have retired or stopped.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

struct Shared {
    options: FleetOptions,
    network: Network,
    workshop: Arc<Workshop>,
    /// Whoever has not joined yet.
    people: Mutex<Vec<Vec<Example>>>,
    stopping: Arc<AtomicBool>,
    told: Box<dyn Fn(FleetEvent) + Send + Sync>,
}

/// What became of a device's try.
enum Outcome {
    /// It may try again in a later round.
    Again,
    /// It may take part no more in this period.
    Done,
}

impl Shared {
    /// One thread: a new device joins until all have, then the old ones take turns until none may any more.
    fn work(&self) {
        let mut nodes = std::collections::VecDeque::new();
        let mut retired = 0;
        while !self.stopped() {
            let person = self.people.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let node = match person.map(|examples| self.join(&examples)) {
                Some(Ok(node)) => node,
                Some(Err(problem)) => {
                    (self.told)(FleetEvent::Failed(problem));
                    self.rest();
                    continue;
                }
                None => match nodes.pop_front() {
                    Some(node) => node,
                    None => break,
                },
            };
            match self.take_part(&node) {
                Outcome::Again => nodes.push_back(node),
                Outcome::Done => retired += 1,
            }
            self.rest();
        }
        if !self.stopped() {
            (self.told)(FleetEvent::Retired { nodes: retired });
        }
    }

    fn join(&self, examples: &[Example]) -> Result<Node, Problem> {
        let node = Node::open(&self.options.library_url, &self.network, &self.workshop)?;
        node.teach(examples)?;
        Ok(node)
    }

    fn take_part(&self, node: &Node) -> Outcome {
        match node.contribute() {
            Ok(result) if result.contributed => {
                (self.told)(FleetEvent::Contributed { round: result.round });
                Outcome::Again
            }
            Ok(result) => {
                let code = result.reason.map(|reason| reason.code).unwrap_or_default();
                let done = code == Code::ParticipationLimit.as_str() && limit_is_final(node);
                (self.told)(FleetEvent::Kept { code });
                if done { Outcome::Done } else { Outcome::Again }
            }
            // The round closed under it, or the server is away: a later try may do.
            Err(problem) => {
                (self.told)(FleetEvent::Failed(problem));
                Outcome::Again
            }
        }
    }

    fn rest(&self) {
        let mut left = self.options.pace;
        while !left.is_zero() && !self.stopped() {
            let nap = left.min(NAP);
            std::thread::sleep(nap);
            left -= nap;
        }
    }

    fn stopped(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// Whether a device has used up its period, rather than waiting for the next round only.
fn limit_is_final(node: &Node) -> bool {
    let privacy = futures::executor::block_on(node.client().privacy());
    privacy.is_ok_and(|p| {
        p.tasks.iter().all(|task| task.participations >= task.max_participations as usize)
    })
}
