//! The sentences that say why. One per decision, with the numbers it rests on.

use super::{Candidate, Checked, CostLimit, ReasonCode, SHORTCUT, rivals};
use crate::analysis::FeatureVector;

/// Why the selector itself rules a candidate out, if it does.
pub(super) fn refusal(
    candidate: &Candidate<'_>,
    requirements: &[Checked],
    gain: Option<f64>,
    features: &FeatureVector,
) -> Option<(ReasonCode, String)> {
    if let Some(fault) = candidate.fault {
        return Some((ReasonCode::Broken, format!("It does not run here: {fault}.")));
    }
    if !candidate.has_effect {
        let reason = "Not trained yet: with its initial weights it changes nothing.";
        return Some((ReasonCode::NotTrained, reason.to_owned()));
    }
    if let Some(unmet) = requirements.iter().find(|r| !r.met) {
        let Some(value) = unmet.value else {
            return Some((ReasonCode::FeatureMissing, missing(candidate, &unmet.feature)));
        };
        let reason = format!("{}.", found(candidate, unmet, value));
        return Some((ReasonCode::RequirementNotMet, reason));
    }
    if gain.is_none() {
        let weights = &candidate.selector.gain.weights;
        let feature = weights.keys().find(|name| features.value(name).is_none());
        return Some((
            ReasonCode::FeatureMissing,
            missing(candidate, feature.map_or("a feature", String::as_str)),
        ));
    }
    None
}

/// Why a candidate is not worth its time, whatever the others do. A shortcut may be, where time is short.
pub(super) fn not_worth(
    candidate: &Candidate<'_>,
    gain: Option<f64>,
    worth: f64,
    primary_ms: f64,
) -> Option<(ReasonCode, String)> {
    let gain = gain.unwrap_or_default();
    if candidate.cost_ms < -SHORTCUT * primary_ms {
        return None;
    }
    if gain <= 0.0 {
        let corrected = corrected(candidate.correction);
        let reason = format!(
            "The expected gain is {}{corrected}: it would not help this input.",
            number(gain)
        );
        return Some((ReasonCode::GainNotPositive, reason));
    }
    (worth < 0.0).then(|| {
        let reason = format!(
            "The expected gain of {} is below its cost: {} must gain {}.",
            number(gain),
            milliseconds(candidate.cost_ms),
            number(gain - worth),
        );
        (ReasonCode::GainBelowCost, reason)
    })
}

/// Why a candidate is in the best set: the requirements that it meets or, where it has none, what speaks for it most.
pub(super) fn chosen(
    candidate: &Candidate<'_>,
    requirements: &[Checked],
    gain: Option<f64>,
    features: &FeatureVector,
) -> String {
    let mut causes: Vec<String> = requirements
        .iter()
        .filter_map(|r| r.value.map(|value| found(candidate, r, value)))
        .collect();
    if causes.is_empty() {
        let weights = candidate.selector.gain.weights.iter();
        let terms =
            weights.filter_map(|(name, weight)| Some((name, features.value(name)?, weight)));
        let most = terms.max_by(|a, b| (a.1 * a.2).total_cmp(&(b.1 * b.2)));
        let meanings = candidate.meanings;
        causes.extend(most.map(|(name, value, _)| {
            format!("{} ({})", meanings.label(name), meanings.value(name, value))
        }));
    }
    let cause = if causes.is_empty() { String::new() } else { format!("{}: ", causes.join(", ")) };
    let (saves, loses) = (candidate.cost_ms < 0.0, gain.is_some_and(|gain| gain < 0.0));
    let gain = number(gain.unwrap_or_default());
    let corrected = corrected(candidate.correction);
    if saves && loses {
        let saved = milliseconds(-candidate.cost_ms);
        return format!("{cause}saves {saved} for an expected gain of {gain}{corrected}.");
    }
    format!("{cause}an expected gain of {gain}{corrected} for {}.", milliseconds(candidate.cost_ms))
}

/// Why an eligible candidate is not in the best set.
pub(super) fn competed(
    candidates: &[Candidate<'_>],
    index: usize,
    chosen: u32,
    limit: &CostLimit,
    primary_ms: f64,
    worth: f64,
) -> (ReasonCode, String) {
    let candidate = &candidates[index];
    if candidate.cost_ms < 0.0 && worth <= 0.0 {
        let saved = milliseconds(-candidate.cost_ms);
        let reason = format!("It would save {saved} and lose by it: the limit is kept without.");
        return (ReasonCode::NotNeeded, reason);
    }
    if let Some(ms) = limit.ms.filter(|ms| candidate.cost_ms > ms - primary_ms) {
        let left = (ms - primary_ms).max(0.0);
        let reason = format!(
            "It takes {}, and {} are left of the limit of {} after the primary{}.",
            milliseconds(candidate.cost_ms),
            milliseconds(left),
            milliseconds(ms),
            reduced(&named(candidates, chosen)),
        );
        return (ReasonCode::OverLimit, reason);
    }
    if let Some(bytes) = limit.bytes.filter(|bytes| candidate.cost_bytes > *bytes) {
        let reason = format!(
            "Its weights take {} bytes, the limit is {bytes} bytes{}.",
            candidate.cost_bytes,
            reduced(&named(candidates, chosen)),
        );
        return (ReasonCode::OverLimit, reason);
    }
    let rivals = rivals(candidates, index) & chosen;
    if rivals != 0 {
        return (
            ReasonCode::Conflict,
            format!(
                "It cannot go with {}: both change the same part of the model.",
                named(candidates, rivals)
            ),
        );
    }
    let chosen = named(candidates, chosen);
    let reason = format!("Over the limit with the others: reduced to {chosen}, which gain more.");
    (ReasonCode::Outweighed, reason)
}

/// Why a chosen candidate did not run.
pub(super) fn late(deadline_ms: f64) -> String {
    let deadline = milliseconds(deadline_ms);
    format!(
        "Left out on the way: with it the answer would have come after the deadline of {deadline}."
    )
}

fn named(candidates: &[Candidate<'_>], set: u32) -> String {
    let members = (0..candidates.len()).filter(|i| set & (1 << i) != 0);
    members.map(|i| candidates[i].name.as_str()).collect::<Vec<_>>().join(", ")
}

fn reduced(chosen: &str) -> String {
    if chosen.is_empty() { String::new() } else { format!("; reduced to {chosen}") }
}

/// What feedback did to a gain, where it did anything that shows.
fn corrected(correction: f64) -> String {
    let by = number(correction);
    match correction {
        _ if by == "0" => String::new(),
        up if up > 0.0 => format!(" (your feedback added {by})"),
        _ => format!(" (your feedback took {} off)", number(-correction)),
    }
}

/// A requirement as it stands: `Looks out of focus (0.32 of 1, needs 0.5)`.
fn found(candidate: &Candidate<'_>, checked: &Checked, value: f64) -> String {
    let meanings = candidate.meanings;
    let bounds = match (checked.at_least, checked.at_most) {
        (Some(least), Some(most)) => format!(", needs {} to {}", number(least), number(most)),
        (Some(least), None) => format!(", needs {}", number(least)),
        (None, Some(most)) => format!(", needs {} at most", number(most)),
        (None, None) => String::new(),
    };
    let feature = &checked.feature;
    format!("{} ({}{bounds})", meanings.label(feature), meanings.value(feature, value))
}

fn missing(candidate: &Candidate<'_>, feature: &str) -> String {
    format!("{}: this input has none.", candidate.meanings.label(feature))
}

fn milliseconds(ms: f64) -> String {
    match ms.abs() < 10.0 {
        true => format!("{ms:.2} ms"),
        false => format!("{ms:.0} ms"),
    }
}

/// At most three decimals, without trailing zeros.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let trimmed = text.trim_end_matches('0').trim_end_matches('.');
    if trimmed == "-0" { "0".to_owned() } else { trimmed.to_owned() }
}
