//! Learns from a right answer how much each patch helps: by leaving it out, or putting it in.

use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;

use super::{Client, RunOptions};
use crate::examples::Target;
use crate::feedback::{Feedback, Outcome};
use crate::input::Input;
use crate::port::Port;
use crate::report::{Considered, RunResult};
use crate::selection::{Choice, ReasonCode};
use crate::training::argmax;

/// Patches that one answer judges; those that were judged least come first.
const MOST: usize = 4;

impl<P: Port> Client<P> {
    /// Judges patches by an answer: each runs once more on the input, with everything else as it was. The outcomes
    /// stay on this device.
    pub(super) async fn credit(
        &self,
        input: &Input,
        target: &Target,
        ran: &RunResult,
    ) -> Result<(), Problem> {
        let Target::Class(class) = target else { return Ok(()) };
        let right = |output: &[f32]| f64::from(u8::from(argmax(output) == Some(*class)));
        let before = right(&ran.output);
        let chosen: Vec<Name> = ran.patches.iter().map(|used| used.name.clone()).collect();
        let mut outcomes = Vec::new();
        for considered in self.to_judge(ran) {
            let mut names = chosen.clone();
            match considered.chosen {
                true => names.retain(|name| *name != considered.name),
                false => names.push(considered.name.clone()),
            }
            let choice = if names.is_empty() { Choice::None } else { Choice::Named(names) };
            let options = RunOptions { choice, ..RunOptions::default() };
            let after = right(&self.run(input, &options, &|| false).await?.output);
            let outcome = if considered.chosen { before - after } else { after - before };
            let expected = considered.gain.unwrap_or_default() - considered.correction;
            outcomes.push(Outcome { patch: considered.name.clone(), outcome, expected });
        }
        let now = Feedback::record(&self.port, self.scope.clone(), &outcomes).await?;
        self.feedback.replace(now);
        Ok(())
    }

    /// Patches that this input is meant for, whether they were chosen or not.
    fn to_judge<'a>(&self, ran: &'a RunResult) -> Vec<&'a Considered> {
        let meant = |c: &&Considered| {
            matches!(
                c.reason_code,
                ReasonCode::Chosen
                    | ReasonCode::GainNotPositive
                    | ReasonCode::GainBelowCost
                    | ReasonCode::NotNeeded
                    | ReasonCode::OverLimit
                    | ReasonCode::Outweighed
            )
        };
        let mut meant: Vec<&Considered> = ran.candidates.iter().filter(meant).collect();
        let feedback = self.feedback.borrow();
        meant.sort_by(|a, b| feedback.outcomes(&a.name).total_cmp(&feedback.outcomes(&b.name)));
        meant.truncate(MOST);
        meant
    }
}
