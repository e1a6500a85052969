"""The clients of the library's federated task, and the shared patch that they train: `turned-watch`.

    python3 make/clients.py --packages DIR      # after train.py; half a minute

Ten people are too few for an honest cohort, so a client is a session: one eighth of the recordings of one arm of one person.
People are still left out whole: the sessions of people 9 and 10, whom the primary has not seen either, are held out. Settings
are chosen on person 9 (`federated.json`, `../tune.py`), person 10 judges; `left_out.py` lets each of the others judge too. In each
session the watch sits turned about the forearm by an angle of its own; `federated.json` says how far. What a session is and
how it is turned is done where the file is read, so that `data/clients.json.gz` holds the recordings as they are.

The patch reads the primary's last hidden layer: a frozen projection onto its 16 strongest directions, then a trainable layer
that starts at zero, 119 numbers. So few let a round of 40 clients be more than noise
at ε = 4 over eight rounds each.
"""

import argparse
import base64
import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import dataset
import primary
from train import FOLDER, LICENCE, NEW_PEOPLE, SOURCE, write, write_json

RANK = 16


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, type=Path)
    options = parser.parse_args()
    found, _ = dataset.recordings(options.packages)
    made = (FOLDER / "primary.onnx").read_bytes()
    held = {i.name: numpy_helper.to_array(i) for i in onnx.load_from_string(made).graph.initializer}
    names = ["features.shift", "features.scale", "hidden.weight", "hidden.bias", "head.weight", "head.bias"]
    model = primary.Primary(*[held[name] for name in names])
    patch, project = fitted(model, [r for r in found if r.person not in NEW_PEOPLE])
    write("patches/turned-watch/patch.onnx", patch)
    write_json("patches/turned-watch/patch.json", manifest(made, project, patch))
    pack(FOLDER / "data/clients.json.gz", clients(found))


def pack(path, value):
    path.write_bytes(gzip.compress(json.dumps(value, separators=(",", ":")).encode(), 9, mtime=0))


def fitted(model, known):
    """The patch for a primary, from the recordings that it knows; and its projection."""
    hidden = np.maximum(model.features(dataset.table(known, 64)[0]) @ model.w1 + model.b1, 0)
    shift, project = directions(hidden)
    return graph(shift, project).SerializeToString(), project


def directions(hidden):
    """Mean and projection [96, RANK] onto the strongest directions of the hidden layer, each with unit variance."""
    mean = hidden.mean(0)
    values, vectors = np.linalg.eigh(np.cov((hidden - mean).T))
    values, vectors = values[::-1][:RANK], vectors[:, ::-1][:, :RANK]
    # The sign of an eigenvector is nobody's choice; the largest entry shall be positive.
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(RANK)])
    return mean, vectors / np.sqrt(values)


def clients(found, held_out=NEW_PEOPLE):
    """All recordings as whole thousandths of the watch's units."""
    each = [
        {
            "person": r.person,
            "arm": r.arm,
            "label": r.label,
            "values": base64.b64encode(np.rint(r.values * 1000).astype("<i2").tobytes()).decode(),
        }
        for r in sorted(found, key=lambda r: (r.person, r.arm, r.label))
    ]
    return {"format": 1, "channels": len(dataset.CHANNELS), "scale": 0.001, "held_out": held_out, "recordings": each}


def graph(shift, project):
    constant = lambda name, array: numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name)
    nodes = [
        helper.make_node("Sub", ["h", "centre"], ["centred"], name="centred"),
        helper.make_node("MatMul", ["centred", "directions"], ["strongest"], name="strongest"),
        helper.make_node("Gemm", ["strongest", "bridge.weight", "bridge.bias"], ["dlogits"], name="dlogits"),
    ]
    constants = [
        constant("centre", shift),
        constant("directions", project),
        constant("bridge.weight", np.zeros((RANK, primary.CLASSES))),
        constant("bridge.bias", np.zeros(primary.CLASSES)),
    ]
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "turned-watch",
        [info("h", TensorProto.FLOAT, ["N", len(shift)])],
        [info("dlogits", TensorProto.FLOAT, ["N", primary.CLASSES])],
        constants,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def manifest(made, project, patch):
    width = len(project)
    return {
        "format": 1,
        "name": "turned-watch",
        "function": "Learns from many people's sessions how a watch reads that sits turned about the forearm.",
        "primary": "sha256:" + hashlib.sha256(made).hexdigest(),
        "attachments": [
            {"mode": "parallel", "inputs": {"h": "hidden.positive"}, "output": {"dlogits": "logits"}, "scale": 1.0}
        ],
        "trainable": ["bridge.weight", "bridge.bias"],
        "training": {"loss": "softmax_cross_entropy", "learning_rate": 1.0, "batch": 16, "epochs": 2, "clip_norm": 1.0},
        "selector": {"requires": [], "gain": {"intercept": 0.02, "weights": {}}},
        "io": {
            "inputs": {"h": {"dtype": "float32", "shape": ["N", width]}},
            "outputs": {"dlogits": {"dtype": "float32", "shape": ["N", primary.CLASSES]}},
            "preprocessing": "None: it reads the primary's own hidden layer.",
        },
        "cost": {
            "macs": width * RANK + RANK * primary.CLASSES,
            "parameter_bytes": 4 * (width + width * RANK + RANK * primary.CLASSES + primary.CLASSES),
            "download_bytes": len(patch),
        },
        "licence": LICENCE,
        "provenance": {
            "made_by": "make/clients.py",
            "data": SOURCE,
            "method": "The frozen projection takes the strongest directions of the primary's hidden layer over eight people; the"
            " trainable layer starts at zero, so the patch as shipped changes nothing. What private rounds bring is in"
            " make/simulated.json.",
        },
    }


if __name__ == "__main__":
    main()
