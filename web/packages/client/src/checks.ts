// What a caller may ask for, checked before anything is started: a word that is not known is a mistake, not a default.

import type { CostLimit, OpenOptions } from "./options.js";
import { PatchError } from "./problem.js";

/** Most passes of one training; the core has the same limit. */
const MAX_EPOCHS = 1000;

const LIMITS: ReadonlySet<string> = new Set(["ms", "bytes", "gainPerMs"] satisfies (keyof CostLimit)[]);

function refused(message: string, hint: string): PatchError {
  return new PatchError("request_invalid", message, hint);
}

const shown = (value: unknown): string => (typeof value === "string" ? JSON.stringify(value) : String(value));

export function checkSignal(signal: unknown): void {
  if (signal !== undefined && typeof (signal as AbortSignal | null)?.addEventListener !== "function")
    throw refused(`the signal is ${shown(signal)}`, "give the signal of an AbortController");
}

export function checkCostLimit(limit: CostLimit): void {
  if (typeof limit !== "object" || limit === null)
    throw refused(`costLimit is ${shown(limit)}`, "give { ms, bytes, gainPerMs }, any of them");
  for (const [name, value] of Object.entries(limit)) {
    if (!LIMITS.has(name)) throw refused(`costLimit has no ${name}`, "it has ms, bytes and gainPerMs");
    if (value !== null && value !== undefined && !(typeof value === "number" && value >= 0))
      throw refused(
        `costLimit.${name} is ${shown(value)}`,
        "give a number, at least 0; null lifts the limit",
      );
  }
}

export function checkEpochs(epochs: number | undefined): void {
  if (epochs === undefined || (Number.isInteger(epochs) && epochs >= 1 && epochs <= MAX_EPOCHS)) return;
  throw refused(`epochs is ${shown(epochs)}`, `give a whole number from 1 to ${MAX_EPOCHS}`);
}

export function checkOpening({ signal, costLimit = {}, publicKey, storage }: OpenOptions): void {
  checkSignal(signal);
  checkCostLimit(costLimit);
  if (publicKey !== undefined && !/^[0-9a-f]{64}$/i.test(publicKey))
    throw refused(
      `publicKey is ${shown(publicKey)}`,
      "give the 64 hex digits that `backstitch keys show` prints as the root",
    );
  if (storage !== undefined && storage !== "persistent" && storage !== "memory")
    throw refused(`storage is ${shown(storage)}`, 'give "persistent" or "memory"');
}
