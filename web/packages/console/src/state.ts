// The JSON of GET /admin/v1/state.

/** Seconds since 1970, or RFC 3339. */
export type Time = number | string;

export interface ConsoleState {
  server: { version: string; started_at: Time; uptime_s: number };
  libraries: LibraryState[];
}

export interface LibraryState {
  name: string;
  title: string;
  catalog_version: number;
  primary: { digest: string; bytes: number };
  patches: PatchState[];
  tasks: TaskState[];
  /** To all its tasks, in the rounds that are shown. */
  contributions: { accepted: number; rejected: Record<string, number> };
  /** Its own records of the server's one ledger. */
  ledger: LedgerRecord[];
  experiments: ExperimentState[];
  /** What the reports of all experiments of a period tell about one device, and may tell. */
  reports: { spent_epsilon: number; budget_epsilon: number; period_days: number; frees_at: number | null };
  moves?: Move[];
}

/** One move of an alias. */
export interface Move {
  sequence: number;
  patch: string;
  alias: string;
  version: number | null;
  previous: number | null;
  actor: string;
  reason: string;
  at: Time;
}

export interface PatchState {
  name: string;
  versions: VersionState[];
}

export interface VersionState {
  version: number;
  aliases: string[];
  graph: string;
  weights_digest: string;
  created_at: Time;
  source: string;
  round?: number | null;
  cohort?: number | null;
  /** What the release gate found on public held-out data: the champion's and this version's share of right answers. */
  evaluation?: { metric: string; base: number; patched: number; n: number; passed?: boolean } | null;
}

export interface TaskState {
  name: string;
  patches: string[];
  round: number;
  received: number;
  goal: number;
  open: boolean;
  closed_reason: string | null;
  clip_norm: number;
  noise_multiplier: number;
  max_participations: number;
  period_days: number;
  epsilon: number;
  delta: number;
  spent_rho: number;
  spent_epsilon: number;
  /** By the bound that budgets are held to. */
  spent_epsilon_bound: number;
  /** Since the first release, of the worst-placed device. */
  cumulative_rho: number;
  cumulative_epsilon: number;
  next_release_rho: number;
  /** Of the worst-placed device after one more release. */
  next_release_epsilon: number;
  refused_because: string | null;
  min_separation: number;
  noise_band: number;
  budget_rho: number;
  budget_epsilon: number;
  rounds: RoundState[];
}

export interface RoundState {
  round: number;
  opened_at: Time;
  released_at: Time | null;
  contributions: number;
  accepted: number;
  rejected: Record<string, number>;
  version: number | null;
  update_norm: number | null;
  /** Noised means over the devices, in −1 to 1, with the deviation that the noise gives them. */
  measured: { kind: string; value: number; deviation: number }[];
}

export interface ExperimentState {
  name: string;
  state: string;
  arms: ArmState[];
  epsilon: number;
  window: number;
  difference: { estimate: number; low: number; high: number } | null;
  decision: string | null;
  reason: string;
}

export interface ArmState {
  name: string;
  weight: number;
  versions: Record<string, number>;
  reports: number;
  ones: number;
  rate: number | null;
  ci_low: number | null;
  ci_high: number | null;
}

export interface LedgerRecord {
  sequence: number;
  at: Time;
  task: string;
  kind: string;
  round?: number;
  rho: number;
  cumulative_rho: number;
  state: string;
  hash: string;
}

/** The console shows time from left to right and newest rows first, whatever order the server keeps. */
export function ordered(state: ConsoleState): ConsoleState {
  const by =
    <T>(key: (item: T) => number) =>
    (a: T, b: T): number =>
      key(a) - key(b);
  return {
    ...state,
    libraries: state.libraries.map((library) => ({
      ...library,
      ledger: library.ledger.toSorted(by((record) => record.sequence)),
      moves: (library.moves ?? []).toSorted(by((move) => move.sequence)),
      tasks: library.tasks.map((task) => ({
        ...task,
        rounds: task.rounds.toSorted(by((round) => round.round)),
      })),
    })),
  };
}

export function seconds(time: Time): number {
  return typeof time === "number" ? time : Date.parse(time) / 1000;
}
