//! Automatic rollback: champions that have become worse than earlier ones of their own, release by release and each time
//! within chance, go back to them. What somebody promoted by hand is never undone: only releases since then are looked at.

use std::sync::Arc;

use backstitch_onnx::patch::Patch;

use super::super::gate::{Evaluation, Gate};
use super::super::{state, terms};
use super::{Machine, blocking};
use crate::failure::Result;
use crate::registry::alias;
use crate::registry::version;
use crate::store::Connection;

/// Releases that are looked back at.
const HORIZON: u32 = 64;

/// Chance of a false rollback in one release, over all earlier champions together.
const CHANCE: f64 = 0.05;

/// Earlier champions that the task goes back to.
pub(super) struct Rollback {
    /// The version of each of the task's patches.
    pub(super) versions: Vec<u32>,
    /// How much worse what would be live now is than they are.
    pub(super) evaluation: Evaluation,
}

/// The best champions of the last releases, by the held-out examples.
struct Best {
    versions: Vec<u32>,
    accuracy: f64,
    /// How many it is the best of: the best of many looks better than it is.
    of: usize,
}

impl Machine {
    /// Where to go back to, if `live` is worse than the best earlier champions beyond chance.
    pub(super) async fn fallen_behind(
        &self,
        gate: &Arc<Gate>,
        live: Vec<Patch>,
        accuracy: f64,
    ) -> Result<Option<Rollback>> {
        let mut reading = self.services.store.read().await?;
        let Some(best) = self.best(&mut reading).await? else { return Ok(None) };
        if best.accuracy <= accuracy || best.versions == self.round.base_versions {
            return Ok(None);
        }
        let mut earlier = Vec::new();
        for (name, number) in self.round.terms.patches.iter().zip(&best.versions) {
            let version = version::find(&mut reading, &self.task.library, name, *number).await?;
            earlier.push(terms::load(&self.services.blobs, &version).await?);
        }
        drop(reading);
        let judge = Arc::clone(gate);
        let evaluation = blocking(move || judge.judge(&earlier, &live)).await?;
        // The tail of the normal distribution beyond x is below e^(−x²/2); Bonferroni over those that it is the best of.
        let deviations = (2.0 * (best.of as f64 / CHANCE).ln()).sqrt();
        Ok(evaluation
            .is_worse_by(deviations)
            .then_some(Rollback { versions: best.versions, evaluation }))
    }

    async fn best(&self, connection: &mut Connection) -> Result<Option<Best>> {
        let (library, patches) = (&self.task.library, &self.round.terms.patches);
        let Some(first) = patches.first() else { return Ok(None) };
        let since = alias::last_decision(&mut *connection, library, patches).await?;
        let mut best: Option<Best> = None;
        let mut of = 0;
        for round in state::history(&mut *connection, &self.task, HORIZON).await? {
            let (Some(versions), Some(at)) = (round.versions, round.released_at) else { continue };
            if at < since || round.terms.patches != *patches {
                continue;
            }
            let Some(number) = versions.first() else { continue };
            let released = version::find(&mut *connection, library, first, *number).await?;
            let Some(found) = released.evaluation else { continue };
            let made = found.passed.then_some((versions, found.patched));
            for (versions, accuracy) in [(round.base_versions, found.base)].into_iter().chain(made)
            {
                of += 1;
                if best.as_ref().is_none_or(|best| accuracy > best.accuracy) {
                    best = Some(Best { versions, accuracy, of });
                }
            }
        }
        Ok(best.map(|best| Best { of, ..best }))
    }
}
