//! The state machine of one task's rounds: open → full → reserved → noised → published → the next one.
//!
//! [`Machine::advance`] takes one step, and every step ends in one committed transaction, so stopping between
//! any two of them is what a crash is. What is in memory can be read back from the store at any time, but for
//! the reservation: a restart that finds none gives the debit up for lost and debits again.

mod publish;
mod rollback;

use std::sync::Arc;

use backstitch_onnx::Digest;
use backstitch_onnx::patch::Patch;
use backstitch_protocol::Problem;
use backstitch_protocol::contribution::Contribution;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use serde::Serialize;

use super::gate::{self, Gate};
use super::state::{self, Phase, Round};
use super::terms;
use crate::aggregate::Aggregate;
use crate::failure::{Failure as _, Result, internal};
use crate::privacy::{self, Block, Kind, Reservation};
use crate::registry::alias::{self, CHAMPION, Evidence};
use crate::registry::version;
use crate::services::Services;
use crate::store::{Connection, commit};
use crate::task::TaskId;

/// A contribution that has passed the protocol's checks.
pub(crate) struct Posted {
    pub(crate) contribution: Contribution,
    /// Of the frame's bytes: tells a retry from a reuse.
    pub(crate) digest: Digest,
    /// The round that its token is for; `None` where the task asks for no token.
    pub(crate) round: Option<u64>,
}

/// The answer to a contribution that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Accepted {
    /// Always true.
    pub accepted: bool,
    /// The round that it counts in.
    pub round: u64,
    /// Whether it had been counted before; it is not counted twice.
    pub duplicate: bool,
}

/// One task's rounds.
pub(crate) struct Machine {
    services: Services,
    task: TaskId,
    round: Round,
    /// The patches that the round starts from, with their weights.
    patches: Vec<Patch>,
    aggregate: Aggregate,
    reservation: Option<Reservation>,
    /// What correlated noise needs of the last releases; gone with the process.
    block: Block,
    /// The root gradient of a base, for the cosine gate.
    root: Option<(Digest, Arc<[f32]>)>,
}

impl Machine {
    /// Reads a task's newest round, opens the first one if there is none, and follows moved champions.
    pub(crate) async fn open(services: Services, task: TaskId) -> Result<Self> {
        let mut writing = services.store.write().await?;
        let now = services.clock.now();
        let round = match state::newest(&mut writing, &task).await? {
            Some(round) => round,
            None => {
                let terms = terms::descriptor(&mut writing, &task).await?;
                let patches =
                    terms::champions(&mut writing, &services.blobs, &task, &terms).await?;
                open_round(&mut writing, &task, 1, terms, &patches, now).await?
            }
        };
        let (sum, _) = state::vectors(&mut writing, &task, round.number).await?;
        commit(writing).await?;
        let aggregate = match sum {
            Some(bytes) => Aggregate::from_bytes(&bytes, round.contributions)?,
            None => Aggregate::new(round.frame_values()),
        };
        let mut machine = Self {
            services,
            task,
            round,
            patches: Vec::new(),
            aggregate,
            reservation: None,
            block: Block::default(),
            root: None,
        };
        machine.load_patches().await?;
        machine.follow_champions().await?;
        Ok(machine)
    }

    /// Counts contributions, each at most once, all in one transaction. A sum that has its goal takes no more.
    pub(crate) async fn accept(&mut self, batch: &[Posted]) -> Result<Vec<Result<Accepted>>> {
        let now = self.services.clock.now();
        let root = self.root().await?;
        let mut writing = self.services.store.write().await?;
        let closed = state::closed(&mut writing, &self.task, &self.round, now).await?;
        let mut aggregate = self.aggregate.clone();
        let mut answers = Vec::with_capacity(batch.len());
        for posted in batch {
            let admission = self.admit(&mut writing, posted, &aggregate, closed.as_ref()).await?;
            if matches!(&admission, Ok(accepted) if !accepted.duplicate) {
                match self.goes_against(root.as_deref(), &posted.contribution) {
                    true => aggregate.add_zeros(),
                    false => aggregate.add(&posted.contribution)?,
                }
                let nullifier = posted.contribution.nullifier();
                state::count(
                    &mut writing,
                    &self.task,
                    nullifier.as_bytes(),
                    &posted.digest,
                    self.round.number,
                )
                .await?;
            }
            answers.push(admission);
        }
        if aggregate.contributions() > self.aggregate.contributions() {
            let mut round = self.round.clone();
            round.contributions = aggregate.contributions();
            if round.contributions >= round.terms.goal {
                round.phase = Phase::Full;
            }
            state::update(&mut writing, &self.task, Phase::Open, &round).await?;
            let sum = Some(aggregate.to_bytes());
            state::store_vectors(&mut writing, &self.task, round.number, sum, None).await?;
            commit(writing).await?;
            (self.round, self.aggregate) = (round, aggregate);
        }
        Ok(answers)
    }

    /// Whether the cosine gate lets a contribution count as zeros only. Its sender is not told: the answer would say
    /// which way others go.
    fn goes_against(&self, root: Option<&[f32]>, contribution: &Contribution) -> bool {
        let (Some(root), Some(least)) = (root, self.round.terms.cosine_gate) else { return false };
        let update = &contribution.values()[..self.round.parameters as usize];
        gate::cosine(update, root).is_some_and(|cosine| cosine < least)
    }

    /// The public root gradient of the round's base, where the task has a cosine gate.
    async fn root(&mut self) -> Result<Option<Arc<[f32]>>> {
        if self.round.terms.cosine_gate.is_none() {
            return Ok(None);
        }
        if let Some((base, root)) = &self.root
            && *base == self.round.base
        {
            return Ok(Some(Arc::clone(root)));
        }
        let mut reading = self.services.store.read().await?;
        let gate = Gate::load(&mut reading, &self.services.blobs, &self.task).await?;
        drop(reading);
        let gate = gate.ok_or_else(|| internal("a cosine gate has no held-out examples"))?;
        let patches = self.patches.clone();
        let root: Arc<[f32]> = blocking(move || gate.root(&patches)).await?.into();
        self.root = Some((self.round.base, Arc::clone(&root)));
        Ok(Some(root))
    }

    /// Whether one contribution counts. Known nullifiers come first, so that a retry after the round's end still
    /// learns that it was counted.
    async fn admit(
        &self,
        connection: &mut Connection,
        posted: &Posted,
        aggregate: &Aggregate,
        closed: Option<&Problem>,
    ) -> Result<Result<Accepted>> {
        let (round, contribution) = (&self.round, &posted.contribution);
        let nullifier = contribution.nullifier();
        if let Some((counted_in, digest)) =
            state::counted(connection, &self.task, nullifier.as_bytes()).await?
        {
            return Ok(match digest == posted.digest.as_bytes() {
                true => Ok(Accepted { accepted: true, round: counted_in, duplicate: true }),
                false => Err(Problem::new(
                    Code::NullifierReused,
                    format!("this device already contributed other values to round {counted_in}"),
                )),
            });
        }
        // It may have waited while the round that its token is for was released.
        if let Some(other) = posted.round.filter(|admitted| *admitted != round.number) {
            return Ok(Err(Problem::new(
                Code::RoundClosed,
                format!("the token is for round {other}, open is round {}", round.number),
            )
            .with_hint("read the catalog again and train from its current version")));
        }
        if contribution.base() != round.base {
            return Ok(Err(Problem::new(
                Code::VersionStale,
                format!(
                    "round {} starts from {}, not from {}",
                    round.number,
                    round.base,
                    contribution.base()
                ),
            )
            .with_hint("read the catalog again and train from its current version")));
        }
        if contribution.values().len() != round.frame_values() as usize {
            let found = contribution.values().len();
            return Ok(Err(Problem::new(
                Code::FrameLength,
                format!("{found} values, the round takes {}", round.frame_values()),
            )));
        }
        if let Some(closed) = closed {
            return Ok(Err(closed.clone()));
        }
        if aggregate.contributions() >= round.terms.goal {
            return Ok(Err(Problem::new(
                Code::RoundClosed,
                format!("round {} has its {} contributions", round.number, round.terms.goal),
            )
            .with_hint("read the catalog again in a moment and train from the new version")));
        }
        Ok(Ok(Accepted { accepted: true, round: round.number, duplicate: false }))
    }

    /// Takes the next step of a release, if there is one: false while the round waits for contributions.
    pub(crate) async fn advance(&mut self) -> Result<bool> {
        match self.round.phase {
            Phase::Open => return Ok(false),
            Phase::Full => self.reserve().await?,
            Phase::Reserved => match self.reservation.take() {
                Some(reservation) => self.noise(reservation).await?,
                None => self.lose().await?,
            },
            Phase::Noised => self.publish().await?,
            Phase::Published => self.open_next().await?,
        }
        Ok(true)
    }

    /// Full → reserved: the debit, before any noise.
    async fn reserve(&mut self) -> Result<()> {
        let mut writing = self.services.store.write().await?;
        let (release, promise) = (self.round.release(&self.task), self.round.terms.promise());
        let reservation =
            privacy::reserve(&mut writing, &release, &promise, self.services.clock.now()).await?;
        let round = Round { phase: Phase::Reserved, ..self.round.clone() };
        state::update(&mut writing, &self.task, Phase::Full, &round).await?;
        commit(writing).await?;
        self.round = round;
        // Before any noise. If this fails, the reservation is given up for lost.
        self.services.note_debit().await?;
        self.reservation = Some(reservation);
        Ok(())
    }

    /// Reserved → noised: the noised result replaces the raw sum.
    async fn noise(&mut self, reservation: Reservation) -> Result<()> {
        // Taken, not lent: whatever fails from here on, no later release reads this block again.
        let block = std::mem::take(&mut self.block);
        let (noisy, block) =
            privacy::release(self.aggregate.clone(), reservation, block, &self.services.noise)
                .await?;
        let mut writing = self.services.store.write().await?;
        let bytes = privacy::persist(&mut writing, &noisy, self.services.clock.now()).await?;
        let round = Round { phase: Phase::Noised, ..self.round.clone() };
        state::update(&mut writing, &self.task, Phase::Reserved, &round).await?;
        state::store_vectors(&mut writing, &self.task, round.number, None, Some(bytes)).await?;
        commit(writing).await?;
        self.aggregate = Aggregate::new(round.frame_values());
        (self.round, self.block) = (round, block);
        Ok(())
    }

    /// Reserved → full: the noise of a reservation was lost with the process; its debit stands, and what
    /// comes next begins a new block.
    async fn lose(&mut self) -> Result<()> {
        self.block = Block::default();
        let mut writing = self.services.store.write().await?;
        let detail =
            serde_json::json!({ "reason": "stopped between the debit and the stored result" });
        let release = self.round.release(&self.task);
        privacy::note(&mut writing, &release, Kind::Lose, detail, self.services.clock.now())
            .await?;
        let round = Round { phase: Phase::Full, ..self.round.clone() };
        state::update(&mut writing, &self.task, Phase::Reserved, &round).await?;
        commit(writing).await?;
        tracing::warn!(task = %self.task, round = round.number, "a reservation was lost; the release is debited again");
        self.round = round;
        Ok(())
    }

    /// Published → the next round, under the task's newest terms, from the champions.
    async fn open_next(&mut self) -> Result<()> {
        let now = self.services.clock.now();
        let mut writing = self.services.store.write().await?;
        let terms = terms::descriptor(&mut writing, &self.task).await?;
        let patches =
            terms::champions(&mut writing, &self.services.blobs, &self.task, &terms).await?;
        let round =
            open_round(&mut writing, &self.task, self.round.number + 1, terms, &patches, now)
                .await?;
        commit(writing).await?;
        self.aggregate = Aggregate::new(round.frame_values());
        self.round = round;
        self.patches = patches.into_iter().map(|(_, patch)| patch).collect();
        Ok(())
    }

    /// Makes a version the champion, or refuses where the round's sum would no longer fit. What is in the sum
    /// stays: it is applied to the new champion. Devices must train from that from now on.
    pub(crate) async fn promote(
        &mut self,
        patch: &Name,
        version: u32,
        expected: Option<u32>,
        evidence: &Evidence<'_>,
    ) -> Result<()> {
        let mut writing = self.services.store.write().await?;
        alias::promote(&mut writing, &self.task.library, patch, version, expected, evidence)
            .await?;
        let based = self.rebased(&mut writing).await?;
        commit(writing).await?;
        (self.round, self.patches) = based;
        // What the last releases' noise did wrong is no longer in the champion.
        self.block = Block::default();
        Ok(())
    }

    /// Bases the round on the champions, if they were moved while no machine was running.
    async fn follow_champions(&mut self) -> Result<()> {
        let mut writing = self.services.store.write().await?;
        let based = self.rebased(&mut writing).await?;
        commit(writing).await?;
        (self.round, self.patches) = based;
        if self.round.contributions == 0 {
            self.aggregate = Aggregate::new(self.round.frame_values());
        }
        Ok(())
    }

    /// The round on the present champions, and their patches.
    async fn rebased(&self, connection: &mut Connection) -> Result<(Round, Vec<Patch>)> {
        if self.round.phase == Phase::Published {
            return Ok((self.round.clone(), self.patches.clone()));
        }
        let blobs = &self.services.blobs;
        // An empty round takes the newest terms as well. Devices may hold its tokens, or train under the old terms, so it
        // becomes another round: nobody counts under terms that its own ledger has not permitted.
        let terms = match self.round.contributions {
            0 => terms::descriptor(&mut *connection, &self.task).await?,
            _ => self.round.terms.clone(),
        };
        let champions = terms::champions(&mut *connection, blobs, &self.task, &terms).await?;
        let parameters = terms::count(&champions)?;
        let number = self.round.number + u64::from(terms != self.round.terms);
        let round = Round {
            number,
            base: terms::base(number, &champions),
            base_versions: champions.iter().map(|(version, _)| *version).collect(),
            parameters,
            terms,
            ..self.round.clone()
        };
        if round == self.round {
            return Ok((round, self.patches.clone()));
        }
        if round.contributions > 0 && parameters != self.round.parameters {
            return Err(Problem::new(
                Code::Conflict,
                format!(
                    "round {} of {} holds {} contributions of {} parameters, the new champion has {parameters}",
                    round.number, self.task, round.contributions, self.round.parameters
                ),
            )
            .with_hint(format!("promote after the round's release; {CHAMPION} stays as it is")));
        }
        if round.number != self.round.number {
            state::renumber(&mut *connection, &self.task, self.round.number).await?;
        }
        state::update(&mut *connection, &self.task, self.round.phase, &round).await?;
        if round.contributions == 0 {
            let sum = Some(Aggregate::new(round.frame_values()).to_bytes());
            state::store_vectors(&mut *connection, &self.task, round.number, sum, None).await?;
            state::set_terms(connection, &self.task, &round).await?;
        }
        Ok((round, champions.into_iter().map(|(_, patch)| patch).collect()))
    }

    /// Reads the patches of the round's base.
    async fn load_patches(&mut self) -> Result<()> {
        let mut reading = self.services.store.read().await?;
        let mut patches = Vec::new();
        for (name, version) in self.round.terms.patches.iter().zip(&self.round.base_versions) {
            let version = version::find(&mut reading, &self.task.library, name, *version).await?;
            patches.push(terms::load(&self.services.blobs, &version).await?);
        }
        self.patches = patches;
        Ok(())
    }

    /// The refusals that the round's row gets with its next change.
    pub(crate) fn remember_rejected(&mut self, rejected: std::collections::BTreeMap<String, u64>) {
        self.round.rejected = rejected;
    }

    /// Writes them down now.
    pub(crate) async fn keep_rejected(&self) -> Result<()> {
        let mut writing = self.services.store.write().await?;
        state::update(&mut writing, &self.task, self.round.phase, &self.round).await?;
        commit(writing).await
    }

    /// The newest round.
    pub(crate) fn round(&self) -> &Round {
        &self.round
    }
}

/// Runs work that takes long beside the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.while_doing("waiting for the held-out examples")?
}

async fn open_round(
    connection: &mut Connection,
    task: &TaskId,
    number: u64,
    terms: crate::registry::TaskDescriptor,
    champions: &[(u32, Patch)],
    now: u64,
) -> Result<Round> {
    let parameters = terms::count(champions)?;
    let round = Round {
        number,
        phase: Phase::Open,
        base: terms::base(number, champions),
        base_versions: champions.iter().map(|(version, _)| *version).collect(),
        parameters,
        terms,
        contributions: 0,
        rejected: Default::default(),
        versions: None,
        update_norm: None,
        measured: Vec::new(),
        opened_at: now,
        released_at: None,
    };
    let sum = Aggregate::new(round.frame_values()).to_bytes();
    state::insert(connection, task, &round, sum).await?;
    Ok(round)
}
