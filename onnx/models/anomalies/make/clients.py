"""The clients of the library's federated task, and the shared patch that they train: `shared-forecast`.

    python3 make/clients.py --packages DIR      # after train.py; seconds

DIR holds the wheel of aeon 1.6.0. A client is a household appliance with two recordings of its meter, an hour each (ACS-F1:
Gisler and others 2013). The meters send four quantities in turn, which the primary, fitted on heartbeats and sunshine, has never
seen: what it forecasts for them is worse than no forecast. Nobody has labelled anything; what is learnt is how readings go on.
Three of the ten kinds of appliance train nothing: kind 7 chooses settings, kinds 8 and 9 judge.

The patch corrects the forecast, so whatever reads the error, the primary's score or the temporal patch, reads a better one. Its
eight numbers start at zero, so as shipped it changes nothing. The loss is the mean square of the primary's own tensor `residual`,
the error of 1,016 forecasts in each window.
"""

import argparse
import base64
import gzip
import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import graphs
from train import FOLDER, LICENCE, write, write_json

NAME = "shared-forecast"
SOURCE = "PyPI aeon 1.6.0, ACSF1 (Gisler and others 2013, ACS-F1)"
PARTS = ["aeon/datasets/data/ACSF1/ACSF1_TRAIN.ts", "aeon/datasets/data/ACSF1/ACSF1_TEST.ts"]
SCALE = 0.001
TUNING, JUDGING = [7], [8, 9]
STRIDE = 109


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, type=Path)
    options = parser.parse_args()
    made = (FOLDER / "primary.onnx").read_bytes()
    patch = graph(np.zeros(graphs.ORDER)).SerializeToString()
    write(f"patches/{NAME}/patch.onnx", patch)
    write_json(f"patches/{NAME}/patch.json", manifest(made, patch))
    pack(FOLDER / "data/clients.json.gz", {"format": 1, "scale": SCALE, "devices": devices(options.packages)})
    write_json("federated.json", federated())


def recordings(packages):
    """Kind and values of each recording, part by part."""
    wheel = zipfile.ZipFile(next(packages.glob("aeon-1.6.0*.whl")))
    for part in PARTS:
        rows = [line for line in wheel.read(part).decode("utf-8-sig").splitlines() if line and line[0] not in "#@"]
        split = [row.rsplit(":", 1) for row in rows]
        yield [(int(float(kind)), np.array([float(v) for v in values.split(",")])) for values, kind in split]


def devices(packages):
    """Both recordings of each appliance: they stand at the same place of the two parts."""
    found = []
    for (kind, one), (same, other) in zip(*recordings(packages), strict=True):
        assert kind == same
        found.append({"kind": kind, "series": [packed(one), packed(other)]})
    return sorted(found, key=lambda device: device["kind"])


def packed(values):
    """Whole thousandths, as little-endian 16-bit integers."""
    whole = np.rint(values / SCALE)
    assert np.abs(whole).max() < 2**15
    return base64.b64encode(whole.astype("<i2").tobytes()).decode()


def pack(path, value):
    path.write_bytes(gzip.compress(json.dumps(value, separators=(",", ":")).encode(), 9, mtime=0))


def graph(kernel):
    """`normal` [N, 1, 1024] → what is added to `residual` [N, 1, 1016]: a weighted sum of the values before each moment, oldest
    first. The moment itself is not among them: a forecast error could be made small by it without any forecast."""
    info = helper.make_tensor_value_info
    constant = lambda name, array, dtype: numpy_helper.from_array(np.asarray(array, dtype), name)
    nodes = [
        helper.make_node("Slice", ["normal", "first", "newest", "time"], ["past"], name="past"),
        helper.make_node("Conv", ["past", "correction.kernel"], ["dresidual"], name="dresidual", kernel_shape=[graphs.ORDER]),
    ]
    constants = [
        constant("first", [0], np.int64),
        constant("newest", [graphs.WINDOW - 1], np.int64),
        constant("time", [2], np.int64),
        constant("correction.kernel", np.reshape(kernel, (1, 1, -1)), np.float32),
    ]
    made = helper.make_graph(
        nodes,
        NAME,
        [info("normal", TensorProto.FLOAT, ["N", 1, graphs.WINDOW])],
        [info("dresidual", TensorProto.FLOAT, ["N", 1, graphs.WINDOW - graphs.ORDER])],
        constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def manifest(made, patch):
    errors = graphs.WINDOW - graphs.ORDER
    return {
        "format": 1,
        "name": NAME,
        "function": "Learns from many devices how readings like theirs go on, so that only what is new stands out.",
        "primary": "sha256:" + hashlib.sha256(made).hexdigest(),
        "attachments": [
            {"mode": "parallel", "inputs": {"normal": "normal"}, "output": {"dresidual": "residual"}, "scale": 1.0}
        ],
        "trainable": ["correction.kernel"],
        "training": {
            "loss": "mean_squared_error",
            "learning_rate": 0.1,
            "batch": 8,
            "epochs": 2,
            "clip_norm": 0.25,
            "output": "residual",
        },
        "selector": {
            # Readings that jump from one to the next, and come back: all of the kinds that train are so. Heartbeats are not.
            "requires": [{"feature": "series.noise_share", "at_least": 0.8}, {"feature": "series.seasonality", "at_least": 0.5}],
            "gain": {"intercept": 0.02, "weights": {}},
        },
        "io": {
            "inputs": {"normal": {"dtype": "float32", "shape": ["N", 1, graphs.WINDOW]}},
            "outputs": {"dresidual": {"dtype": "float32", "shape": ["N", 1, errors]}},
            "preprocessing": "None: it reads the primary's own tensor.",
        },
        "cost": {"macs": graphs.ORDER * errors, "parameter_bytes": 4 * graphs.ORDER, "download_bytes": len(patch)},
        "licence": LICENCE,
        "provenance": {
            "made_by": "make/clients.py",
            "data": SOURCE,
            "method": "Zeros: as shipped it changes nothing. What private rounds bring is in make/simulated.json.",
        },
    }


def federated():
    return {
        "format": 1,
        "task": NAME,
        "unit": "a household appliance: two recordings of its meter, which sends four quantities in turn; of a kind of its own",
        "clients": {
            "kind": "series",
            "file": "data/clients.json.gz",
            "window": graphs.WINDOW,
            "stride": STRIDE,
            "held_out": TUNING + JUDGING,
            "tuning": TUNING,
        },
    }


if __name__ == "__main__":
    main()
