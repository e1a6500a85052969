// What comes out, in the wire's and the manifests' names. The bindings of `client-wasm` include this file: no imports.

/** Feature name to value, such as `"image.noise"`. Labels, units and ranges: `library().features`. */
export type FeatureVector = Record<string, number>;

export interface Ranked {
  index: number;
  label: string;
  score: number;
}

export type ReasonCode =
  | "chosen" // part of the best set
  | "named" // the caller named it
  | "not_named" // the caller named others, or none
  | "requirement_not_met" // a feature is outside the patch's bounds
  | "feature_missing" // a requirement names a feature that this input does not have
  | "gain_not_positive" // would not help this input
  | "not_trained" // its initial weights change nothing
  | "broken" // it cannot be compiled here
  | "gain_below_cost" // would help less than its time is worth
  | "not_needed" // would save time and lose by it; the limit is kept without
  | "over_limit" // too dear even alone
  | "outweighed" // fits alone, but a better set uses the limit up
  | "conflict" // needs or changes a part of the model that a chosen patch replaces
  | "late"; // left out on the way: the answer would have come after its deadline

export interface Candidate {
  name: string;
  version: number;
  personal: boolean;
  chosen: boolean;
  /** One plain sentence. */
  reason: string;
  reason_code: ReasonCode;
  /** Expected gain in the patch's own metric; null where a feature is missing. */
  gain: number | null;
  /** What feedback on this device has added to `gain`. */
  correction: number;
  /** Measured where `cost_measured`, else estimated from multiply-accumulates. */
  cost_ms: number;
  cost_measured: boolean;
  cost_bytes: number;
  /** Tensors of the primary that it reads or changes. */
  sites: string[];
  requirements: {
    feature: string;
    at_least?: number;
    at_most?: number;
    value: number | null;
    met: boolean;
  }[];
}

export interface RunResult {
  output: Float32Array;
  shape: number[];
  /** Labels by score (softmax), best first, at most 5; empty for a library without labels. */
  top: Ranked[];
  /** The primary alone; present where asked by `compare`. */
  base_output?: Float32Array;
  base_top?: Ranked[];
  features: FeatureVector;
  /** What was stitched, in stitching order. */
  patches: { name: string; version: number; personal: boolean }[];
  candidates: Candidate[];
  cost: {
    total_ms: number;
    /** prepare, analyse, probe, select, compile (once), segment:0 …, patch:<name> …; base, which total_ms leaves out. */
    stages: { name: string; ms: number }[];
    limit_ms: number | null;
    limit_bytes: number | null;
    bytes: number;
    /** Whether analysis ran beside the first segment. */
    overlapped: boolean;
  };
  /** Version id of the stitched combination, `bs1-…`. */
  version: string;
  /** Version id of the primary alone. */
  base_version: string;
  catalog_version: number;
  /** Ids of `graph()` nodes that ran. */
  graph: { active: string[]; skipped: string[] };
}

export interface ExampleCounts {
  total: number;
  training: number;
  /** Every fifth example judges the training and is never trained on. */
  held_out: number;
  /** In memory only, because the device has no room for them; stored with the next one that fits. */
  unsaved: number;
  bytes: number;
  limit: number;
  per_label: { label: string; count: number }[];
  /** Which patches they can train. */
  trains: string[];
}

export interface LearnResult {
  id: number;
  examples: ExampleCounts;
  /** What the model said before it was taught. */
  answered: Ranked | null;
  right: boolean;
}

export interface TrainProgress {
  step: number;
  steps: number;
  epoch: number;
  loss: number;
}
export interface Score {
  loss: number;
  accuracy: number;
  n: number;
}
/** How certain a model's answers are. */
export interface Certainty {
  /** The mean of the answers' entropies, in nats; 0 is certain. */
  entropy: number;
  /** The entropy of the mean answer, in nats; 0 where all answers are one and the same class. */
  variety: number;
}

/** What came of adapting patches to inputs without answers. */
export interface AdaptReport {
  patches: string[];
  inputs: number;
  steps: number;
  before: Certainty;
  after: Certainty;
  /** Whether runs use the adapted weights: the answers are more certain, and did not all become alike. */
  in_use: boolean;
}

/** A training in the background that was begun and not ended. */
export interface Unfinished {
  options: { epochs: number | null; patches: string[] | null; seed: number };
  step: number;
  steps: number;
}

export interface TrainReport {
  patches: string[];
  steps: number;
  epochs: number;
  examples: { training: number; held_out: number };
  curve: { step: number; loss: number }[];
  /** On held-out examples, or on the training ones while there are fewer than five. */
  judged_on: "held_out" | "training";
  shared: Score;
  personal: Score;
  improved: boolean;
  in_use: "shared" | "personal";
  total_ms: number;
  step_ms: number;
}

export interface Reason {
  code: string;
  message: string;
  hint: string | null;
}

export interface Preview {
  task: string;
  round: number;
  patches: { name: string; version: number }[];
  parameters: number;
  examples: number;
  norm: number;
  clip_norm: number;
  clipped: boolean;
  /** The exact bytes that would be posted. */
  frame: Uint8Array;
  frame_bytes: number;
  header_bytes: number;
  /** The integers in the frame; at most the first 4096. */
  values: Int16Array;
  /** What this contribution would cost, and the account afterwards. */
  rho: number;
  epsilon_after: number;
  /** Held-out score with and without the training. */
  shared: Score;
  trained: Score;
  /** Null where `contribute()` would send it now. */
  refusal: Reason | null;
}

export interface ContributeResult {
  contributed: boolean;
  task: string;
  round: number;
  duplicate: boolean;
  bytes: number;
  /** Why nothing was sent. */
  reason: Reason | null;
}

/** What was told about this device in the running period, and what may be. */
export interface Account {
  period_days: number;
  spent_epsilon: number;
  /** The promise for one device and period. */
  epsilon: number;
  /** How certain an observer at even odds could become, in 0.5..1, now and at the promise. */
  certainty: number;
  certainty_limit: number;
}

export interface TaskPrivacy extends Account {
  name: string;
  patches: string[];
  round: number;
  goal: number;
  open: boolean;
  closed_reason: string | null;
  /** Of this device, within the running period. */
  participations: number;
  max_participations: number;
  min_separation: number;
  last_round: number | null;
  spent_rho: number;
  /** After one more contribution. */
  next_epsilon: number;
  delta: number;
  clip_norm: number;
  noise_multiplier: number;
  /** Null where this device may contribute now. */
  blocked: Reason | null;
}

/** One thing that left this device. `at` is in seconds since 1970; a report of an experiment has round 0. */
export interface SentEntry {
  kind: "contribution" | "report";
  name: string;
  round: number;
  at: number;
  rho: number;
}

export interface Privacy {
  consent: boolean;
  tasks: TaskPrivacy[];
  experiments: {
    name: string;
    arm: string;
    window: number;
    seen: number;
    reported: boolean;
    epsilon: number;
  }[];
  /** What the reports of all experiments may tell about this device in a period, and have told in the running one. */
  reports: Account;
  /** What all that ever left this device may have told, in whichever period; null where the ledger cannot be read. */
  ever: Record<"contributions" | "reports" | "rho" | "delta" | "epsilon" | "certainty", number> | null;
  ledger: { entries: number; head: string; intact: boolean; problem: Reason | null };
  /** What left this device, newest first, by its ledger. */
  history: SentEntry[];
  /** What a contribution contains, for people. */
  sent: string[];
  never_sent: string[];
}

export interface RefreshResult {
  changed: boolean;
  catalog_version: number;
  patches: { name: string; from: number; to: number }[];
  /** Putting the new weights in place, without downloading. */
  swap_ms: number;
}

export interface GraphNode {
  id: string;
  kind: "input" | "segment" | "site" | "patch" | "output";
  label: string;
  /** Of a patch node. */
  patch?: string;
  mode?: "series" | "parallel" | "replace";
  /** Operators and multiply-accumulates of a segment or patch. */
  ops?: { op: string; count: number }[];
  macs?: number;
  shape?: number[];
}
export type Graph = { nodes: GraphNode[]; edges: { from: string; to: string }[] };

export interface LibraryInfo {
  name: string;
  title: string;
  description: string;
  modality: string;
  labels: string[];
  input: { name: string; shape: number[] };
  output: { name: string; shape: number[] };
  preprocessing: unknown;
  catalog_version: number;
  primary: { digest: string; bytes: number; macs: number; parameter_bytes: number };
  patches: {
    name: string;
    function: string;
    version: number;
    versions: { version: number; aliases: string[] }[];
    trainable: boolean;
    parameters: number;
    macs: number;
    bytes: number;
    sites: string[];
    modes: string[];
    requires: { feature: string; at_least?: number; at_most?: number }[];
    performance: unknown;
    licence: string;
    /** `null` while nothing was trained here. */
    personal: { in_use: boolean; examples: number } | null;
  }[];
  tasks: string[];
  features: Record<"name" | "label" | "unit" | "range" | "about" | "source", string>[];
  key: string;
}
