// Writes docs/BENCHMARKS.md from the figures.

import { BAR_BYTES } from "./sizes.mjs";

const ms = (value) => (value >= 10 ? value.toFixed(1) : value >= 0.1 ? value.toFixed(2) : value.toFixed(4));
const timed = ({ median_ms, p95_ms }) => `${ms(median_ms)} (${ms(p95_ms)})`;
const mb = (bytes) => (bytes / 1e6).toFixed(2);
const times = (ratio) => (ratio >= 100 ? `${Math.round(ratio)} ×` : `${ratio.toFixed(2)} ×`);
const verdict = (met) => (met ? "met" : "**missed**");

const table = (head, rows) =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

/** The fastest file that the other runtime can run of a model is what we compare with. */
function strongest({ times, ratios }) {
  const others = Object.keys(ratios);
  return others.reduce((a, b) => (times[a].median_ms <= times[b].median_ms ? a : b));
}

function inference(list) {
  const rows = list.map((model) => {
    const best = strongest(model);
    const files = Object.keys(model.ratios)
      .map((label) => `${label}: ${timed(model.times[label])}`)
      .join("<br>");
    const apart = Object.entries(model.differences)
      .map(([label, value]) => `${label}: ${value.toExponential(1)}`)
      .join("<br>");
    const ratio = model.ratios[best];
    return [
      model.name,
      timed(model.times.ours),
      files,
      `${ratio.toFixed(2)} (${best})`,
      model.shipped ? verdict(ratio <= 1) : "",
      apart,
    ];
  });
  return `## Inference

The models that this repository ships, and some that it does not: \`tests/bench/README.md\` says how to get those. Bar for
what is shipped: ratio ≤ 1.0 against the fastest file of the same model that onnxruntime-web runs. *Difference*: the
greatest between the two answers, relative to the largest number in them. Where levels are chosen at run time
(dynamic int8), one rounding may go the other way, and the difference is then that of a whole level.

${table(["model", "ours, ms", "onnxruntime-web, ms", "ratio", "bar", "difference"], rows)}`;
}

function segments(list) {
  const rows = list.map(({ name, sites, times: t, ratios }) => [
    name,
    sites.length,
    timed(t.segments),
    timed(t.whole),
    ratios.whole.toFixed(3),
    verdict(ratios.whole <= 1.03),
  ]);
  return `## In segments, without a patch, against the uncut model

Bar: ratio ≤ 1.03 with 4 sites.

${table(["model", "sites", "segments, ms", "uncut, ms", "ratio", "bar"], rows)}`;
}

function fused(list) {
  const rows = list.map(({ name, set, times: t, ratios, compile_ms }) => [
    `${name}: ${set}`,
    timed(t.segments),
    timed(t.fused),
    ratios.fused.toFixed(3),
    compile_ms.toFixed(1),
  ]);
  return `## Stitched sets in segments, against the same set compiled as one model

What fusing a combination that recurs could save, and what compiling it takes. Segments switch without compiling.

${table(["library: patches", "segments, ms", "one model, ms", "ratio", "compiling it, ms"], rows)}`;
}

function library({ switching, newWeights, newPatch, choosing, choosingAmong }) {
  const session = switching.times["onnxruntime-web, a new session"];
  const rows = [
    [
      "switching the selected patches",
      timed(switching.times.ours),
      "≤ 1 ms",
      verdict(switching.times.ours.median_ms <= 1),
    ],
    [
      "onnxruntime-web instead: a new session of the stitched file",
      timed(session),
      `${times(session.median_ms / switching.times.ours.median_ms)} ours`,
      "",
    ],
  ];
  for (const [name, time] of Object.entries(newWeights.times))
    rows.push([`new weights into \`${name}\``, timed(time), "≤ 0.2 ms", verdict(time.median_ms <= 0.2)]);
  for (const [name, time] of Object.entries(newPatch.times))
    rows.push([
      `\`${name}\` from its bytes until it can run`,
      timed(time),
      "≤ 50 ms",
      verdict(time.median_ms <= 50),
    ]);
  const choose = choosing.times["analysis and selection"];
  const primary = choosing.times["the primary alone"];
  const share = choose.median_ms / primary.median_ms;
  rows.push(
    [
      `analysis and selection: ${(100 * share).toFixed(1)} % of the primary`,
      timed(choose),
      "≤ 5 % or ≤ 1 ms",
      verdict(choose.median_ms <= 1 || share <= 0.05),
    ],
    ...Object.entries(choosingAmong?.times ?? {}).map(([what, time]) => [
      `selection among ${what} under a tight limit`,
      timed(time),
      "≤ 0.2 ms",
      verdict(time.median_ms <= 0.2),
    ]),
    ["the primary alone", timed(primary), "", ""],
    ["the primary with every patch", timed(choosing.times["the primary with all patches"]), "", ""],
  );
  return `## Stitching (fashion library)

New weights are taken in without hashing them: their identity is made once, with the first answer that names it (0.5 ms
for the 277 kB of \`rotation\`).

${table(["what", "ms", "bar", ""], rows)}`;
}

function training(list) {
  const rows = list.map(({ name, what, times: t, ratios, refused }) => {
    const other = Object.keys(ratios).find((label) => label.startsWith("TensorFlow.js"));
    const [forward, faster] = [ratios["our forward"], 1 / ratios[other]];
    const note = refused.length ? ` (its faster backend cannot: ${refused.join("; ")})` : "";
    return [
      `\`${name}\`: ${what}`,
      timed(t["our step"]),
      `${timed(t["our forward"])}: ${times(forward)}`,
      verdict(forward <= 3),
      `${other}${note} ${timed(t[other])}: ${times(faster)} slower`,
      verdict(faster >= 3),
    ];
  });
  return `## A training step, batch 16

Bars: at most 3 × the forward of the same layers at the same batch; at least 3 × faster than TensorFlow.js on the
same layers, on its fastest CPU backend that has their gradients.

${table(["patch", "step, ms", "forward, ms", "bar", "TensorFlow.js, ms", "bar"], rows)}`;
}

const GOAL_MB = 1.6;

function sizes(files) {
  const rows = Object.entries(files).map(([name, { raw, gzip, brotli }]) => {
    const bar = name.startsWith("ours") ? verdict(brotli <= BAR_BYTES) : "";
    return [name, mb(raw), mb(gzip), mb(brotli), bar];
  });
  return `## Size of the WebAssembly module

Bar: ≤ ${BAR_BYTES / 1e6} MB brotli, with gradients; goal ≤ ${GOAL_MB} MB. A page downloads one of ours.

${table(["file", "raw, MB", "gzip, MB", "brotli, MB", "bar"], rows)}`;
}

function start({ cold, warm, downloaded_bytes, times: n }) {
  const rows = [
    [`cold, ${mb(downloaded_bytes)} MB`, timed(cold), "≤ 5,000 ms", verdict(cold.median_ms <= 5000)],
    ["warm", timed(warm), "≤ 400 ms", verdict(warm.median_ms <= 400)],
  ];
  return `## The demo page, until its first answer

A line of 10 Mbit/s with 40 ms round trips, ${n} fresh profiles; the server shares the machine with the browser.

${table(["start", "ms", "bar", ""], rows)}`;
}

function memory({ count, runs_bytes, switches_bytes }) {
  const grown = runs_bytes + switches_bytes;
  const rows = [
    [`${count} runs`, mb(runs_bytes)],
    [`${count} switches of patches, each with a run`, mb(switches_bytes)],
  ];
  return `## Growth of memory

Bar: ≤ 2 MB over both: ${verdict(grown <= 2e6)}.

${table(["what", "growth, MB"], rows)}`;
}

function server({ round, reads, sum_bytes_per_s }) {
  const rows = [
    [
      `${round.contributions} contributions of ${round.parameters} numbers (${mb(round.frame_bytes)} MB each), from the first until the result is in the catalog`,
      `${round.cpu_s.toFixed(2)} s of the server's CPU, ${round.published_s.toFixed(2)} s in all`,
      "< 2 s",
      verdict(round.cpu_s < 2),
    ],
    [
      "memory at its peak, after a tenth of them and after all",
      `${mb(round.peak_bytes_after_a_tenth)} MB, ${mb(round.peak_bytes)} MB`,
      "does not grow",
      verdict(round.peak_bytes <= 1.1 * round.peak_bytes_after_a_tenth),
    ],
    [
      "one core adds frames to a sum",
      `${(sum_bytes_per_s / 1e9).toFixed(2)} GB/s`,
      "≥ 1 GB/s",
      verdict(sum_bytes_per_s >= 1e9),
    ],
    [
      "tokens for them, each with a new profile",
      `${((1e3 * round.tokens_cpu_s) / round.contributions).toFixed(2)} ms of CPU each`,
    ],
    ...reads.map(({ what, bytes, requests_per_s, p50_ms, p99_ms }) => {
      const rate = `${Math.round(requests_per_s)} requests/s, ${mb(requests_per_s * bytes)} MB/s`;
      const measured = `${rate}; ${ms(p50_ms)} ms, 99th percentile ${ms(p99_ms)} ms`;
      const read = `reads of ${what}, ${bytes} bytes, while a round runs`;
      // What is large is limited by its bytes, not by requests.
      if (bytes > 1e5) return [read, measured];
      const met = requests_per_s >= 5000 && p99_ms <= 20;
      return [read, measured, "≥ 5,000 requests/s, ≤ 20 ms", verdict(met)];
    }),
  ];
  return `## The server

Over real sockets with SQLite and files on a disk, 8 connections; the load shares the machine with the server.

${table(
  ["what", "measured", "bar", ""],
  rows.map((row) => [...row, "", ""].slice(0, 4)),
)}`;
}

const SECTIONS = { inference, segments, fused, library, training, sizes, start, memory, server };

/** Parts that were not measured with the others; a machine that is shared is not as fast every day. */
function otherDays({ machine, days }) {
  const others = Object.entries(days).filter(([, day]) => day !== machine.date);
  if (!others.length) return "";
  const list = others.map(([part, day]) => `${part} (${day})`).join(", ");
  return `\nNot of that day, so that their times compare only among themselves: ${list}.\n`;
}

export function report(figures) {
  const { machine: m } = figures;
  const sections = Object.entries(SECTIONS)
    .filter(([name]) => figures[name])
    .map(([name, write]) => write(figures[name]));
  return `# Benchmarks

Generated by \`just bench\` (\`tests/bench\`); run it to have the figures of your own machine.

${m.cpu}, ${m.cores} cores, ${m.memory_gb} GB, ${m.date}. ${m.browser}; ours on tract ${m.tract},
onnxruntime-web ${m.onnxruntime_web} (wasm, 1 thread), TensorFlow.js ${m.tensorflow_js}. All in one worker of one page,
warm, in turns, so that whatever else the machine does slows all alike; a ratio is the median of the ratios of
neighbouring runs. Times are medians, with the 95th percentile in parentheses.
${otherDays(figures)}
${sections.join("\n\n")}
`;
}
