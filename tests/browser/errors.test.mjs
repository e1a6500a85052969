// What goes wrong for developers: each failure has its code, and a hint where something can be done.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { serveApp, STRICT } from "./app-server.mjs";
import { eventually, openPage, startBrowser } from "./browser.mjs";
import { startDemo } from "./demo-server.mjs";

const DIST = new URL("../../web/packages/client/dist/", import.meta.url).pathname;
let demo, browser, app, context, page;

before(async () => {
  [demo, browser] = await Promise.all([startDemo(), startBrowser()]);
  app = await serveApp({ "/client/": DIST }, demo.page);
});
beforeEach(async () => {
  await context?.close();
  Object.assign(app.faults, { corrupt: false, policy: STRICT });
  // A fresh profile, so that no blob is cached.
  ({ context, page } = await openPage(browser));
  // Any page of the origin will do, even a missing one.
  await page.goto(`${app.origin}/start`);
});
after(async () => {
  await browser?.close();
  await app?.stop();
  await demo?.stop();
});

/** Runs `work(open, library)` in the page and returns the error that it throws, or null. */
function failure(work) {
  return page.evaluate(`(async () => {
    const { open, PatchError } = await import("/client/index.js");
    try {
      await (${work})(open, "/v1/libraries/fashion");
      return null;
    } catch (error) {
      const { code, message, hint, name } = error;
      return { code, message, hint, name, typed: error instanceof PatchError };
    }
  })()`);
}

async function fails(code, work) {
  const error = await failure(work);
  assert.equal(error?.code, code, JSON.stringify(error));
  assert.ok(error.typed && error.message.length > 5, JSON.stringify(error));
  return error;
}

test("a library that is not there", async () => {
  await fails("not_found", (open) => open("/v1/libraries/hats"));
});

test("a server that is not there", async () => {
  await page.route("**/v1/**", (route) => route.abort());
  await fails("network_failed", (open, library) => open(library));
});

test("a blob with one turned bit", async () => {
  app.faults.corrupt = true;
  await fails("blob_mismatch", (open, library) => open(library));
  // Nothing of it was kept: the same profile opens as soon as the server is well.
  app.faults.corrupt = false;
  assert.equal(await failure(async (open, library) => (await open(library)).close()), null);
});

test("another operator's key", async () => {
  await fails("signature_invalid", (open, library) => open(library, { publicKey: "ab".repeat(32) }));
});

test("a device whose ledger is gone or damaged contributes no more, and goes on running", async () => {
  const outcomes = await page.evaluate(async () => {
    const { open } = await import("/client/index.js");
    const input = { data: new Float32Array(784).fill(0.4), shape: [1, 1, 28, 28] };
    const visit = async (work) => {
      const model = await open("/v1/libraries/fashion");
      try {
        const answered = (await model.run(input)).output.length === 10;
        const { reason, contributed } = (await work?.(model)) ?? (await model.contribute());
        const { ledger, history, consent } = model.privacy;
        return {
          answered,
          contributed,
          code: reason?.code ?? null,
          intact: ledger.intact,
          sent: history.length,
          consent,
        };
      } finally {
        await model.close();
      }
    };
    /** Changes what is stored under the key with this end; returns what stood there. */
    const damage = (end, value) =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open("backstitch");
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
          const store = opening.result.transaction("state", "readwrite").objectStore("state");
          store.openCursor().onsuccess = ({ target }) => {
            const cursor = target.result;
            if (!cursor) return opening.result.close();
            if (!String(cursor.key).endsWith(end)) return cursor.continue();
            const before = cursor.value;
            const change = value ? cursor.update(value) : cursor.delete();
            change.onsuccess = () => (opening.result.close(), resolve(before));
          };
        };
      });
    const first = await visit(async (model) => {
      await model.consent(true);
      for (let index = 0; index < 8; index++) await model.learn(input, 7);
      return model.contribute();
    });
    const good = await damage("/ledger", new TextEncoder().encode("[]"));
    const emptied = await visit();
    await damage(
      "/ledger",
      good.map((byte, index) => (index === 40 ? byte ^ 1 : byte)),
    );
    const altered = await visit();
    await damage("/ledger", undefined);
    const missing = await visit();
    await damage("/device", new TextEncoder().encode("{}"));
    const unreadable = await visit();
    return { first, emptied, altered, missing, unreadable };
  });
  const { first, ...closed } = outcomes;
  assert.deepEqual(first, {
    answered: true,
    contributed: true,
    code: null,
    intact: true,
    sent: 1,
    consent: true,
  });
  for (const [how, outcome] of Object.entries(closed)) {
    assert.equal(outcome.code, "ledger_corrupt", `${how}: ${JSON.stringify(outcome)}`);
    assert.deepEqual([outcome.answered, outcome.contributed, outcome.intact], [true, false, false], how);
  }
});

test("a wasm file that is not there, or a page in its place", async () => {
  const error = await fails("wasm_failed", (open, library) => open(library, { wasmUrl: "/nowhere.wasm" }));
  assert.match(error.message, /nowhere\.wasm.*404/);
  assert.match(error.hint, /wasmUrl/);
});

test("a policy that forbids wasm", async () => {
  app.faults.policy = STRICT.replace(" 'wasm-unsafe-eval'", "");
  await page.reload();
  assert.match((await fails("wasm_failed", (open, library) => open(library))).hint, /wasm-unsafe-eval/);
});

test("a policy that forbids workers, and a worker that is not there", async () => {
  assert.match(
    (await fails("worker_failed", (open, library) => open(library, { workerUrl: "/no.js" }))).hint,
    /workerUrl/,
  );
  app.faults.policy = STRICT.replace("worker-src 'self'", "worker-src 'none'");
  await page.reload();
  assert.match((await fails("worker_failed", (open, library) => open(library))).hint, /worker-src/);
});

test("inputs that are none", async () => {
  const run = async (input) => {
    await fails(
      "input_invalid",
      `async (open, library) => {
      const model = await open(library);
      try { await model.run(${input}); } finally { await model.close(); }
    }`,
    );
  };
  await run(`"a red coat"`);
  await run(`{ data: new Float32Array(783), shape: [1, 1, 28, 28] }`);
  await run(`{ data: new Float32Array(100), shape: [1, 1, 10, 10] }`);
  await run(`{ data: new Float32Array(784).fill(NaN), shape: [1, 1, 28, 28] }`);
  await run(`new Blob(["no picture"], { type: "image/png" })`);
});

test("a patch that the library does not have", async () => {
  await fails("patch_unknown", async (open, library) => {
    const model = await open(library);
    try {
      await model.run({ data: new Float32Array(784), shape: [1, 1, 28, 28] }, { patches: ["moustache"] });
    } finally {
      await model.close();
    }
  });
});

test("a cancelled open leaves no worker", async () => {
  const error = await fails("aborted", (open, library) => open(library, { signal: AbortSignal.timeout(1) }));
  assert.equal(error.name, "AbortError");
  await eventually(
    () => page.workers().length,
    (n) => n === 0,
    "the workers to end",
  );
});

test("every call can be cancelled, and the model goes on", async () => {
  const input = `{ data: new Float32Array(784), shape: [1, 1, 28, 28] }`;
  const calls = [
    "run(input, { signal })",
    "learn(input, 1, { signal })",
    "train({ signal })",
    "preview({ signal })",
  ];
  calls.push(
    "contribute({ signal })",
    "consent(false, { signal })",
    "examples({ signal })",
    "refresh({ signal })",
    "forget({ signal })",
  );
  for (const call of calls)
    await fails(
      "aborted",
      `async (open, library) => {
      const model = await open(library);
      const input = ${input};
      const abort = new AbortController();
      const { signal } = abort;
      const pending = model.${call};
      abort.abort();
      try { await pending; } finally {
        if ((await model.run(input)).output.length !== 10) throw new Error("the model is broken");
        await model.close();
      }
    }`,
    );
});

test("a closed model says so, and its worker is gone", async () => {
  await fails("closed", async (open, library) => {
    const model = await open(library);
    await model.close();
    await model.run({ data: new Float32Array(784), shape: [1, 1, 28, 28] });
  });
  await eventually(
    () => page.workers().length,
    (n) => n === 0,
    "the workers to end",
  );
});

test("calls may overlap as they like", async () => {
  const answers = await page.evaluate(async () => {
    const { open } = await import("/client/index.js");
    const model = await open("/v1/libraries/fashion");
    const input = { data: new Float32Array(784).fill(0.5), shape: [1, 1, 28, 28] };
    const [a, , b, , c] = await Promise.all([
      model.run(input),
      model.learn(input, 2),
      model.run(input),
      model.examples(),
      model.run(input),
    ]);
    await model.close();
    return [a, b, c].map(({ output }) => output.join());
  });
  assert.equal(new Set(answers).size, 1);
});
