// Serves a developer's built app under a strict policy, and passes /v1 on to the demo, from one origin.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer, request } from "node:http";
import { once } from "node:events";
import { extname, join, normalize } from "node:path";

export const STRICT =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; img-src 'self'";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
  ".css": "text/css",
};

/**
 * `folders`: URL prefix → folder. `faults.corrupt` turns one bit of every blob over; `faults.policy` replaces the
 * policy; both can be changed at any time.
 */
export async function serveApp(folders, upstream) {
  const faults = { corrupt: false, policy: STRICT };
  const server = createServer((from, to) => {
    const { pathname } = new URL(from.url, "http://app");
    // Browsers ask for it by themselves.
    if (pathname === "/favicon.ico") return to.writeHead(204).end();
    if (pathname.startsWith("/v1/")) return pass(from, to, upstream, faults);
    return file(pathname, folders, to, faults);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    faults,
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

function pass(from, to, upstream, faults) {
  const onward = request(
    new URL(from.url, upstream),
    { method: from.method, headers: from.headers },
    (answer) => {
      to.writeHead(answer.statusCode, answer.headers);
      if (!faults.corrupt || !from.url.startsWith("/v1/blobs/")) return answer.pipe(to);
      answer.once("data", (chunk) => {
        chunk[chunk.length >> 1] ^= 1;
        to.write(chunk);
        answer.pipe(to);
      });
    },
  );
  onward.on("error", () => to.destroy());
  to.on("close", () => onward.destroy());
  from.pipe(onward);
}

async function file(pathname, folders, to, faults) {
  const prefix = Object.keys(folders).find((start) => pathname.startsWith(start));
  const inside = normalize(pathname.slice(prefix?.length ?? 0) || "index.html");
  const path = prefix && join(folders[prefix], inside);
  const found = path && (await stat(path).catch(() => null));
  const policy = { "content-security-policy": faults.policy };
  if (!found?.isFile())
    return to.writeHead(404, { "content-type": "text/html", ...policy }).end("<h1>Not found</h1>");
  to.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream", ...policy });
  createReadStream(path).pipe(to);
}
