//! Many simulated devices that contribute to a server over real HTTP, each with its own data, secret and ledger.
//!
//! Everything that is compiled is shared, so a device costs its own data and little more. A device that has
//! contributed as often as its ledger allows retires; the fleet says so, and may let a fresh one take its place.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use backstitch_client::random::SplitMix;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use futures::executor::block_on;
use serde::Serialize;

use crate::node::{Node, NodeOptions};
use crate::person::Person;
use crate::population::Population;

/// How long a worker waits before it looks for the next round.
const POLL: Duration = Duration::from_millis(250);

/// How long a thread's new devices wait after the server has enrolled none of them: a server that lets in sixty an hour
/// lets one in each minute.
const ENROLMENT_PAUSE: Duration = Duration::from_secs(30);

/// Outcomes that a device gives to experiments on one visit.
const OUTCOMES_PER_VISIT: usize = 16;

/// A fleet.
#[derive(Clone)]
pub struct FleetOptions {
    /// Server, library, and what all devices share; the folder is ignored.
    pub node: NodeOptions,
    /// Devices at any time.
    pub clients: usize,
    /// Threads.
    pub parallelism: usize,
    /// Shortest time between two visits of one thread's devices.
    pub pace: Duration,
    /// Of each thread's time, the most that its devices work; for the rest of it the cores are for others.
    pub share: f64,
    /// Decides data and order; the devices' secrets are always fresh.
    pub seed: u64,
    /// Whether a fresh device takes the place of one that retires, or whose update helps nobody: a round must not wait
    /// for those who have nothing to give to it.
    pub renew: bool,
    /// Ends when the server's round has grown by this many.
    pub rounds: Option<u64>,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            node: NodeOptions::default(),
            clients: 64,
            parallelism: 2,
            pace: Duration::ZERO,
            share: 1.0,
            seed: 1,
            renew: true,
            rounds: None,
        }
    }
}

/// What happens in a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FleetEvent {
    /// A device with its data is ready.
    Joined {
        /// The device.
        node: usize,
        /// What it was taught.
        examples: usize,
    },
    /// A device's update was accepted.
    Contributed {
        /// The device.
        node: usize,
        /// The round.
        round: u64,
        /// Bytes sent.
        bytes: usize,
    },
    /// A device did not contribute, for its own reasons.
    Skipped {
        /// The device.
        node: usize,
        /// The round.
        round: u64,
        /// Why.
        code: String,
    },
    /// A device has contributed as often as its ledger allows.
    Retired {
        /// The device.
        node: usize,
    },
    /// The server enrols no new device now; this one tries again.
    Waiting {
        /// The device.
        node: usize,
        /// Why.
        code: String,
        /// In words.
        message: String,
        /// When it tries again.
        retry_s: u64,
    },
    /// The server refused or could not be reached; the device tries again at once.
    Failed {
        /// The device.
        node: usize,
        /// Why.
        code: String,
        /// In words.
        message: String,
    },
}

/// What a fleet did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FleetReport {
    /// Accepted updates.
    pub contributed: usize,
    /// Visits on which a device had reasons not to contribute.
    pub skipped: usize,
    /// Devices that may not contribute any more.
    pub retired: usize,
    /// Refusals of the server and failures on the way to it.
    pub failed: usize,
}

#[derive(Default)]
struct Counts {
    contributed: AtomicUsize,
    skipped: AtomicUsize,
    retired: AtomicUsize,
    failed: AtomicUsize,
}

/// Runs a fleet until `shutdown` is set, the rounds are done, or every device has retired. `progress` is called from
/// several threads. Fails where the server cannot be opened at all.
pub fn run(
    options: &FleetOptions,
    population: &Population,
    progress: &(dyn Fn(&FleetEvent) + Sync),
    shutdown: &AtomicBool,
) -> Result<FleetReport, Problem> {
    if options.clients == 0 {
        return Err(Problem::new(Code::InputInvalid, "a fleet needs devices"));
    }
    // Opened first and alone: whatever is wrong shows at once, and everything is compiled by one thread.
    let scout = Node::open(&options.node)?;
    let first_round = round_of(&scout);
    let fleet = Fleet {
        options,
        population,
        progress,
        shutdown,
        counts: Counts::default(),
        next: AtomicUsize::new(0),
        first_round,
        done: AtomicBool::new(false),
    };
    let threads = options.parallelism.clamp(1, options.clients);
    thread::scope(|scope| {
        for thread in 0..threads {
            let share = options.clients / threads + usize::from(thread < options.clients % threads);
            let fleet = &fleet;
            scope.spawn(move || fleet.work(thread as u64, share));
        }
    });
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let counts = &fleet.counts;
    Ok(FleetReport {
        contributed: count(&counts.contributed),
        skipped: count(&counts.skipped),
        retired: count(&counts.retired),
        failed: count(&counts.failed),
    })
}

struct Fleet<'a> {
    options: &'a FleetOptions,
    population: &'a Population,
    progress: &'a (dyn Fn(&FleetEvent) + Sync),
    shutdown: &'a AtomicBool,
    counts: Counts,
    next: AtomicUsize,
    first_round: u64,
    done: AtomicBool,
}

/// A device of this thread. It is opened and taught on its first visit.
struct Member {
    number: usize,
    device: Option<(Node, Person)>,
    visited_round: Option<u64>,
    retired: bool,
    /// Whether the server has taken something from it.
    enrolled: bool,
}

/// What a visit came to.
#[derive(Clone, Copy)]
enum Visit {
    Contributed(u64),
    Skipped(u64),
    /// Its update helps nobody, so another device shall take its place.
    Fruitless,
    Retired,
    /// The server is behind, ahead or away: look again.
    Again,
    /// Whoever is not enrolled yet waits.
    Wait,
}

impl Fleet<'_> {
    fn work(&self, thread: u64, share: usize) {
        let Ok(scout) = Node::open(&self.options.node) else { return };
        let mut draws = SplitMix::new(self.options.seed ^ (thread << 32));
        let mut members: Vec<Member> = (0..share).map(|_| self.member()).collect();
        // Before this, the server has no room for new devices.
        let mut enrolment = Instant::now();
        while !self.over() && members.iter().any(|m| !m.retired) {
            let _stale_until_next_time = block_on(scout.client().refresh());
            let round = round_of(&scout);
            if self.options.rounds.is_some_and(|rounds| round >= self.first_round + rounds) {
                self.done.store(true, Ordering::Relaxed);
                return;
            }
            draws.shuffle(&mut members);
            let mut visited = false;
            for member in
                members.iter_mut().filter(|m| !m.retired && m.visited_round != Some(round))
            {
                if self.over() {
                    return;
                }
                if !member.enrolled && Instant::now() < enrolment {
                    continue;
                }
                let began = Instant::now();
                match self.visit(member) {
                    visit @ (Visit::Contributed(at) | Visit::Skipped(at)) => {
                        (member.visited_round, visited) = (Some(at), true);
                        member.enrolled |= matches!(visit, Visit::Contributed(_));
                        self.rest(began.elapsed());
                        if at != round {
                            break;
                        }
                    }
                    Visit::Retired if self.options.renew => *member = self.member(),
                    Visit::Fruitless => {
                        (*member, visited) = (self.member(), true);
                        self.rest(began.elapsed());
                    }
                    Visit::Retired => member.retired = true,
                    Visit::Again => break,
                    Visit::Wait => enrolment = Instant::now() + ENROLMENT_PAUSE,
                }
            }
            if !visited {
                self.wait(POLL);
            }
        }
    }

    fn member(&self) -> Member {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Member { number, device: None, visited_round: None, retired: false, enrolled: false }
    }

    fn visit(&self, member: &mut Member) -> Visit {
        let node = member.number;
        match self.try_visit(member) {
            Ok(visit) => visit,
            Err(problem) => {
                let event = FleetEvent::Failed {
                    node,
                    code: problem.code().to_owned(),
                    message: in_words(
                        problem.detail().to_owned(),
                        problem.hint().map(str::to_owned),
                    ),
                };
                self.tell(&self.counts.failed, &event);
                Visit::Again
            }
        }
    }

    fn try_visit(&self, member: &mut Member) -> Result<Visit, Problem> {
        let number = member.number;
        if member.device.is_none() {
            member.device = Some(self.join(number)?);
        }
        let Some((node, person)) = &mut member.device else { return Ok(Visit::Again) };
        let wanted = node.wanted_outcomes()?.min(OUTCOMES_PER_VISIT);
        node.use_on(&person.everyday(wanted)?)?;
        let result = node.contribute()?;
        let round = result.round;
        let Some(reason) = result.reason else {
            let event = FleetEvent::Contributed { node: number, round, bytes: result.bytes };
            self.tell(&self.counts.contributed, &event);
            return Ok(Visit::Contributed(round));
        };
        if reason.code == Code::RoundClosed.as_str() {
            return Ok(Visit::Again);
        }
        if reason.code == Code::EnrolmentRefused.as_str() {
            let event = FleetEvent::Waiting {
                node: number,
                code: reason.code,
                message: in_words(reason.message, reason.hint),
                retry_s: ENROLMENT_PAUSE.as_secs(),
            };
            self.tell(&self.counts.failed, &event);
            return Ok(Visit::Wait);
        }
        let task = block_on(node.client().privacy())?
            .tasks
            .into_iter()
            .find(|task| task.name == result.task);
        let spent =
            task.is_some_and(|task| task.participations >= task.max_participations as usize);
        if spent || reason.code == Code::BudgetExhausted.as_str() {
            self.tell(&self.counts.retired, &FleetEvent::Retired { node: number });
            return Ok(Visit::Retired);
        }
        let fruitless = self.options.renew && reason.code == Code::NotImproved.as_str();
        let event = FleetEvent::Skipped { node: number, round, code: reason.code };
        self.tell(&self.counts.skipped, &event);
        Ok(if fruitless { Visit::Fruitless } else { Visit::Skipped(round) })
    }

    fn join(&self, number: usize) -> Result<(Node, Person), Problem> {
        let options = NodeOptions { folder: None, ..self.options.node.clone() };
        let node = Node::open(&options)?;
        let person = self.population.client(number, self.options.seed)?;
        node.teach(person.examples())?;
        node.consent()?;
        (self.progress)(&FleetEvent::Joined { node: number, examples: person.examples().len() });
        Ok((node, person))
    }

    fn tell(&self, counter: &AtomicUsize, event: &FleetEvent) {
        counter.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(?event, "fleet");
        (self.progress)(event);
    }

    fn over(&self) -> bool {
        self.shutdown.load(Ordering::Relaxed) || self.done.load(Ordering::Relaxed)
    }

    /// After a visit that took so long.
    fn rest(&self, worked: Duration) {
        let whole = worked.div_f64(self.options.share.clamp(0.01, 1.0));
        self.wait(whole.max(self.options.pace).saturating_sub(worked));
    }

    /// Sleeps in short naps, so that a shutdown is quick.
    fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.over() {
            thread::sleep(
                until.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)),
            );
        }
    }
}

fn in_words(message: String, hint: Option<String>) -> String {
    hint.map_or_else(|| message.clone(), |hint| format!("{message} ({hint})"))
}

fn round_of(node: &Node) -> u64 {
    node.client().live().library.catalog.tasks.first().map_or(0, |task| task.round)
}
