//! How much patches have helped on this device, by the user's own answers: it corrects the gains of the manifests.

use std::collections::BTreeMap;

use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

use crate::device::Scope;
use crate::port::{Port, update};

/// The manifest's gain weighs as much as this many outcomes on this device.
const PRIOR: f64 = 20.0;

/// Outcomes after which the old ones count half, so that a changed world is noticed.
const MEMORY: f64 = 200.0;

/// What an answer said of one patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The patch.
    pub patch: Name,
    /// 1 where the patch made a wrong answer right, −1 where it made a right one wrong, else 0.
    pub outcome: f64,
    /// The manifest's gain on that input.
    pub expected: f64,
}

/// What was seen of each patch. It never leaves the device.
pub struct Feedback {
    scope: Scope,
    patches: BTreeMap<Name, Record>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    outcomes: f64,
    /// Σ (outcome − expected gain).
    surplus: f64,
}

impl Feedback {
    /// Reads what was seen before; what is damaged starts again from the manifests.
    pub async fn open<P: Port>(port: &P, scope: Scope) -> Result<Self, Problem> {
        let stored = port.load(&scope.key("feedback")).await?;
        Ok(Self::read(scope, stored.as_deref()))
    }

    /// Adds outcomes to what is stored now: another page may have seen some too.
    pub async fn record<P: Port>(
        port: &P,
        scope: Scope,
        outcomes: &[Outcome],
    ) -> Result<Self, Problem> {
        let key = scope.key("feedback");
        let add = |stored: Option<&[u8]>| {
            let mut feedback = Self::read(scope.clone(), stored);
            outcomes.iter().for_each(|outcome| feedback.observe(outcome));
            Ok((feedback.encode()?, feedback))
        };
        update(port, &key, add).await
    }

    /// Forgets everything, here and where it is stored.
    pub async fn forget<P: Port>(port: &P, scope: Scope) -> Result<Self, Problem> {
        let empty = Self { scope, patches: BTreeMap::new() };
        port.store(&empty.scope.key("feedback"), &empty.encode()?).await?;
        Ok(empty)
    }

    /// What to add to the expected gain of a patch: the mean surplus, shrunk towards 0 while there are few outcomes
    /// (credibility, Bühlmann 1967).
    pub fn correction(&self, patch: &Name) -> f64 {
        self.patches.get(patch).map_or(0.0, |record| record.surplus / (record.outcomes + PRIOR))
    }

    /// Outcomes of a patch on this device, the newest weighing most.
    pub fn outcomes(&self, patch: &Name) -> f64 {
        self.patches.get(patch).map_or(0.0, |record| record.outcomes)
    }

    /// Adds an outcome.
    fn observe(&mut self, Outcome { patch, outcome, expected }: &Outcome) {
        let record = self.patches.entry(patch.clone()).or_default();
        if record.outcomes >= MEMORY {
            *record = Record { outcomes: record.outcomes / 2.0, surplus: record.surplus / 2.0 };
        }
        record.outcomes += 1.0;
        record.surplus += outcome - expected.clamp(-1.0, 1.0);
    }

    fn read(scope: Scope, stored: Option<&[u8]>) -> Self {
        let patches: BTreeMap<Name, Record> =
            stored.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
        let sound = |record: &Record| {
            record.outcomes >= 0.0 && record.surplus.abs() <= record.outcomes * 1e3
        };
        Self { scope, patches: patches.into_iter().filter(|(_, record)| sound(record)).collect() }
    }

    fn encode(&self) -> Result<Vec<u8>, Problem> {
        serde_json::to_vec(&self.patches)
            .map_err(|e| Problem::new(Code::StorageFailed, format!("the feedback: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::memory::MemoryPort;

    #[test]
    fn outcomes_move_the_gain_slowly_and_survive_a_restart() {
        let port =
            MemoryPort::new(1, |_| Err(Problem::new(Code::NetworkFailed, "no network here")));
        let open = || block_on(Feedback::open(&port, Scope::of("x"))).unwrap();
        let name = Name::new("denoise").unwrap();
        let mut feedback = open();
        assert_eq!(feedback.correction(&name), 0.0);
        // Expected to help every fifth time, it never does: the gain sinks towards 0 and never below by itself.
        let never = Outcome { patch: name.clone(), outcome: 0.0, expected: 0.2 };
        (0..20).for_each(|_| feedback.observe(&never));
        assert!((feedback.correction(&name) + 0.1).abs() < 1e-12);
        (0..2000).for_each(|_| feedback.observe(&never));
        assert!(feedback.correction(&name) > -0.2 && feedback.correction(&name) < -0.16);
        let scope = Scope::of("x");
        let key = scope.key("feedback");
        block_on(port.store(&key, &feedback.encode().unwrap())).unwrap();
        assert_eq!(open().correction(&name), feedback.correction(&name));
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        // It turns around within some dozens of outcomes, whichever page sees them.
        let always = Outcome { outcome: 1.0, ..never };
        for _ in 0..60 {
            let one = std::slice::from_ref(&always);
            feedback = block_on(Feedback::record(&port, scope.clone(), one)).unwrap();
        }
        assert!(feedback.correction(&name) > 0.1);
        assert!(close(open().correction(&name), feedback.correction(&name)));
        block_on(port.store(&key, b"{\"denoise\":{\"outcomes\":-1,\"surplus\":9}}")).unwrap();
        assert_eq!(open().correction(&name), 0.0);
    }
}
