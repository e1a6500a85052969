//! Federated rounds: one task of the runtime per federated task owns its state machine and commits in groups.

mod gate;
mod machine;
mod optimiser;
#[cfg(test)]
mod sequences;
pub mod state;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::contribution::Contribution;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use backstitch_protocol::token::Token;
use sqlx::Row as _;
use tokio::sync::{mpsc, oneshot};

pub use gate::Evaluation;
pub(crate) use gate::Examples;
pub use machine::Accepted;
use machine::{Machine, Posted};

use crate::failure::{Failure, Result, not_found};
use crate::registry::alias::Evidence;
use crate::services::Services;
use crate::store::Store;
use crate::task::TaskId;

/// Contributions that wait for a commit; more are refused at the door.
const QUEUE: usize = 1024;

/// Contributions of one transaction.
const GROUP: usize = 128;

/// How long a refused or failed release waits for its next attempt.
const RETRY: Duration = Duration::from_secs(10);

enum Command {
    Contribute(Posted, oneshot::Sender<Result<Accepted>>),
    Promote(Promotion, oneshot::Sender<Result<()>>),
}

/// An operator's wish.
struct Promotion {
    patch: Name,
    version: u32,
    expected: Option<u32>,
    actor: String,
    reason: String,
}

/// Refusals of an open round by code; its row keeps them with every counted contribution, and at the end.
type Rejected = Arc<Mutex<BTreeMap<String, u64>>>;

/// All tasks that run.
pub struct Rounds {
    tasks: BTreeMap<TaskId, Arc<Handle>>,
    services: Services,
}

/// The way to one task's runner.
struct Handle {
    commands: mpsc::Sender<Command>,
    frame_values: AtomicU32,
    rejected: Rejected,
    patches: Vec<Name>,
}

impl Rounds {
    /// Opens every task of the store, finishing what a crash interrupted, and starts its runner.
    pub async fn start(
        services: &Services,
        runners: &mut tokio::task::JoinSet<()>,
    ) -> Result<Self> {
        let mut tasks = BTreeMap::new();
        for id in all_tasks(&services.store).await? {
            let machine = Machine::open(services.clone(), id.clone()).await?;
            let (commands, inbox) = mpsc::channel(QUEUE);
            let rejected: Rejected = Arc::new(Mutex::new(machine.round().rejected.clone()));
            let handle = Arc::new(Handle {
                commands,
                frame_values: AtomicU32::new(machine.round().frame_values()),
                rejected: Arc::clone(&rejected),
                patches: machine.round().terms.patches.clone(),
            });
            runners.spawn(run(
                machine,
                inbox,
                (Arc::downgrade(&handle), rejected),
                services.clone(),
                id.clone(),
            ));
            tasks.insert(id, handle);
        }
        Ok(Self { tasks, services: services.clone() })
    }

    /// The values of a frame of a task's open round: they fix its length.
    pub fn frame_values(&self, task: &TaskId) -> Result<u32> {
        Ok(self.handle(task)?.frame_values.load(Ordering::Acquire))
    }

    /// Counts a contribution; when this returns, the contribution is on the disk.
    pub async fn contribute(
        &self,
        task: &TaskId,
        frame: &[u8],
        token: Option<&Token>,
    ) -> Result<Accepted> {
        let handle = self.handle(task)?;
        let contribution =
            Contribution::decode(frame, handle.frame_values.load(Ordering::Acquire))?;
        let round = self.admit(task, &contribution, token).await?;
        let posted = Posted { contribution, digest: Digest::of(frame), round };
        let (reply, answer) = oneshot::channel();
        handle.commands.try_send(Command::Contribute(posted, reply)).map_err(|_| {
            Problem::new(Code::Unavailable, "too many contributions wait to be stored")
                .with_hint("send the same bytes again in a few seconds; they count once")
        })?;
        answer.await.map_err(|_| stopped())?
    }

    /// Refuses a contribution without a token of the round that the catalog offers, where its task asks for one, and
    /// gives that round.
    async fn admit(
        &self,
        task: &TaskId,
        contribution: &Contribution,
        token: Option<&Token>,
    ) -> Result<Option<u64>> {
        let issued = self.services.catalogs.newest(&task.library)?;
        let offered = issued.catalog.tasks.iter().find(|offered| offered.name == task.name);
        let offered = offered.ok_or_else(|| not_found(format!("task {task}")))?;
        let nullifier = contribution.nullifier();
        let admission = &self.services.admission;
        if offered.token_key.is_none() {
            return Ok(None);
        }
        if token.is_some_and(|t| admission.accepts(task, offered.round, &nullifier, t)) {
            return Ok(Some(offered.round));
        }
        // A retry after its round's end still learns that it was counted.
        let mut reading = self.services.store.read().await?;
        if state::counted(&mut reading, task, nullifier.as_bytes()).await?.is_some() {
            return Ok(Some(offered.round));
        }
        let hint = "read the catalog again, and draw a token for its round";
        Err(match contribution.base() == offered.base {
            true => Problem::new(
                Code::TokenInvalid,
                format!("round {} takes contributions with a token of its own", offered.round),
            ),
            false => Problem::new(
                Code::VersionStale,
                format!("round {} starts from {}", offered.round, offered.base),
            ),
        }
        .with_hint(hint))
    }

    /// Remembers a refusal for the console.
    pub fn count_rejected(&self, task: &TaskId, code: &str) {
        metrics::counter!("backstitch_contributions_rejected_total", "code" => code.to_owned())
            .increment(1);
        if let Some(mut rejected) = self.tasks.get(task).and_then(|h| h.rejected.lock().ok()) {
            *rejected.entry(code.to_owned()).or_default() += 1;
        }
    }

    /// Refusals of a task's open round.
    pub fn rejected(&self, task: &TaskId) -> BTreeMap<String, u64> {
        self.tasks
            .get(task)
            .and_then(|h| h.rejected.lock().ok().map(|r| r.clone()))
            .unwrap_or_default()
    }

    /// Makes a version the champion, through the runner of the task that trains the patch, if one does.
    pub async fn promote(
        &self,
        library: &Name,
        patch: &Name,
        version: u32,
        expected: Option<u32>,
        evidence: (&str, &str),
    ) -> Result<()> {
        let (actor, reason) = evidence;
        let trains = |(id, handle): &(&TaskId, &Arc<Handle>)| {
            id.library == *library && handle.patches.contains(patch)
        };
        if let Some((_, handle)) = self.tasks.iter().find(trains) {
            let promotion = Promotion {
                patch: patch.clone(),
                version,
                expected,
                actor: actor.into(),
                reason: reason.into(),
            };
            let (reply, answer) = oneshot::channel();
            handle
                .commands
                .send(Command::Promote(promotion, reply))
                .await
                .map_err(|_| stopped())?;
            answer.await.map_err(|_| stopped())??;
        } else {
            let mut writing = self.services.store.write().await?;
            let evidence = Evidence { actor, reason, now: self.services.clock.now() };
            crate::registry::alias::promote(
                &mut writing,
                library,
                patch,
                version,
                expected,
                &evidence,
            )
            .await?;
            crate::store::commit(writing).await?;
        }
        self.services.catalogs.issue(library).await?;
        self.services.changed();
        Ok(())
    }

    fn handle(&self, task: &TaskId) -> Result<&Arc<Handle>> {
        self.tasks.get(task).ok_or_else(|| not_found(format!("task {task}")))
    }
}

fn stopped() -> Problem {
    Problem::new(Code::Unavailable, "the server is shutting down")
        .with_hint("send the same bytes again later; they count once")
}

/// The newest round of every task.
pub async fn newest(store: &Store) -> Result<Vec<(TaskId, state::Round)>> {
    let mut found = Vec::new();
    for task in all_tasks(store).await? {
        if let Some(round) = state::newest(&mut *store.read().await?, &task).await? {
            found.push((task, round));
        }
    }
    Ok(found)
}

async fn all_tasks(store: &Store) -> Result<Vec<TaskId>> {
    let mut reading = store.read().await?;
    let rows = sqlx::query("SELECT library, task FROM tasks ORDER BY library, task")
        .fetch_all(&mut *reading)
        .await
        .while_doing("reading tasks")?;
    rows.iter()
        .map(|row| {
            Ok(TaskId::new(
                Name::new(row.get::<String, _>("library"))?,
                Name::new(row.get::<String, _>("task"))?,
            ))
        })
        .collect()
}

/// Steps, then commands, until the last handle is gone.
async fn run(
    mut machine: Machine,
    mut inbox: mpsc::Receiver<Command>,
    (handle, rejected): (std::sync::Weak<Handle>, Rejected),
    services: Services,
    id: TaskId,
) {
    let mut told: Option<Problem> = None;
    loop {
        let settled = settle(&mut machine, &handle, &rejected, &services, &id).await.err();
        let waits = settled.is_some();
        // Attempts repeat; the same refusal is said once.
        if let Some(problem) = settled.as_ref().filter(|problem| told.as_ref() != Some(problem)) {
            tracing::warn!(task = %id, %problem, "the round cannot be released now");
        }
        told = settled;
        // A round that waits for the ledger tries again; an open one sleeps until something comes.
        let retry = async {
            match waits {
                true => tokio::time::sleep(RETRY).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = retry => {}
            command = inbox.recv() => match command {
                Some(command) => {
                    remember(&mut machine, &rejected);
                    serve(&mut machine, command, &mut inbox, &services).await;
                }
                None => {
                    remember(&mut machine, &rejected);
                    if let Err(problem) = machine.keep_rejected().await {
                        tracing::warn!(task = %id, %problem, "the counts of refusals are lost");
                    }
                    return;
                }
            },
        }
    }
}

fn remember(machine: &mut Machine, rejected: &Rejected) {
    if let Ok(rejected) = rejected.lock() {
        machine.remember_rejected(rejected.clone());
    }
}

/// Takes steps until the round waits for contributions, and announces what came of them.
async fn settle(
    machine: &mut Machine,
    handle: &std::sync::Weak<Handle>,
    rejected: &Rejected,
    services: &Services,
    id: &TaskId,
) -> Result<()> {
    let before = machine.round().number;
    let mut result = Ok(true);
    let mut moved = false;
    if machine.round().phase > state::Phase::Open {
        remember(machine, rejected);
    }
    while let Ok(true) = result {
        if machine.round().phase == state::Phase::Noised {
            tokio::time::sleep(until_tick()).await;
        }
        result = machine.advance().await;
        moved |= matches!(result, Ok(true));
    }
    if let Some(handle) = handle.upgrade() {
        handle.frame_values.store(machine.round().frame_values(), Ordering::Release);
    }
    if machine.round().number != before
        && let Ok(mut rejected) = rejected.lock()
    {
        rejected.clear();
    }
    if moved {
        services.catalogs.issue(&id.library).await?;
        services.changed();
    }
    result.map(|_| ())
}

/// Versions appear on whole seconds, so that their moment does not tell how long the noise took: sampling time
/// depends on what is sampled.
fn until_tick() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(1) - Duration::from_nanos(u64::from(now.subsec_nanos()))
}

/// Serves one command, and together with a contribution all others that already wait.
async fn serve(
    machine: &mut Machine,
    command: Command,
    inbox: &mut mpsc::Receiver<Command>,
    services: &Services,
) {
    let mut next = Some(command);
    let (mut batch, mut replies) = (Vec::new(), Vec::new());
    while let Some(command) = next.take() {
        match command {
            Command::Contribute(posted, reply) => {
                batch.push(posted);
                replies.push(reply);
                if batch.len() < GROUP {
                    next = inbox.try_recv().ok();
                }
            }
            Command::Promote(promotion, reply) => {
                answer(machine, std::mem::take(&mut batch), std::mem::take(&mut replies), services)
                    .await;
                let Promotion { patch, version, expected, actor, reason } = promotion;
                let evidence =
                    Evidence { actor: &actor, reason: &reason, now: services.clock.now() };
                // A caller that has gone away does not undo what is committed.
                drop(reply.send(machine.promote(&patch, version, expected, &evidence).await));
            }
        }
    }
    answer(machine, batch, replies, services).await;
}

async fn answer(
    machine: &mut Machine,
    batch: Vec<Posted>,
    replies: Vec<oneshot::Sender<Result<Accepted>>>,
    services: &Services,
) {
    if batch.is_empty() {
        return;
    }
    let answers = match machine.accept(&batch).await {
        Ok(answers) => answers,
        Err(problem) => vec![Err(problem); batch.len()],
    };
    let counted =
        answers.iter().filter(|a| matches!(a, Ok(accepted) if !accepted.duplicate)).count();
    metrics::counter!("backstitch_contributions_accepted_total").increment(counted as u64);
    for (reply, answer) in replies.into_iter().zip(answers) {
        // A device that has gone away asks again with the same nullifier.
        drop(reply.send(answer));
    }
    services.changed();
}
