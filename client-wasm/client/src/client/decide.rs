//! Decides which patches a run stitches, and has them ready.

use std::sync::Arc;

use backstitch_protocol::Problem;

use super::estimate::{added_ms, primary_ms};
use super::run::WeightChoice;
use super::{Adapted, Client, Slot};
use crate::analysis::FeatureVector;
use crate::cost::Estimate;
use crate::library::Version;
use crate::port::Port;
use crate::report::{Considered, Used};
use crate::selection::{Candidate, Choice, CostLimit, Selection, select};
use crate::session::Stage;

impl<P: Port> Client<P> {
    /// Selects, and has what was selected ready to run. What is compiled for it, because nobody needed it before, is a
    /// stage of its own: it will not take as long again.
    pub(super) fn decide(
        &self,
        live: &Adapted,
        offered: &[Offered<'_>],
        features: &FeatureVector,
        limit: &CostLimit,
        choice: &Choice,
        stages: &mut Vec<Stage>,
    ) -> Result<(Selection, Vec<Estimate>), Problem> {
        let began = self.port.now_ms();
        let mut compile_ms = None;
        for version in offered.iter().map(|o| o.version).filter(|version| version.is_untried()) {
            let tried = || version.has_effect(&live.library.session);
            // Its fault, where it has one, is the reason not to choose it.
            let _noted = self.timed(&mut compile_ms, tried);
        }
        let costs = {
            let cost = self.cost.borrow();
            let cost = |o: &Offered<'_>| added_ms(&cost, &live.library, o.version);
            offered.iter().map(cost).collect::<Result<Vec<_>, _>>()?
        };
        let selection = loop {
            let selection = self.selected(live, offered, &costs, features, limit, choice)?;
            match (self.compile(offered, &selection, &mut compile_ms), choice) {
                (Ok(()), _) => break selection,
                // Its fault is known now, so that it is not chosen again.
                (Err(_), Choice::Auto) => {}
                (Err(fault), _) => return Err(fault),
            }
        };
        let ms = self.port.now_ms() - began - compile_ms.unwrap_or_default();
        stages.push(Stage { name: "select".to_owned(), ms: ms.max(0.0) });
        stages.extend(compile_ms.map(|ms| Stage { name: "compile".to_owned(), ms }));
        Ok((selection, costs))
    }

    fn selected(
        &self,
        live: &Adapted,
        offered: &[Offered<'_>],
        costs: &[Estimate],
        features: &FeatureVector,
        limit: &CostLimit,
        choice: &Choice,
    ) -> Result<Selection, Problem> {
        let feedback = self.feedback.borrow();
        let candidates: Vec<Candidate<'_>> = offered
            .iter()
            .zip(costs)
            .map(|(o, estimate)| Candidate {
                // What cannot be tried has a fault, which the next line finds.
                has_effect: o.version.has_effect(&live.library.session).unwrap_or(true),
                fault: o.version.compiled.fault().map(Problem::detail),
                correction: feedback.correction(&o.version.name),
                meanings: &live.library.meanings,
                ..o.version.candidate(estimate.ms)
            })
            .collect();
        let primary = primary_ms(&self.cost.borrow(), &live.library);
        select(features, &candidates, limit, primary, choice)
    }

    /// Compiles what was selected and is not compiled, and adds what that takes.
    fn compile(
        &self,
        offered: &[Offered<'_>],
        selection: &Selection,
        compile_ms: &mut Option<f64>,
    ) -> Result<(), Problem> {
        let chosen = selection.chosen().map(|index| &offered[index].version.compiled);
        for compiled in chosen.filter(|compiled| !compiled.is_ready()) {
            self.timed(compile_ms, || compiled.ready())?;
        }
        Ok(())
    }

    fn timed<T>(&self, total_ms: &mut Option<f64>, work: impl FnOnce() -> T) -> T {
        let began = self.port.now_ms();
        let done = work();
        *total_ms.get_or_insert(0.0) += self.port.now_ms() - began;
        done
    }
}

/// A patch version that takes part in a selection.
pub(super) struct Offered<'a> {
    pub(super) version: &'a Arc<Version>,
    pub(super) personal: bool,
}

impl<'a> Offered<'a> {
    pub(super) fn of(slot: &'a Slot, weights: WeightChoice) -> Self {
        let trained = slot.personal.as_ref().filter(|trained| match weights {
            WeightChoice::Best => trained.in_use,
            WeightChoice::Shared => false,
            WeightChoice::Personal => true,
        });
        match trained {
            Some(trained) => Self { version: &trained.version, personal: true },
            None => Self { version: &slot.shared, personal: false },
        }
    }

    pub(super) fn used(&self) -> Used {
        let Version { name, number, .. } = &**self.version;
        Used { name: name.clone(), version: *number, personal: self.personal }
    }
}

/// What was considered, in the order in which it was offered.
pub(super) fn considered(
    offered: &[Offered<'_>],
    selection: Selection,
    costs: &[Estimate],
) -> Vec<Considered> {
    let each = offered.iter().zip(selection.decisions).zip(costs);
    each.map(|((offered, decision), estimate)| Considered {
        name: offered.version.name.clone(),
        version: offered.version.number,
        personal: offered.personal,
        chosen: decision.chosen,
        reason: decision.reason,
        reason_code: decision.reason_code,
        gain: decision.gain,
        correction: decision.correction,
        cost_ms: estimate.ms,
        cost_measured: estimate.measured,
        cost_bytes: offered.version.weight_bytes,
        sites: offered.version.sites.clone(),
        requirements: decision.requirements,
    })
    .collect()
}
