// The whole public surface of @backstitch/client.

export { open } from "./open.js";
export { Model } from "./model.js";
export { PatchError } from "./problem.js";
export type { Stream } from "./stream.js";
export type { BackgroundSettings, Pause } from "./idle.js";
export type * from "./memory.js";
export type * from "./options.js";
export type * from "./results.js";
