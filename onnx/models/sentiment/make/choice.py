"""Measures whether a learned probe on the encoder's sentence vector chooses patches better than the text's features do.

    python3 make/choice.py --packages DIR      # as in README.md; also needs scikit-learn; about ten minutes

The committed patches answer every test sentence; who is asked is decided by the committed selectors (features), by a linear
probe of the domain on the sentence vector, or by both together. Probes learn from 1,200 training sentences of each domain;
which way to take is read off 300 tuning sentences of each, and the test sentences only judge. Writes `choice.json`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import dataset
import encoder
import features
import vectors

FOLDER = Path(__file__).resolve().parent.parent
EACH, DECAY, VECTOR_SCALE, STEPS = {"train": 1200, "tune": 300}, 0.01, 20.0, 60


def read(packages):
    """Test, training and tuning sentences with domain, vector and features, and whether pooled head and each patch are right."""
    found = dataset.sentences(packages)
    part = np.array([s.part for s in found])
    domain = np.array([dataset.DOMAINS.index(dataset.DOMAIN_OF[s.set]) for s in found])
    draws, rows = np.random.default_rng(1), list(np.flatnonzero(part == "test"))
    for index in range(len(dataset.DOMAINS)):
        for name, most in EACH.items():
            rows += list(draws.permutation(np.flatnonzero((part == name) & (domain == index)))[:most])
    rows = np.array(sorted(rows))
    some = [found[row] for row in rows]
    vector, right = answers(packages, some)
    table = features.table([s.text for s in some])
    return {"part": part[rows], "set": np.array([s.set for s in some]), "domain": domain[rows], "vector": vector, "features": table, "right": right}


def answers(packages, some):
    weights, _ = encoder.read_weights(packages)
    primary = vectors.session(encoder.build(weights, vectors.LENGTH, outputs=("embedding", "block6")))
    patches = [vectors.session(onnx.load(FOLDER / "patches" / name / "patch.onnx")) for name in dataset.DOMAINS]
    head = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(FOLDER / "patches/films/patch.onnx").graph.initializer}
    ids = [e.ids for e in vectors.tokenizer(packages).encode_batch([s.text for s in some])]
    vector, logits = np.zeros((len(some), encoder.WIDTH), np.float32), np.zeros((len(some), 5, 2), np.float32)
    for row, (one, block) in enumerate(vectors.one_by_one(primary, ["embedding", "block6"], ids)):
        mask = (np.arange(vectors.LENGTH) < len(ids[row])).astype(np.float32)[None]
        vector[row], logits[row, 0] = one[0], one[0] @ head["head.weight"] + head["head.bias"]
        for index, patch in enumerate(patches):
            logits[row, index + 1] = patch.run(None, {"h": block, "m": mask, "e": one})[0][0]
    return vector, logits.argmax(2) == np.array([s.label for s in some])[:, None]


def committed(table):
    """The gain of each patch by the selectors of the manifests."""
    manifests = [json.loads((FOLDER / "patches" / name / "patch.json").read_text()) for name in dataset.DOMAINS]
    gains = [m["selector"]["gain"] for m in manifests]
    return np.stack([g["intercept"] + table @ np.array([g["weights"][n] for n in features.NAMES]) for g in gains], 1)


def probe(x, data):
    train = data["part"] == "train"
    fitted = LogisticRegression(C=DECAY, max_iter=STEPS).fit(x[train], data["domain"][train])
    return fitted.decision_function(x)


def row(name, gains, data, part):
    some = data["part"] == part
    right, domain, sets, gains = data["right"][some], data["domain"][some], data["set"][some], gains[some]
    choice, at = gains.argmax(1), np.arange(len(gains))
    automatic, own, pooled = right[at, 1 + choice], right[at, 1 + domain], right[:, 0]
    good = (choice == domain) | (automatic >= own)
    slices = {"rated": [sets == n for n in dataset.DOMAINS], "domains": [domain == i for i in range(4)], "sets": [sets == n for n in dataset.SETS]}
    mean = lambda who, masks: round(float(np.mean([who[mask].mean() for mask in masks])), 4)
    means = {key: {"pooled": mean(pooled, m), "own": mean(own, m), "automatic": mean(automatic, m)} for key, m in slices.items()}
    return {"chooser": name, "part": part, "right": mean(choice == domain, slices["domains"]), "right_or_as_good": mean(good, slices["domains"]), "n": len(gains), "means": means}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, type=Path)
    data = read(parser.parse_args().packages)
    table = StandardScaler().fit(data["features"][data["part"] == "train"]).transform(data["features"])
    choosers = {
        "text features": committed(data["features"]),
        "probe": probe(VECTOR_SCALE * data["vector"], data),
        "both": probe(np.hstack([table, VECTOR_SCALE * data["vector"]]), data),
    }
    rows = [row(name, gains, data, part) for part in ("tune", "test") for name, gains in choosers.items()]
    (FOLDER / "make" / "choice.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
