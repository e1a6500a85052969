//! Noised → published: the optimiser's step, the gate, new versions, and the champions move or stay.

use std::sync::Arc;

use backstitch_onnx::patch::Patch;
use backstitch_protocol::catalog::Blob;
use backstitch_protocol::measure::Measure;

use super::super::gate::{Evaluation, Gate};
use super::super::optimiser::{self, Optimiser};
use super::super::state::{self, Measured, Phase, Round};
use super::super::terms;
use super::rollback::Rollback;
use super::{Machine, blocking};
use crate::failure::{Result, internal};
use crate::privacy::{self, Block, Kind, NoisyAggregate};
use crate::registry::alias::{self, Evidence};
use crate::registry::version::{self, PatchVersion};
use crate::store::{Connection, commit};

/// What a release would publish.
struct Candidate {
    patches: Vec<Patch>,
    velocity: Vec<u8>,
    update_norm: f64,
    measured: Vec<Measured>,
    /// `None` where the task has no held-out examples.
    evaluation: Option<Evaluation>,
    /// Earlier champions that both this and the present ones have fallen behind.
    rollback: Option<Rollback>,
}

impl Candidate {
    fn passed(&self) -> bool {
        self.rollback.is_none()
            && self.evaluation.as_ref().is_none_or(|evaluation| evaluation.passed)
    }
}

impl Machine {
    /// Noised → published. A candidate that is worse on the held-out examples is kept as a version that nothing
    /// points to; the champions stay, and with them the optimiser's velocity. Its debit stands.
    pub(super) async fn publish(&mut self) -> Result<()> {
        let now = self.services.clock.now();
        let candidate = self.candidate().await?;
        let passed = candidate.passed();
        let mut writing = self.services.store.write().await?;
        let mut versions = Vec::new();
        for index in 0..candidate.patches.len() {
            versions.push(self.enter_version(&mut writing, index, &candidate, now).await?);
        }
        if passed {
            terms::set_velocity(&mut writing, &self.task, candidate.velocity).await?;
        }
        if let Some(rollback) = &candidate.rollback {
            self.roll_back(&mut writing, rollback, now).await?;
        }
        if let Some(clip_norm) = terms::next_clip_norm(&self.round.terms, &candidate.measured)? {
            terms::set_clip_norm(&mut writing, &self.task, clip_norm).await?;
        }
        let mut detail = serde_json::json!({ "versions": versions, "promoted": passed });
        if let Some(rollback) = &candidate.rollback {
            detail["rolled_back_to"] = rollback.versions.clone().into();
        }
        let release = self.round.release(&self.task);
        privacy::note(&mut writing, &release, Kind::Publish, detail, now).await?;
        let round = Round {
            phase: Phase::Published,
            versions: Some(versions),
            update_norm: Some(candidate.update_norm),
            measured: candidate.measured,
            released_at: Some(now),
            ..self.round.clone()
        };
        state::update(&mut writing, &self.task, Phase::Noised, &round).await?;
        commit(writing).await?;
        let task = self.task.to_string();
        match passed {
            true => {
                metrics::counter!("backstitch_rounds_published_total", "task" => task).increment(1);
                self.patches = candidate.patches;
            }
            false => {
                if candidate.rollback.is_some() {
                    metrics::counter!("backstitch_rollbacks_total", "task" => task.clone())
                        .increment(1);
                }
                metrics::counter!("backstitch_releases_held_back_total", "task" => task)
                    .increment(1);
                // The next releases would take back noise that is not in the champion.
                self.block = Block::default();
            }
        }
        tracing::info!(task = %self.task, round = round.number, versions = ?round.versions, promoted = passed, "published");
        self.round = round;
        Ok(())
    }

    /// Takes the optimiser's step from the stored result, and the measure of what comes of it.
    async fn candidate(&self) -> Result<Candidate> {
        let mut reading = self.services.store.read().await?;
        let release = self.round.release(&self.task);
        let (_, noised) = state::vectors(&mut reading, &self.task, self.round.number).await?;
        let noised = noised.ok_or_else(|| internal("a noised round has no result"))?;
        let noisy = privacy::persisted(&mut reading, &release, &noised).await?;
        let mean = noisy.mean();
        let mut optimiser = Optimiser {
            learning_rate: self.round.terms.server_learning_rate,
            momentum: self.round.terms.server_momentum,
            velocity: terms::velocity(&mut reading, &self.task).await?,
        };
        let gate = Gate::load(&mut reading, &self.services.blobs, &self.task).await?;
        drop(reading);
        let mut values = optimiser::parameters(&self.patches)?;
        optimiser.step(&mut values, &mean);
        let patches = optimiser::with_parameters(&self.patches, &values)?;
        let (evaluation, rollback) = match gate.map(Arc::new) {
            Some(gate) => self.judge(gate, &patches).await?,
            None => (None, None),
        };
        Ok(Candidate {
            patches,
            velocity: optimiser.velocity_bytes(),
            update_norm: optimiser::norm(&mean),
            measured: self.measured(&noisy),
            evaluation,
            rollback,
        })
    }

    /// The candidate beside the champions, and what would be live after that beside the best earlier ones.
    async fn judge(
        &self,
        gate: Arc<Gate>,
        candidate: &[Patch],
    ) -> Result<(Option<Evaluation>, Option<Rollback>)> {
        let (judge, champion) = (Arc::clone(&gate), self.patches.clone());
        let tried = candidate.to_vec();
        let found = blocking(move || judge.judge(&champion, &tried)).await?;
        let (live, accuracy) = match found.passed {
            true => (candidate.to_vec(), found.patched),
            false => (self.patches.clone(), found.base),
        };
        let rollback = self.fallen_behind(&gate, live, accuracy).await?;
        Ok((Some(found), rollback))
    }

    /// Makes earlier champions the champions again; the optimiser's velocity came from what is left.
    async fn roll_back(
        &self,
        connection: &mut Connection,
        rollback: &Rollback,
        now: u64,
    ) -> Result<()> {
        let Evaluation { base, patched, n, .. } = &rollback.evaluation;
        let reason = format!(
            "rolled back: {:.1} % of {n} held-out examples right, {:.1} % before",
            100.0 * patched,
            100.0 * base
        );
        let actor = format!("round {}", self.round.number);
        let evidence = Evidence { actor: &actor, reason: &reason, now };
        for (name, version) in self.round.terms.patches.iter().zip(&rollback.versions) {
            alias::promote(&mut *connection, &self.task.library, name, *version, None, &evidence)
                .await?;
        }
        terms::set_velocity(connection, &self.task, Vec::new()).await
    }

    fn measured(&self, noisy: &NoisyAggregate) -> Vec<Measured> {
        let terms = &self.round.terms;
        let z = terms.noise_multiplier.value();
        let one = |(measure, value): (Measure, f64)| Measured {
            kind: measure.kind,
            value,
            deviation: measure.deviation(z, terms.goal),
        };
        noisy.measured().into_iter().map(one).collect()
    }

    /// Adds the new version of one patch, and makes it the champion if it has passed.
    async fn enter_version(
        &self,
        connection: &mut Connection,
        index: usize,
        candidate: &Candidate,
        now: u64,
    ) -> Result<u32> {
        let patch = &candidate.patches[index];
        let (library, round) = (&self.task.library, &self.round);
        let name = &round.terms.patches[index];
        let base =
            version::find(&mut *connection, library, name, round.base_versions[index]).await?;
        let bytes = patch.weights_bytes();
        let length = bytes.len() as u64;
        let weights = Blob { digest: self.services.blobs.put(bytes).await?, bytes: length };
        let source = format!("round {}", round.number);
        let new = PatchVersion {
            version: version::next(&mut *connection, library, name).await?,
            weights: Some(weights),
            identity: patch.weights_digest(),
            source: source.clone(),
            round: Some(round.number),
            cohort: Some(round.contributions),
            created_at: now,
            evaluation: candidate.evaluation.clone(),
            ..base
        };
        version::insert(&mut *connection, library, &new).await?;
        if candidate.passed() {
            let reason = format!("mean of {} contributions", round.contributions);
            let evidence = Evidence { actor: &source, reason: &reason, now };
            alias::promote(connection, library, name, new.version, None, &evidence).await?;
        }
        Ok(new.version)
    }
}
