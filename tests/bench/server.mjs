// A server under load: `server/benches/server.rs`, with our own crates optimised as in a release.

import { execFile } from "node:child_process";
import { promisify } from "node:util";

export async function server() {
  const { stdout } = await promisify(execFile)(
    "cargo",
    ["bench", "--quiet", "--profile", "dev", "--package", "backstitch-server", "--bench", "server"],
    { env: { ...process.env, CARGO_PROFILE_DEV_OPT_LEVEL: "3" }, maxBuffer: 1 << 24 },
  );
  return JSON.parse(stdout.trim().split("\n").at(-1));
}
