// Other people's contributions: well-formed frames of small random updates, until a round is released. Their tokens
// are drawn by another implementation of RFC 9497 than the client's and the server's.

import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";

const { ristretto255_oprf } = await import(
  createRequire(new URL("../../web/package.json", import.meta.url)).resolve("@noble/curves/ed25519.js")
);

const MEDIA_TYPE = "application/vnd.backstitch.contribution";

export async function catalog(page) {
  const response = await fetch(new URL("/v1/libraries/fashion/catalog", page));
  return JSON.parse((await response.json()).payload);
}

/** Contributes until the catalog is newer than it was; resolves to the new version. */
export async function completeRound(page) {
  const before = (await catalog(page)).version;
  for (;;) {
    const now = await catalog(page);
    if (now.version > before) return now.version;
    await contribute(page, now.tasks[0]);
  }
}

async function contribute(page, task) {
  const nullifier = randomBytes(32);
  const token = await draw(page, task, nullifier);
  if (!token) return;
  const values = Buffer.alloc(2 * task.parameters);
  for (let index = 0; index < task.parameters; index++)
    values.writeInt16LE(Math.trunc((Math.random() - 0.5) * 2000), 2 * index);
  const count = Buffer.alloc(4);
  count.writeUInt32LE(task.parameters);
  const base = Buffer.from(String(task.base).replace("sha256:", ""), "hex");
  const response = await fetch(new URL(`/v1/tasks/fashion.${task.name}/contributions`, page), {
    method: "POST",
    headers: { "content-type": MEDIA_TYPE, authorization: `Bearer ${token}` },
    body: Buffer.concat([Buffer.from("BSC1"), base, nullifier, count, values]),
  });
  await expected(response);
}

/** The token of a new profile for the open round, or nothing where the round has ended meanwhile. */
async function draw(page, task, nullifier) {
  const round = Buffer.alloc(8);
  round.writeBigUInt64LE(BigInt(task.round));
  const info = Buffer.concat([Buffer.from(`backstitch token v1\0fashion.${task.name}\0`), round]);
  const oprf = ristretto255_oprf.poprf(info);
  const { blind, blinded, tweakedKey } = oprf.blind(nullifier, Buffer.from(task.token_key, "hex"));
  const response = await fetch(new URL("/v1/tokens", page), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      task: `fashion.${task.name}`,
      round: task.round,
      profile: randomBytes(32).toString("hex"),
      blinded: Buffer.from(blinded).toString("hex"),
    }),
  });
  if (!(await expected(response))) return undefined;
  const { evaluated, proof } = await response.json();
  const [element, evidence] = [evaluated, proof].map((hex) => Buffer.from(hex, "hex"));
  const output = oprf.finalize(nullifier, blind, element, blinded, evidence, tweakedKey);
  return Buffer.from(output.subarray(0, 32)).toString("hex");
}

/** Whether the server agreed; another round may have begun meanwhile, anything else is a defect. */
async function expected(response) {
  if (response.ok) return true;
  if (response.status === 409) return false;
  throw new Error(`${response.status}: ${await response.text()}`);
}
