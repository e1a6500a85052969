"""The clients of the library's federated task, and the shared patch that they train: `clear-view`.

    apt-get download gcompris-qt-data=3.1-2 && dpkg-deb -x gcompris-qt-data_3.1-2_all.deb DIR
    pip install pillow onnx==1.16.2 onnxruntime==1.32.0
    python3 make/clients.py --package DIR      # after convert.py; a minute

A client is a simulated person who looks through a misted, greenish window: what a photograph shows is weakened and a veil of light
lies over it, each in the person's own degree. No registry has photographs with the people who took them, so whose is which is drawn;
the photographs are real, and nobody who trains has one of those that choose settings or judge. `edge/src/population/photographs.rs`
draws people, views and windows.

A photograph's class is what the primary calls it where nothing is before it: the likeliest by the mean over ten views, and
photographs that it calls otherwise in more than two of them are left out. So the figures say how much of its own clear sight the model gets back,
not whether that was right.

The patch scales and shifts the three colours at the model's input. Its six numbers start without effect.
"""

import argparse
import base64
import gzip
import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import gcompris

FOLDER = Path(__file__).resolve().parent.parent
NAME = "clear-view"
OPSET, IR_VERSION = 13, 7
CLASSES = 1000
STORED, SIDE, QUALITY = 256, 224, 82
AGREED = 8  # of ten views
JUDGING, TUNING = 40, 18  # photographs
# Six numbers at this noise need nine clients, as `backstitch privacy forecast` says; the others make six rounds enough.
TASK = {
    "name": NAME,
    "patches": [NAME],
    "goal": 48,
    "clip_norm": 0.2,
    "noise_multiplier": 3.6,
    "max_participations": 8,
    "period_days": 30,
    "min_separation": 1,
    "epsilon": 4.0,
    "delta": 1e-6,
    "server_learning_rate": 1.0,
    "server_momentum": 0.0,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", required=True, type=Path)
    options = parser.parse_args()
    kept = []
    session = onnxruntime.InferenceSession(str(FOLDER / "primary.onnx"), providers=["CPUExecutionProvider"])
    for name, picture in gcompris.photographs(options.package):
        jpeg = stored(picture)
        label, agreed = named(session, np.asarray(Image.open(io.BytesIO(jpeg))))
        if agreed >= AGREED:
            kept.append({"name": name, "label": label, "jpeg": base64.b64encode(jpeg).decode()})
    order = np.random.default_rng(1).permutation(len(kept))
    parts = ["judging"] * JUDGING + ["tuning"] * TUNING + ["training"] * (len(kept) - JUDGING - TUNING)
    for at, part in zip(order, parts):
        kept[at]["part"] = part
    print(Counter(one["part"] for one in kept))
    content = json.dumps({"format": 1, "photographs": kept}, separators=(",", ":")).encode()
    (FOLDER / "data" / "clients.json.gz").write_bytes(gzip.compress(content, 9, mtime=0))
    folder = FOLDER / "patches" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "patch.onnx").write_bytes(graph())
    write_json(folder / "patch.json", manifest((FOLDER / "primary.onnx").read_bytes(), graph()))
    write_json(FOLDER / "federated.json", federated())


def stored(picture):
    """The middle, made smaller."""
    side = min(picture.size)
    x, y = (picture.width - side) // 2, (picture.height - side) // 2
    file = io.BytesIO()
    picture.crop((x, y, x + side, y + side)).resize((STORED, STORED), Image.LANCZOS).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def named(session, pixels):
    """The likeliest class by the mean over ten views, and in how many of them it is that."""
    edge, middle = STORED - SIDE, (STORED - SIDE) // 2
    views = [pixels[y : y + SIDE, x : x + SIDE] for y, x in [(0, 0), (0, edge), (edge, 0), (edge, edge), (middle, middle)]]
    views = np.stack(views + [view[:, ::-1] for view in views]).astype(np.float32).transpose(0, 3, 1, 2)
    logits = session.run(["logits"], {"image": (views - 127) / 128})[0][:, :CLASSES]
    shares = np.exp(logits - logits.max(1, keepdims=True))
    label = int((shares / shares.sum(1, keepdims=True)).mean(0).argmax())
    return label, int((logits.argmax(1) == label).sum())


def graph():
    """`image` [N, 3, 224, 224] → the same, each colour times its gain plus its bias."""
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    nodes = [helper.make_node("Mul", ["image", "gain"], ["scaled"]), helper.make_node("Add", ["scaled", "bias"], ["clear"])]
    constants = [numpy_helper.from_array(np.full((1, 3, 1, 1), v, np.float32), n) for n, v in (("gain", 1), ("bias", 0))]
    made = helper.make_graph(nodes, NAME, [value("image")], [value("clear")], constants)
    model = helper.make_model(made, producer_name="backstitch", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def manifest(primary, patch):
    image = {"dtype": "float32", "shape": ["N", 3, SIDE, SIDE]}
    return {
        "format": 1,
        "name": NAME,
        "function": "Learns from many people how a picture looks through their window, and takes mist and tint away.",
        "primary": "sha256:" + hashlib.sha256(primary).hexdigest(),
        "attachments": [{"mode": "series", "inputs": {"image": "image"}, "output": {"clear": "image"}}],
        "trainable": ["gain", "bias"],
        "training": {
            "loss": "softmax_cross_entropy",
            "learning_rate": 1.0,
            "batch": 4,
            "epochs": 1,
            "clip_norm": TASK["clip_norm"],
            # The last eight are the user's own: what one person calls a thing says nothing of anybody's window.
            "classes": 1000,
        },
        "selector": {
            # Flat, of one colour, and nowhere dark: one in a hundred clear photographs is all of these.
            "requires": [
                {"feature": "image.contrast", "at_most": 0.1},
                {"feature": "image.saturation", "at_least": 0.2},
                {"feature": "image.brightness", "at_least": 0.3},
            ],
            "gain": {"intercept": 0.02, "weights": {}},
        },
        "io": {"inputs": {"image": image}, "outputs": {"clear": image}, "preprocessing": "None: it reads the primary's own input."},
        "cost": {"macs": 3 * SIDE * SIDE, "parameter_bytes": 24, "download_bytes": len(patch)},
        "licence": "MIT OR Apache-2.0",
        "provenance": {
            "made_by": "make/clients.py",
            "data": f"Debian {gcompris.PACKAGE}, photographs by those named in make/credits.tsv",
            "method": "Gain 1 and bias 0: as shipped it changes nothing. What private rounds bring is in make/simulated.json.",
        },
    }


def federated():
    return {
        "format": 1,
        "task": NAME,
        "unit": "a simulated person with five views of real photographs through a misted, greenish window of their own, one in eight of them clear",
        "clients": {
            "kind": "photographs",
            "file": "data/clients.json.gz",
            "people": {"training": 256, "tuning": 24, "judging": 40},
            "pictures": 5,
            "side": SIDE,
            "window": {"gain": [0.22, 0.32, 0.28], "gain_spread": 0.15, "veil": [70, 115, 100], "veil_spread": 8, "clear": 0.125},
        },
    }


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
