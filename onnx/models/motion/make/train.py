"""Makes the whole sample library `motion` in the folder above: models, manifests, samples, golden answers, results.

    python3 make/train.py --packages DIR

DIR holds seglearn-1.2.5-py3-none-any.whl. About five minutes on one core.
"""

import argparse
import base64
import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import dataset
import personal
import primary

FOLDER = Path(__file__).resolve().parent.parent
# The shipped primary has never seen these two.
NEW_PEOPLE = [9, 10]
RATE, BATCH, EPOCHS, FLOOR = 0.1, 16, 30, 1e-4
LICENCE = "MIT OR Apache-2.0"
SOURCE = "PyPI seglearn 1.2.5, watch_dataset (Burns, Whyne 2018)"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, type=Path)
    options = parser.parse_args()
    found, labels = dataset.recordings(options.packages)
    results = [leave_out(found, person) for person in sorted({r.person for r in found})]
    known = [r for r in found if r.person not in NEW_PEOPLE]
    model = primary.fit(*dataset.table(known))
    whitening = personal.whitening(model.features(dataset.table(known)[0]), FLOOR)
    made = primary.graph(model).SerializeToString()
    patch = patch_graph(*whitening).SerializeToString()
    write("primary.onnx", made)
    write("patches/personal/patch.onnx", patch)
    write_json("patches/personal/patch.json", manifest(made, whitening, rows(results), patch))
    write_json("library.json", library(labels))
    write_json("make/results.json", summary(results))
    write_json("data/samples.json", samples([r for r in found if r.person in NEW_PEOPLE], labels))
    write_json("golden/forward.json", golden(made, found))
    print(json.dumps(summary(results), indent=1))


def write(path, data):
    (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
    (FOLDER / path).write_bytes(data)


def write_json(path, value):
    write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def leave_out(found, person):
    """The right and wrong answers of a primary that never saw this person, without and with a personal patch."""
    others, own = [r for r in found if r.person != person], [r for r in found if r.person == person]
    model = primary.fit(*dataset.table(others, 64), seed=person)
    whiten = personal.whitening(model.features(dataset.table(others, 64)[0]), FLOOR)
    halves = judged(model, whiten, dataset.table(own, part=0), dataset.table(own, 64, part=1))
    arms = [
        judged(model, whiten, dataset.table(arm(own, a)), dataset.table(arm(own, 1 - a), 64))
        for a in (0, 1)
        if arm(own, a) and arm(own, 1 - a)
    ]
    print(person, *[round(float(x.mean()), 3) for x in halves], flush=True)
    other_arm = tuple(np.concatenate(side) for side in zip(*arms)) if arms else None
    return {"person": person, "halves": halves, "other_arm": other_arm}


def arm(found, side):
    return [r for r in found if r.arm == side]


def judged(model, whiten, learn, test):
    """Which test windows are right without and with a patch that was trained on `learn`."""
    shift, project = whiten
    features, answers = model.features(learn[0]), learn[1]
    order = np.random.default_rng(1).permutation(len(answers))
    features, answers = features[order], answers[order]
    weight, bias = personal.train(
        (features - shift) @ project, model.logits(features), answers, RATE, BATCH, EPOCHS
    )
    features = model.features(test[0])
    base = model.logits(features)
    patched = base + (features - shift) @ project @ weight + bias
    return base.argmax(1) == test[1], patched.argmax(1) == test[1]


def rows(results):
    pairs = {
        "a new person: second halves, trained on the first halves": [r["halves"] for r in results],
        "a new person: the other arm, trained on one arm": [r["other_arm"] for r in results if r["other_arm"]],
    }
    return [row(name, parts) for name, parts in pairs.items()]


def row(name, parts):
    """Means over people; the interval resamples people, and windows within them."""
    draws = np.random.default_rng(0)
    gains = [patched.astype(float) - base.astype(float) for base, patched in parts]
    again = []
    for _ in range(2000):
        people = draws.integers(len(gains), size=len(gains))
        again.append(np.mean([draws.choice(gains[p], len(gains[p])).mean() for p in people]))
    mean = lambda side: round(float(np.mean([part[side].mean() for part in parts])), 4)
    return {
        "data": SOURCE + f", ten-fold: each of {len(parts)} people left out once, mean over people",
        "slice": name,
        "metric": "accuracy",
        "base": mean(0),
        "patched": mean(1),
        "n": int(sum(len(g) for g in gains)),
        "ci95": [round(float(q), 4) for q in np.quantile(again, [0.025, 0.975])],
    }


def summary(results):
    person = lambda r: {
        "person": r["person"],
        "halves": [round(float(side.mean()), 4) for side in r["halves"]],
        "other_arm": [round(float(side.mean()), 4) for side in r["other_arm"]] if r["other_arm"] else None,
        "windows": len(r["halves"][0]),
    }
    return {
        "what": "accuracy without and with the personal patch, of a primary trained on the nine other people",
        "people": [person(r) for r in results],
        "means": rows(results),
    }


def patch_graph(shift, project):
    size = project.shape[1]
    constant = lambda name, array: numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name)
    nodes = [
        helper.make_node("Sub", ["h", "centre"], ["centred"], name="centred"),
        helper.make_node("MatMul", ["centred", "whitening"], ["white"], name="white"),
        helper.make_node("Gemm", ["white", "bridge.weight", "bridge.bias"], ["dlogits"], name="dlogits"),
    ]
    constants = [
        constant("centre", shift),
        constant("whitening", project),
        constant("bridge.weight", np.zeros((size, primary.CLASSES))),
        constant("bridge.bias", np.zeros(primary.CLASSES)),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "personal",
        [info("h", TensorProto.FLOAT, ["N", len(shift)])],
        [info("dlogits", TensorProto.FLOAT, ["N", primary.CLASSES])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def manifest(made, whitening, performance, patch):
    shift, project = whitening
    size, width = project.shape[1], len(shift)
    numbers = width + project.size + size * primary.CLASSES + primary.CLASSES
    return {
        "format": 1,
        "name": "personal",
        "function": "Learns how one person moves and wears the watch.",
        "primary": "sha256:" + hashlib.sha256(made).hexdigest(),
        "attachments": [
            {"mode": "parallel", "inputs": {"h": "features"}, "output": {"dlogits": "logits"}, "scale": 1.0}
        ],
        "trainable": ["bridge.weight", "bridge.bias"],
        "training": {
            "loss": "softmax_cross_entropy",
            "learning_rate": RATE,
            "batch": BATCH,
            "epochs": EPOCHS,
            "clip_norm": 1.0,
        },
        "selector": {"requires": [], "gain": {"intercept": 0.05, "weights": {}}},
        "io": {
            "inputs": {"h": {"dtype": "float32", "shape": ["N", width]}},
            "outputs": {"dlogits": {"dtype": "float32", "shape": ["N", primary.CLASSES]}},
            "preprocessing": "None: it reads the primary's own features.",
        },
        "performance": performance,
        "cost": {
            "macs": project.size + size * primary.CLASSES,
            "parameter_bytes": 4 * numbers,
            "download_bytes": len(patch),
        },
        "licence": LICENCE,
        "provenance": {
            "made_by": "make/train.py",
            "data": SOURCE,
            "method": "The frozen projection whitens the primary's features of eight people; the trainable layer starts at"
            " zero, so the patch as shipped changes nothing. It is trained on the device, on the person's own recordings.",
        },
    }


def library(labels):
    return {
        "format": 1,
        "name": "motion",
        "title": "Exercises",
        "description": "Names the shoulder exercise from a smartwatch's motion; a patch learns how you move.",
        "modality": "series",
        "primary": {
            "file": "primary.onnx",
            "input": "series",
            "output": "logits",
            "labels": labels,
            "preprocessing": {
                "window": dataset.WINDOW,
                "channels": primary.AXES,
                "rate_hz": dataset.RATE_HZ,
                "description": "Accelerometer (g) and gyroscope (rad/s), x y z each, at 50 Hz; the newest 2.56 seconds.",
            },
        },
        "patches": ["turned-watch", "personal"],
        "tasks": [task()],
        "samples": "data/samples.json",
    }


def task():
    """119 numbers at z = 3.6: a round of 40 is as much signal as noise."""
    return {
        "name": "turned-watch",
        "patches": ["turned-watch"],
        "goal": 64,
        "clip_norm": 1.0,
        "noise_multiplier": 3.6,
        "max_participations": 8,
        "period_days": 30,
        "min_separation": 1,
        "epsilon": 4.0,
        "delta": 1e-6,
        "server_learning_rate": 1.0,
        "server_momentum": 0.0,
    }


def samples(found, labels):
    """Recordings as whole thousandths of the watch's units."""
    each = [
        {
            "person": r.person,
            "arm": ["first", "second"][r.arm],
            "label": r.label,
            "name": labels[r.label],
            "moments": len(r.values),
            "values": base64.b64encode(np.rint(r.values * 1000).astype("<i2").tobytes()).decode(),
        }
        for r in sorted(found, key=lambda r: (r.person, r.arm, r.label))
    ]
    return {
        "format": 1,
        "channels": dataset.CHANNELS,
        "rate_hz": dataset.RATE_HZ,
        "scale": 0.001,
        "encoding": "base64 of little-endian 16-bit integers, moment by moment; times scale",
        "samples": each,
    }


def golden(made, found):
    """The logits that onnxruntime gives for the newest window of eight recordings; the samples hold these too."""
    own = sorted((r for r in found if r.person in NEW_PEOPLE), key=lambda r: (r.person, r.arm, r.label))
    session = onnxruntime.InferenceSession(made)
    cases = []
    for index in range(0, len(own), max(1, len(own) // 8)):
        values = np.rint(own[index].values * 1000).astype(np.float32) * np.float32(0.001)
        x = values[-dataset.WINDOW :].T[None]
        cases.append({"sample": index, "logits": [float(v) for v in session.run(None, {"series": x})[0][0]]})
    return {"format": 1, "tolerance": 1e-3, "cases": cases}


if __name__ == "__main__":
    main()
