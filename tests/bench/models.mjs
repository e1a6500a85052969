// Which models are measured, and against which files of the same model onnxruntime-web runs.

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";

const here = (path) => new URL(path, import.meta.url).pathname;
const MODELS = here("../../onnx/models/");
const FASHION = `${MODELS}fashion/`;

/** The noise filter as the library ships it is frozen; here its convolutions can be trained. */
export async function writeTrainableFilter(folder) {
  const manifest = JSON.parse(await readFile(`${FASHION}patches/noise-reduction/patch.json`, "utf8"));
  manifest.trainable = [1, 2, 3].flatMap((layer) => [`conv${layer}.weight`, `conv${layer}.bias`]);
  manifest.training = {
    loss: "softmax_cross_entropy",
    learning_rate: 1e-4,
    batch: 16,
    epochs: 1,
    clip_norm: 1,
  };
  const patch = join(folder, "patches/noise-reduction");
  await mkdir(patch, { recursive: true });
  await writeFile(join(patch, "patch.json"), JSON.stringify(manifest));
}

/** The sample library of this repository. */
export async function fashion() {
  const { primary } = JSON.parse(await readFile(`${FASHION}library.json`, "utf8"));
  const names = await readdir(`${FASHION}patches`);
  return {
    primary: "/fashion/primary.onnx",
    input: "image",
    output: "logits",
    shape: [1, 1, 28, 28],
    sites: ["image", "stem.pooled", "block2", "features", "logits"],
    preprocessing: primary?.preprocessing ?? { width: 28, height: 28, channels: 1 },
    patches: names.sort().map((name) => ({
      name,
      manifest: `/${name === "noise-reduction" ? "bench" : "fashion"}/patches/${name}/patch.json`,
      graph: `/fashion/patches/${name}/patch.onnx`,
    })),
    trainings: [
      {
        name: "personal-style",
        border: "features",
        layers: "bridge",
        what: "32 × 10 bridge beside the head, everything before it frozen",
      },
      {
        name: "noise-reduction",
        border: "image",
        layers: "filter",
        what: "three convolutions at the image, through the whole network",
      },
    ],
  };
}

/** Sets of patches that people run, by library: shapes are those of the model's input. */
const SETS = {
  fashion: {
    shape: [1, 1, 28, 28],
    sets: [["noise-reduction"], ["noise-reduction", "sharpening"], ["noise-reduction", "personal-style"]],
  },
  photos: { shape: [1, 3, 224, 224], sets: [["my-things"]] },
  sentiment: { shape: [1, 64], integers: true, sets: [["films"], ["tweets"]] },
};

/** Those sets, with every site of their library cut, as a page has it. */
export async function stitchedSets() {
  const read = async (path) => JSON.parse(await readFile(`${MODELS}${path}`, "utf8"));
  const found = [];
  for (const [library, { sets, ...shape }] of Object.entries(SETS)) {
    const { primary } = await read(`${library}/library.json`);
    const manifests = {};
    for (const patch of await readdir(`${MODELS}${library}/patches`))
      manifests[patch] = await read(`${library}/patches/${patch}/patch.json`);
    const sites = Object.values(manifests).flatMap(({ attachments }) =>
      attachments.flatMap(({ inputs, output }) => [...Object.values(inputs), ...Object.values(output)]),
    );
    for (const set of sets)
      found.push({
        name: library,
        set: set.join(" + "),
        primary: `/library/${library}/${primary.file}`,
        input: primary.input,
        output: primary.output,
        sites: [...new Set([...sites, ...(primary.probes ?? []).map(({ site }) => site)])],
        ...shape,
        patches: set.map((patch) => ({
          manifest: `/library/${library}/patches/${patch}/patch.json`,
          graph: `/library/${library}/patches/${patch}/patch.onnx`,
        })),
      });
  }
  return found;
}

/** The shape of one input of a library's model, from what is done with an input before the model reads it. */
function inputOf({ input, preprocessing: { width, height, channels, window, max_tokens } }) {
  if (max_tokens) return { [input]: { shape: [1, max_tokens], kind: "tokens" } };
  const shape = window ? [1, channels, window] : [1, channels, height, width];
  return { [input]: { shape, kind: "picture" } };
}

/** Every primary of this repository: what its users run. */
async function shipped() {
  const libraries = (await readdir(MODELS, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const read = async ({ name }) => {
    const { title, primary } = JSON.parse(await readFile(`${MODELS}${name}/library.json`, "utf8"));
    const file = `/library/${name}/${primary.file}`;
    const inputs = inputOf(primary);
    const size = Object.values(inputs)[0].shape.slice(1).join(" × ");
    return {
      name: `${name} (${title}), ${size}`,
      shipped: true,
      ours: file,
      theirs: { "same file": file },
      inputs,
      output: primary.output,
    };
  };
  return Promise.all(libraries.sort((a, b) => (a.name < b.name ? -1 : 1)).map(read));
}

const tokens = (length) => ({
  input_ids: { shape: [1, length], kind: "tokens" },
  attention_mask: { shape: [1, length], kind: "ones" },
});

/** Models that are too large for the repository, where the folder has them. */
const LARGE = [
  {
    file: "efficientnet-lite0.onnx",
    name: "EfficientNet-Lite0, 224 × 224",
    theirs: { "same file": "efficientnet-lite0.onnx", int8: "efficientnet-lite0-int8.onnx" },
    inputs: { image: { shape: [1, 3, 224, 224], kind: "picture" } },
    output: "logits",
  },
  ...[
    ["minilm-l6-v2-int8.onnx", "dynamic int8"],
    ["minilm-l6-v2-w8.onnx", "int8 weights, computes in float32"],
  ].flatMap(([file, form]) =>
    [32, 128].map((length) => ({
      file,
      name: `MiniLM-L6, ${form}, ${length} tokens`,
      theirs: {
        "dynamic int8 file": "minilm-l6-v2-int8.onnx",
        "float32 file": "minilm-l6-v2-f32.onnx",
        "int8 weights file": "minilm-l6-v2-w8.onnx",
      },
      inputs: tokens(length),
      output: "embedding",
    })),
  ),
];

export async function models(folder, say) {
  const there = new Set(folder ? await readdir(folder) : []);
  const large = LARGE.filter(({ file, name }) => {
    if (!there.has(file)) say(`${name} is left out: ${file} is not in --models ${folder ?? "(not given)"}`);
    return there.has(file);
  });
  const address = (file) => `/models/${file}`;
  const inference = large.map(({ file, theirs, ...rest }) => ({
    ...rest,
    ours: address(file),
    theirs: Object.fromEntries(
      Object.entries(theirs)
        .filter(([, file]) => there.has(file))
        .map(([label, file]) => [label, address(file)]),
    ),
  }));
  const cut = [
    {
      name: "fashion",
      primary: "/fashion/primary.onnx",
      input: "image",
      output: "logits",
      shape: [1, 1, 28, 28],
      sites: ["stem.pooled", "block1.pooled", "block2", "features"],
    },
  ];
  if (there.has("efficientnet-lite0.onnx"))
    cut.push({
      name: "EfficientNet-Lite0",
      primary: address("efficientnet-lite0.onnx"),
      input: "image",
      output: "logits",
      shape: [1, 3, 224, 224],
      sites: ["b2_add_10", "b4_add_17", "b7_add_28", "b13_add_50"],
    });
  return {
    inference: [...(await shipped()), ...inference],
    segments: cut,
    folders: {
      "/ort/": here("node_modules/onnxruntime-web/dist/"),
      "/tfjs/": here("node_modules/@tensorflow/tfjs-backend-wasm/dist/"),
      "/fashion/": FASHION,
      "/library/": MODELS,
      "/bench/": here("dist/"),
      ...(folder && { "/models/": `${resolve(folder)}/` }),
    },
  };
}
