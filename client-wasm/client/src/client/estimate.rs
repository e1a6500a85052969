//! What the parts of a run are expected to take on this device.

use backstitch_protocol::Problem;

use crate::cost::{CostModel, Estimate};
use crate::library::{Library, Version};
use crate::session::Plan;

/// What the cost model calls a patch: versions of one graph cost the same.
pub(super) fn stage_of(version: &Version) -> String {
    format!("patch:{}@{}", version.name, &version.patch.graph_digest().hex()[..8])
}

/// What the unpatched primary is expected to take.
pub(super) fn primary_ms(cost: &CostModel, library: &Library) -> f64 {
    library.session.segments().iter().map(|segment| cost.estimate(&segment.name).ms).sum()
}

/// What a patch adds to a run of the primary: its own time, less that of segments that it makes needless, and that of
/// segments that have run for the probes and run again because it changes what they read.
pub(super) fn added_ms(
    cost: &CostModel,
    library: &Library,
    version: &Version,
) -> Result<Estimate, Problem> {
    let mut estimate = cost.estimate(&stage_of(version));
    let (session, probed) = (&library.session, library.probes.segments());
    if version.replaces.is_empty() && probed.is_empty() {
        return Ok(estimate);
    }
    let ms = |index: &usize| cost.estimate(&session.segments()[*index].name).ms;
    let plan = Plan::of(session, &[&version.compiled])?;
    estimate.ms -= plan.skipped(session).difference(probed).map(ms).sum::<f64>();
    estimate.ms += plan.changed(session).intersection(probed).map(ms).sum::<f64>();
    Ok(estimate)
}
