// What stitching costs: segments, switching, new weights, a new patch, analysis and selection, memory.

import { Stitching, Uncut } from "../wasm/bench.js";
import { ortSession } from "./inference.js";
import { compare, difference, numbers, quantile } from "./timing.js";

const bytes = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());

/** Segments against the whole, without a patch. */
export async function segments({ name, primary, input, shape, output, sites }, options) {
  const file = await bytes(primary);
  const values = numbers(shape.reduce((product, size) => product * size, 1));
  const whole = new Uncut(file);
  whole.only(output);
  whole.feed_f32(input, Uint32Array.from(shape), values);
  whole.compile();
  const cut = new Stitching(file, input, output, sites);
  cut.feed(values);
  const [a, b] = [whole.run(), cut.run(0)];
  if (a.some((value, i) => Math.abs(value - b[i]) > 1e-4))
    throw new Error(`${name}: segments answer otherwise`);
  const result = await compare({ segments: () => cut.run(0), whole: () => whole.run() }, options);
  cut.free();
  whole.free();
  return { name, sites, ...result };
}

/** A stitched set in segments, against the same set as one model: what fusing a hot combination could save. */
export async function fused({ name, set, input, shape, integers, ...rest }, options) {
  const { stitching } = await openLibrary({ ...rest, input });
  const count = shape.reduce((product, size) => product * size, 1);
  const values = numbers(count).map((value) => (integers ? Math.floor(1000 + 20_000 * value) : value));
  stitching.feed(values);
  const bits = 2 ** rest.patches.length - 1;
  const whole = new Uncut(stitching.stitched(bits));
  whole.only(rest.output);
  const dims = Uint32Array.from(shape);
  if (integers)
    whole.feed_i64(
      input,
      dims,
      BigInt64Array.from(values, (value) => BigInt(value)),
    );
  else whole.feed_f32(input, dims, values);
  const began = performance.now();
  whole.compile();
  const compile_ms = performance.now() - began;
  const apart = difference([...stitching.run(bits)], [...whole.run()]);
  if (!(apart <= 1e-4)) throw new Error(`${name}, ${set}: the fused model answers otherwise, by ${apart}`);
  const works = { segments: () => stitching.run(bits), fused: () => whole.run() };
  const result = await compare(works, options);
  stitching.free();
  whole.free();
  return { name, set, compile_ms, difference: apart, ...result };
}

export async function openLibrary({ primary, input, output, sites, patches }) {
  const stitching = new Stitching(await bytes(primary), input, output, sites);
  const files = [];
  for (const { manifest, graph } of patches) {
    const parts = [await bytes(manifest), await bytes(graph)];
    files.push(parts);
    stitching.add(...parts);
  }
  return { stitching, files };
}

async function switching(stitching, sets, options) {
  const models = Array.from({ length: sets }, (_, set) => stitching.stitched(set));
  let turn = 0;
  return compare(
    {
      ours: { run: () => stitching.switches(200), repeats: 200 },
      async "onnxruntime-web, a new session"() {
        const session = await ortSession(models[turn++ % sets]);
        await session.release();
      },
    },
    options,
  );
}

/** Everything about one library. */
export async function library(config, options) {
  const { stitching, files } = await openLibrary(config);
  const values = numbers(config.shape.reduce((product, size) => product * size, 1));
  stitching.feed(values);
  const sets = 1 << files.length;
  const timed = { switching: await switching(stitching, sets, options) };
  timed.newWeights = await compare(
    Object.fromEntries(
      config.patches.map(({ name }, i) => [name, { run: () => stitching.new_weights(i, 20), repeats: 20 }]),
    ),
    options,
  );
  timed.newPatch = await compare(
    Object.fromEntries(config.patches.map(({ name }, i) => [name, () => stitching.try_out(...files[i])])),
    options,
  );
  const preprocessing = JSON.stringify(config.preprocessing);
  timed.choosing = await compare(
    {
      "analysis and selection": { run: () => stitching.choose(preprocessing, values, 20), repeats: 20 },
      "the primary alone": () => stitching.run(0),
      "the primary with all patches": () => stitching.run(sets - 1),
    },
    options,
  );
  timed.choosingAmong = await compare(
    { "24 candidates": { run: () => stitching.choose_among(24, 20), repeats: 20 } },
    options,
  );
  stitching.free();
  return timed;
}

/** Growth of the module's memory over many runs and many switches. */
export async function memory(config, memoryBytes, count = 1000) {
  const { stitching, files } = await openLibrary(config);
  const values = numbers(config.shape.reduce((product, size) => product * size, 1));
  const sets = 1 << files.length;
  const cycle = (times, set) => {
    const ms = [];
    for (let i = 0; i < times; i++) {
      const began = performance.now();
      stitching.feed(values);
      stitching.run(set(i));
      ms.push(performance.now() - began);
    }
    return quantile(ms, 0.5);
  };
  cycle(2 * sets, (i) => i % sets);
  const before = memoryBytes();
  cycle(count, () => 0);
  const afterRuns = memoryBytes();
  cycle(count, (i) => i % sets);
  const afterSwitches = memoryBytes();
  stitching.free();
  return { count, runs_bytes: afterRuns - before, switches_bytes: afterSwitches - afterRuns };
}
