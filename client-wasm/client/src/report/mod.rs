//! What the client answers, as plain data. The JSON names are those of the JavaScript package; numbers carry their
//! unit in the name.

use backstitch_protocol::Problem;
use backstitch_protocol::id::{Name, VersionId};
use serde::Serialize;

use crate::analysis::FeatureVector;
use crate::client::TrainOptions;
use crate::selection::{Checked, ReasonCode};
use crate::session::Stage;
use crate::training::Score;

mod library;
mod privacy;

pub(crate) use library::label_counts;
pub use library::{
    BrokenInfo, FeatureInfo, Graph, GraphEdge, GraphNode, LibraryInfo, OperatorCount, PatchInfo,
    PersonalInfo, PrimaryInfo, TensorInfo, VersionInfo,
};
pub use privacy::{EverPrivacy, ReportsPrivacy};

/// How opening goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// `catalog`, `primary`, `patch`, `compile` or `ready`.
    pub stage: &'static str,
    /// What is loaded now.
    pub name: String,
    /// Bytes so far.
    pub loaded_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// A class with its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranked {
    /// The class.
    pub index: usize,
    /// Its name.
    pub label: String,
    /// Softmax over the answer.
    pub score: f64,
}

/// A patch that was stitched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Used {
    /// The patch.
    pub name: Name,
    /// Its version; of a personal one that of its base.
    pub version: u32,
    /// Whether the weights were trained here.
    pub personal: bool,
}

/// A patch that could have been stitched, and the decision on it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of Candidate and Decision in the selection")]
pub struct Considered {
    pub name: Name,
    pub version: u32,
    pub personal: bool,
    pub chosen: bool,
    pub reason: String,
    pub reason_code: ReasonCode,
    pub gain: Option<f64>,
    /// What feedback on this device has added to `gain`.
    pub correction: f64,
    pub cost_ms: f64,
    /// Whether `cost_ms` was measured on this device.
    pub cost_measured: bool,
    pub cost_bytes: u64,
    pub sites: Vec<String>,
    pub requirements: Vec<Checked>,
}

/// What a run took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunCost {
    /// Milliseconds of all stages; the comparison is left out.
    pub total_ms: f64,
    /// In order; `base` last where the primary alone was asked for too.
    pub stages: Vec<Stage>,
    /// The limit in milliseconds.
    pub limit_ms: Option<f64>,
    /// The limit in bytes.
    pub limit_bytes: Option<u64>,
    /// Bytes of the weights of what was stitched.
    pub bytes: u64,
    /// Whether analysis ran beside the first segment.
    pub overlapped: bool,
}

/// Which nodes of the [`Graph`] took part in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lit {
    /// Ids of nodes that ran.
    pub active: Vec<String>,
    /// Ids of segments that a replacing patch made needless.
    pub skipped: Vec<String>,
}

/// The answer to one input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunResult {
    /// The primary's output, row-major.
    #[serde(skip)]
    pub output: Vec<f32>,
    /// Its shape, with a batch of one.
    pub shape: Vec<usize>,
    /// The best five labels.
    pub top: Vec<Ranked>,
    /// What the primary alone says, where asked for.
    #[serde(skip)]
    pub base_output: Option<Vec<f32>>,
    /// Its best five labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_top: Option<Vec<Ranked>>,
    /// What was measured on the input.
    pub features: FeatureVector,
    /// What was stitched, in stitching order.
    pub patches: Vec<Used>,
    /// Every patch with the decision on it.
    pub candidates: Vec<Considered>,
    /// What it took.
    pub cost: RunCost,
    /// The stitched combination.
    pub version: VersionId,
    /// The primary alone.
    pub base_version: VersionId,
    /// The catalog that it rests on.
    pub catalog_version: u64,
    /// For the picture of the graph.
    pub graph: Lit,
}

/// The examples on this device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "counts")]
pub struct ExampleCounts {
    pub total: usize,
    pub training: usize,
    pub held_out: usize,
    /// In memory only, because the device has no room for them.
    pub unsaved: usize,
    pub bytes: usize,
    pub limit: usize,
    pub per_label: Vec<LabelCount>,
    /// Patches that they can train.
    pub trains: Vec<Name>,
}

/// Examples of one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "counts")]
pub struct LabelCount {
    pub label: String,
    pub count: usize,
}

/// What came of teaching one example.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LearnResult {
    /// The example's id.
    pub id: u64,
    /// All examples now.
    pub examples: ExampleCounts,
    /// What the model said before.
    pub answered: Option<Ranked>,
    /// Whether that was right.
    pub right: bool,
}

/// One training step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "counts")]
pub struct TrainProgress {
    pub step: usize,
    pub steps: usize,
    pub epoch: usize,
    pub loss: f32,
}

/// How certain a model's answers are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Certainty {
    /// The mean of the answers' entropies, in nats; 0 is certain.
    pub entropy: f64,
    /// The entropy of the mean answer, in nats; 0 where all answers are one and the same class.
    pub variety: f64,
}

/// What came of adapting patches without answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdaptReport {
    /// The patches.
    pub patches: Vec<Name>,
    /// Inputs that they were adapted to.
    pub inputs: usize,
    /// Steps that were taken.
    pub steps: usize,
    /// With the shared weights.
    pub before: Certainty,
    /// With the adapted ones.
    pub after: Certainty,
    /// Whether runs use the adapted weights.
    pub in_use: bool,
}

/// A training that was begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// How it was asked for.
    pub options: TrainOptions,
    /// Steps that were taken.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
}

/// One point of the training curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "a point")]
pub struct CurvePoint {
    pub step: usize,
    pub loss: f32,
}

/// Which examples judged a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgedOn {
    /// Examples that were not trained on.
    HeldOut,
    /// The training examples themselves, as there are fewer than five in all.
    Training,
}

/// Which weights runs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InUse {
    /// Those of the catalog.
    Shared,
    /// Those trained here.
    Personal,
}

/// Training and held-out examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "counts")]
pub struct Split {
    pub training: usize,
    pub held_out: usize,
}

/// What came of a training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainReport {
    /// What was trained.
    pub patches: Vec<Name>,
    /// Steps taken.
    pub steps: usize,
    /// Passes over the examples.
    pub epochs: usize,
    /// Examples.
    pub examples: Split,
    /// Loss per step.
    pub curve: Vec<CurvePoint>,
    /// Which examples judged.
    pub judged_on: JudgedOn,
    /// The shared weights on them.
    pub shared: Score,
    /// The trained weights on them.
    pub personal: Score,
    /// Whether the trained weights are better.
    pub improved: bool,
    /// Which weights runs use from now on.
    pub in_use: InUse,
    /// Milliseconds, pauses left out.
    pub total_ms: f64,
    /// Median milliseconds of one step.
    pub step_ms: f64,
}

/// A problem as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The stable code.
    pub code: String,
    /// What was wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl From<&Problem> for Reason {
    fn from(problem: &Problem) -> Self {
        Self {
            code: problem.code().to_owned(),
            message: problem.detail().to_owned(),
            hint: problem.hint().map(str::to_owned),
        }
    }
}

/// A patch version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "name and number")]
pub struct PatchVersion {
    pub name: Name,
    pub version: u32,
}

/// What would be contributed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preview {
    /// The task.
    pub task: Name,
    /// Its open round.
    pub round: u64,
    /// What the training started from.
    pub patches: Vec<PatchVersion>,
    /// Trainable numbers.
    pub parameters: usize,
    /// Examples that were trained on.
    pub examples: usize,
    /// L2 norm of the update before clipping.
    pub norm: f64,
    /// Its bound.
    pub clip_norm: f64,
    /// Whether the bound reduced it.
    pub clipped: bool,
    /// The exact bytes that would be posted.
    #[serde(skip)]
    pub frame: Vec<u8>,
    /// Their number.
    pub frame_bytes: usize,
    /// Of which header.
    pub header_bytes: usize,
    /// The integers in the frame.
    #[serde(skip)]
    pub values: Vec<i16>,
    /// What this contribution costs.
    pub rho: f64,
    /// The account of this period afterwards.
    pub epsilon_after: f64,
    /// The shared weights on the judging examples.
    pub shared: Score,
    /// The same with the update that would be sent.
    pub trained: Score,
    /// Why `contribute` would refuse now.
    pub refusal: Option<Reason>,
}

/// What came of contributing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContributeResult {
    /// Whether the server has it.
    pub contributed: bool,
    /// The task.
    pub task: Name,
    /// The round.
    pub round: u64,
    /// Whether the server had it already.
    pub duplicate: bool,
    /// Bytes sent.
    pub bytes: usize,
    /// Why nothing was sent.
    pub reason: Option<Reason>,
}

/// One task's account on this device.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "named as in TaskEntry; the others are documented")]
pub struct TaskPrivacy {
    pub name: Name,
    pub patches: Vec<Name>,
    pub round: u64,
    pub goal: u32,
    pub open: bool,
    pub closed_reason: Option<String>,
    /// Of this device within the running period.
    pub participations: usize,
    pub max_participations: u32,
    pub period_days: u32,
    pub min_separation: u32,
    /// The last round that this device took part in.
    pub last_round: Option<u64>,
    /// ρ spent in the running period.
    pub spent_rho: f64,
    /// The same as ε at `delta`.
    pub spent_epsilon: f64,
    /// ε after one more contribution.
    pub next_epsilon: f64,
    pub epsilon: f64,
    pub delta: f64,
    /// How certain an observer at even odds could become, 0.5 to 1.
    pub certainty: f64,
    /// The same at the promised ε.
    pub certainty_limit: f64,
    pub clip_norm: f64,
    pub noise_multiplier: f64,
    /// Why this device may not contribute now.
    pub blocked: Option<Reason>,
}

/// One experiment on this device.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "named as in ExperimentEntry and Window")]
pub struct ExperimentPrivacy {
    pub name: Name,
    pub arm: Name,
    pub window: u32,
    pub seen: u32,
    pub reported: bool,
    pub epsilon: f64,
}

/// The device's ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "see Ledger")]
pub struct LedgerState {
    pub entries: usize,
    pub head: String,
    pub intact: bool,
    pub problem: Option<Reason>,
}

/// One thing that left this device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SentEntry {
    /// `contribution` or `report`.
    pub kind: &'static str,
    /// The task or experiment.
    pub name: Name,
    /// The round; 0 for a report.
    pub round: u64,
    /// Seconds since 1970.
    pub at: u64,
    /// What it cost.
    pub rho: f64,
}

/// Everything about this device's privacy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Privacy {
    /// Whether the user agreed to contribute.
    pub consent: bool,
    /// Accounts.
    pub tasks: Vec<TaskPrivacy>,
    /// Experiments.
    pub experiments: Vec<ExperimentPrivacy>,
    /// Their reports in all.
    pub reports: ReportsPrivacy,
    /// Everything since the first contribution; null where the ledger cannot be read.
    pub ever: Option<EverPrivacy>,
    /// The ledger.
    pub ledger: LedgerState,
    /// What left this device, newest first, by its ledger.
    pub history: Vec<SentEntry>,
    /// What a contribution contains, for people.
    pub sent: Vec<String>,
    /// What never leaves, for people.
    pub never_sent: Vec<String>,
}

/// A patch whose version moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "name and numbers; 0 for none")]
pub struct Moved {
    pub name: Name,
    pub from: u32,
    pub to: u32,
}

/// What came of a refresh.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RefreshResult {
    /// Whether there was a newer catalog.
    pub changed: bool,
    /// The catalog's version now.
    pub catalog_version: u64,
    /// Patches that run with another version now.
    pub patches: Vec<Moved>,
    /// Milliseconds to put the loaded weights in place.
    pub swap_ms: f64,
}
