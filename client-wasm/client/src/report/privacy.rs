//! What this device has told, as it is said to people.

use serde::Serialize;

/// What the reports of all experiments may tell about this device, and have told within the running period.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "named as in TaskPrivacy")]
pub struct ReportsPrivacy {
    pub spent_epsilon: f64,
    pub epsilon: f64,
    pub period_days: u32,
    pub certainty: f64,
    pub certainty_limit: f64,
}

/// What all that ever left this device may have told, whatever period it fell into: periods end, knowledge does not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EverPrivacy {
    /// Contributions, to whichever task, that were not refused.
    pub contributions: usize,
    /// Reports of experiments.
    pub reports: usize,
    /// ρ of the contributions.
    pub rho: f64,
    /// The smallest δ of the library's tasks.
    pub delta: f64,
    /// ε of the contributions at `delta`, and of the reports.
    pub epsilon: f64,
    /// How certain an observer at even odds could have become, 0.5 to 1.
    pub certainty: f64,
}
