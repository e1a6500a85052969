//! Which patches to stitch for this input: the set of the highest expected gain that respects the cost limit. A patch
//! that answers from an early tensor, so that the rest of the primary need not run, may be part of it although it
//! loses: where the limit cannot be kept without.
//!
//! Pure and exact. Every candidate gets a reason, chosen or not. Ties have a total order, so the same input gives
//! the same set on every machine: more gain, then less time, then fewer patches, then the earlier in the library.

mod meaning;
mod reason;
mod search;

use backstitch_onnx::patch::Selector;
use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use serde::Serialize;

pub use self::meaning::{Meanings, features as described_features};
use crate::analysis::FeatureVector;

/// Most patches that one library may offer, so that the exact search stays within a millisecond.
pub const MAX_CANDIDATES: usize = 24;

/// The share of the primary's time that a shortcut saves at least. What saves less only replaces like by like.
const SHORTCUT: f64 = 0.1;

/// A patch that could be stitched, in stitching order among its peers.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The patch.
    pub name: &'a Name,
    /// When it helps, and how much to expect.
    pub selector: &'a Selector,
    /// Whether its weights change anything: a freshly made trainable patch is the identity.
    pub has_effect: bool,
    /// Why it cannot run here, where that is so.
    pub fault: Option<&'a str>,
    /// Milliseconds that it adds; negative where it replaces more than it costs.
    pub cost_ms: f64,
    /// Bytes of its weights.
    pub cost_bytes: u64,
    /// Tensors of the primary that it reads or changes.
    pub sites: &'a [String],
    /// Sites that it replaces; two patches cannot replace the same one.
    pub replaces: &'a [String],
    /// Tensors that are not computed beside it. A patch that needs one of them would bring back the time that this one
    /// saves, or help nobody.
    pub bypasses: &'a [String],
    /// What feedback on this device adds to the expected gain.
    pub correction: f64,
    /// What the features of its selector are called.
    pub meanings: &'a Meanings,
}

/// What one answer may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CostLimit {
    /// Milliseconds, primary included; `None` for no limit.
    pub ms: Option<f64>,
    /// Bytes of the weights of all stitched patches; `None` for no limit.
    pub bytes: Option<u64>,
    /// What a millisecond must gain at least to be worth it; 0 where left out. Gains are compared after this much is
    /// taken off them for the time of their patch.
    pub gain_per_ms: Option<f64>,
}

/// What the caller wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best set under the limit.
    #[default]
    Auto,
    /// The primary alone.
    None,
    /// These, whatever the selector and the limit say.
    Named(Vec<Name>),
}

/// Why a candidate was chosen or not; stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// Part of the best set.
    Chosen,
    /// The caller named it.
    Named,
    /// The caller named others, or none.
    NotNamed,
    /// A feature is outside the patch's bounds.
    RequirementNotMet,
    /// A requirement or the gain names a feature that this input does not have.
    FeatureMissing,
    /// Would not help this input.
    GainNotPositive,
    /// Would help less than its time is worth.
    GainBelowCost,
    /// Would save time and lose by it; the limit is kept without.
    NotNeeded,
    /// Its weights change nothing yet.
    NotTrained,
    /// It cannot be compiled here.
    Broken,
    /// Too dear even alone.
    OverLimit,
    /// Fits alone, but a better set uses the limit up.
    Outweighed,
    /// Replaces what a chosen patch replaces, or needs what a chosen one bypasses, or the other way round.
    Conflict,
    /// Was chosen and left out on the way: the answer would have come after its deadline.
    Late,
}

/// One requirement against the value found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checked {
    /// The feature.
    pub feature: String,
    /// Its lower bound, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// Its upper bound, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// The value, or `None` where this input does not have the feature.
    pub value: Option<f64>,
    /// Whether the value is within the bounds.
    pub met: bool,
}

/// The decision on one candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whether it is stitched.
    pub chosen: bool,
    /// Why, for programs.
    pub reason_code: ReasonCode,
    /// Why, in one sentence.
    pub reason: String,
    /// Expected gain, where every feature it needs is present; with the correction.
    pub gain: Option<f64>,
    /// What feedback on this device has added to it.
    pub correction: f64,
    /// Each requirement against the value found.
    pub requirements: Vec<Checked>,
}

/// The decision on every candidate, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// As many as there were candidates.
    pub decisions: Vec<Decision>,
}

impl Selection {
    /// Indices of the chosen candidates, in stitching order.
    pub fn chosen(&self) -> impl Iterator<Item = usize> {
        self.decisions.iter().enumerate().filter(|(_, d)| d.chosen).map(|(i, _)| i)
    }

    /// Notes that a chosen candidate was left out on the way.
    pub fn leave_out(&mut self, index: usize, deadline_ms: f64) {
        let decision = &mut self.decisions[index];
        decision.chosen = false;
        decision.reason_code = ReasonCode::Late;
        decision.reason = reason::late(deadline_ms);
    }
}

/// Decides. `primary_ms` is what the primary alone takes; it counts against the limit.
///
/// Fails with `patch_unknown` where a named patch is not among the candidates, and with `input_invalid` where two
/// named patches replace the same site.
pub fn select(
    features: &FeatureVector,
    candidates: &[Candidate<'_>],
    limit: &CostLimit,
    primary_ms: f64,
    choice: &Choice,
) -> Result<Selection, Problem> {
    let price = limit.gain_per_ms.unwrap_or(0.0);
    let judge = |c: &Candidate<'_>| Judged::of(features, c, price, primary_ms);
    let judged: Vec<Judged> = candidates.iter().map(judge).collect();
    match choice {
        Choice::Auto => Ok(automatic(features, candidates, judged, limit, primary_ms)),
        Choice::None => Ok(named(candidates, judged, &[])),
        Choice::Named(names) => {
            check_named(candidates, names)?;
            Ok(named(candidates, judged, names))
        }
    }
}

/// What the selector says of one candidate, before any competition.
struct Judged {
    gain: Option<f64>,
    /// The gain less the price of its time.
    worth: f64,
    correction: f64,
    requirements: Vec<Checked>,
    /// Why it is out, if it is.
    refusal: Option<(ReasonCode, String)>,
}

impl Judged {
    fn of(
        features: &FeatureVector,
        candidate: &Candidate<'_>,
        price: f64,
        primary_ms: f64,
    ) -> Self {
        let selector = candidate.selector;
        let requirements: Vec<Checked> = selector
            .requires
            .iter()
            .map(|r| {
                let value = features.value(&r.feature).filter(|v| v.is_finite());
                let met = value.is_some_and(|v| {
                    r.at_least.is_none_or(|bound| v >= bound)
                        && r.at_most.is_none_or(|bound| v <= bound)
                });
                let feature = r.feature.clone();
                Checked { feature, at_least: r.at_least, at_most: r.at_most, value, met }
            })
            .collect();
        let gain = selector
            .gain
            .weights
            .iter()
            .try_fold(selector.gain.intercept, |sum, (name, weight)| {
                features.value(name).map(|value| sum + weight * value)
            });
        let correction = candidate.correction;
        let gain = gain.map(|gain| gain + correction).filter(|gain| gain.is_finite());
        let worth = gain.unwrap_or_default() - price * candidate.cost_ms;
        let refusal = reason::refusal(candidate, &requirements, gain, features)
            .or_else(|| reason::not_worth(candidate, gain, worth, primary_ms));
        Self { gain, worth, correction, requirements, refusal }
    }

    fn decide(self, chosen: bool, reason_code: ReasonCode, reason: String) -> Decision {
        let Self { gain, correction, requirements, .. } = self;
        Decision { chosen, reason_code, reason, gain, correction, requirements }
    }
}

fn automatic(
    features: &FeatureVector,
    candidates: &[Candidate<'_>],
    judged: Vec<Judged>,
    limit: &CostLimit,
    primary_ms: f64,
) -> Selection {
    let left = search::Left {
        ns: limit.ms.map_or(i64::MAX / 2, |ms| search::nanoseconds(ms - primary_ms)),
        bytes: limit.bytes.unwrap_or(u64::MAX),
    };
    let items: Vec<search::Item> = candidates
        .iter()
        .zip(&judged)
        .enumerate()
        .filter(|(_, (_, j))| j.refusal.is_none())
        .map(|(index, (c, j))| search::Item {
            index,
            gain: search::billionths(j.worth),
            ns: search::nanoseconds(c.cost_ms),
            bytes: c.cost_bytes,
            rivals: rivals(candidates, index),
        })
        .collect();
    let chosen = search::best(&items, left);
    let decisions = judged.into_iter().enumerate().map(|(index, judged)| {
        if let Some((code, reason)) = judged.refusal.clone() {
            return judged.decide(false, code, reason);
        }
        let (code, reason) = match chosen & (1 << index) != 0 {
            true => (
                ReasonCode::Chosen,
                reason::chosen(&candidates[index], &judged.requirements, judged.gain, features),
            ),
            false => reason::competed(candidates, index, chosen, limit, primary_ms, judged.worth),
        };
        judged.decide(code == ReasonCode::Chosen, code, reason)
    });
    Selection { decisions: decisions.collect() }
}

/// The candidates that exclude this one, as a bit set: they replace the same site, or one needs what the other bypasses.
fn rivals(candidates: &[Candidate<'_>], index: usize) -> u32 {
    let own = &candidates[index];
    rivals_by(candidates, index, |other| {
        shared(own.replaces, other.replaces)
            || shared(own.bypasses, other.sites)
            || shared(own.sites, other.bypasses)
    })
}

fn shared(some: &[String], others: &[String]) -> bool {
    some.iter().any(|tensor| others.contains(tensor))
}

fn rivals_by(
    candidates: &[Candidate<'_>],
    index: usize,
    excludes: impl Fn(&Candidate<'_>) -> bool,
) -> u32 {
    let others = candidates.iter().enumerate().filter(|(other, c)| *other != index && excludes(c));
    others.fold(0, |set, (other, _)| set | 1 << other)
}

fn named(candidates: &[Candidate<'_>], judged: Vec<Judged>, names: &[Name]) -> Selection {
    let decide = |(candidate, judged): (&Candidate<'_>, Judged)| match names
        .contains(candidate.name)
    {
        true => judged.decide(true, ReasonCode::Named, "You asked for it.".to_owned()),
        false if names.is_empty() => {
            judged.decide(false, ReasonCode::NotNamed, "You asked for no patch.".to_owned())
        }
        false => {
            judged.decide(false, ReasonCode::NotNamed, "You asked for other patches.".to_owned())
        }
    };
    Selection { decisions: candidates.iter().zip(judged).map(decide).collect() }
}

fn check_named(candidates: &[Candidate<'_>], names: &[Name]) -> Result<(), Problem> {
    let known: Vec<&str> = candidates.iter().map(|c| c.name.as_str()).collect();
    if let Some(unknown) = names.iter().find(|n| !known.contains(&n.as_str())) {
        return Err(Problem::new(Code::PatchUnknown, format!("no patch is called `{unknown}`"))
            .with_hint(format!("this library has {}", known.join(", "))));
    }
    for (index, candidate) in candidates.iter().enumerate().filter(|(_, c)| names.contains(c.name))
    {
        let same = rivals_by(candidates, index, |c| shared(candidate.replaces, c.replaces));
        let rival = (0..candidates.len())
            .filter(|other| same & (1 << other) != 0)
            .find(|other| names.contains(candidates[*other].name));
        if let Some(rival) = rival {
            let detail = format!(
                "`{}` and `{}` replace the same site",
                candidate.name, candidates[rival].name
            );
            return Err(Problem::new(Code::InputInvalid, detail).with_hint("name only one of them"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
