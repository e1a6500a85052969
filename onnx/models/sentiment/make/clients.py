"""The clients of the library's federated task, and the shared patch that they train: `filmgoers`.

    python3 make/clients.py --packages DIR      # after train.py; a minute on one core

A client is a film: its viewers' sentences, eight or more, from the training part. Films differ in what is said of them and in
their share of praise. Other films are held out whole: some choose settings, the others judge. `data/clients.json.gz` lists all.

The patch pools the tokens as the patch `products` does, which was never tuned to films, projects that onto the 16 strongest
directions of sentences that are not about films, and adds a trainable number of them to the pooled head's answer: 17 numbers
that start at zero. So few let small rounds learn at ε = 4. (The network that all domain patches start from has seen sentences
of these training films, though not of the held-out ones: what the rounds bring is what it had left to learn.)
"""

import argparse
import gzip
import hashlib
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import BertWordPieceTokenizer

import dataset
import vectors

FOLDER = Path(__file__).resolve().parent.parent
WIDTH, POOLED, RANK, SMALLEST = 384, 256, 16, 8
# Sentences of other domains that the directions are taken from.
OTHERS = 2500
LICENCE = "Apache-2.0 AND (MIT OR Apache-2.0)"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, type=Path)
    options = parser.parse_args()
    found = dataset.sentences(options.packages)
    others = [s.text for s in found if s.set != "films" and s.part == "train"]
    chosen = np.random.default_rng(0).choice(len(others), OTHERS, replace=False)
    centre, directions = strongest(pooled([others[i] for i in chosen]))
    write("patches/filmgoers/patch.onnx", made := graph(centre, directions).SerializeToString())
    write_json("patches/filmgoers/patch.json", manifest(made))
    packed = json.dumps(clients(found), separators=(",", ":"), ensure_ascii=False).encode()
    write("data/clients.json.gz", gzip.compress(packed, 9, mtime=0))


def write(path, data):
    (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
    (FOLDER / path).write_bytes(data)


def write_json(path, value):
    write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def products():
    return onnx.load(FOLDER / "patches/products/patch.onnx")


def pooled(texts):
    """What `products` pools of each text, [N, POOLED]."""
    words = BertWordPieceTokenizer(str(FOLDER / "vocab.txt"), lowercase=True)
    words.enable_truncation(vectors.LENGTH)
    encoder = session(onnx.load(FOLDER / "primary.onnx"), ["block6", "mask"])
    pool = session(products(), ["pooled.flat"])
    unread = np.zeros((1, WIDTH), np.float32)
    ids = (words.encode(text).ids for text in texts)
    each = vectors.one_by_one(encoder, ["block6", "mask"], ids)
    return np.concatenate([pool.run(["pooled.flat"], {"h": block, "m": mask, "e": unread})[0] for block, mask in each])


def session(model, tensors):
    """A model with these tensors as outputs too."""
    for name in tensors:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return vectors.session(model)


def strongest(rows):
    """Mean and projection [POOLED, RANK] onto the strongest directions, each with unit variance."""
    mean = rows.mean(0)
    values, axes = np.linalg.eigh(np.cov((rows - mean).T))
    values, axes = values[::-1][:RANK], axes[:, ::-1][:, :RANK]
    # The sign of an eigenvector is nobody's choice; the largest entry shall be positive.
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(RANK)])
    return mean, axes / np.sqrt(values)


def graph(centre, directions):
    """The patch `products` with its answer layer replaced."""
    model = products()
    constant = lambda name, array: numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name)
    node = lambda kind, inputs, output: helper.make_node(kind, inputs, [output], name=output)
    nodes, kept = [], {}
    for known in model.graph.node:
        if "correction" not in known.output:
            nodes.append(known)
            continue
        nodes += [
            node("Sub", ["pooled.flat", "centre"], "centred"),
            node("MatMul", ["centred", "directions"], "strongest"),
            node("Gemm", ["strongest", "mood.weight", "mood.bias"], "mood"),
            node("MatMul", ["mood", "sides"], "correction"),
        ]
    for known in model.graph.initializer:
        if not known.name.startswith("answer."):
            kept[known.name] = known
    new = [
        constant("centre", centre),
        constant("directions", directions),
        constant("mood.weight", np.zeros((RANK, 1))),
        constant("mood.bias", np.zeros(1)),
        constant("sides", [[-0.5, 0.5]]),
    ]
    made = helper.make_graph(nodes, "filmgoers", model.graph.input, model.graph.output, [*kept.values(), *new])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def manifest(made):
    """As the patch for films, which goes first while nothing is known of this one."""
    films = json.loads((FOLDER / "patches/films/patch.json").read_text())
    gain = films["selector"]["gain"]
    gain["intercept"] = round(gain["intercept"] - 0.005, 6)
    numbers = 4 * WIDTH + 4 + WIDTH * 64 + 64 + POOLED * (RANK + 1) + RANK + 1 + 2 * WIDTH + 2
    return {
        "format": 1,
        "name": "filmgoers",
        "function": "Learns from many films' viewers how they say what they think.",
        "primary": films["primary"],
        "attachments": films["attachments"],
        "trainable": ["mood.weight", "mood.bias"],
        "training": {"loss": "softmax_cross_entropy", "learning_rate": 1.0, "batch": 16, "epochs": 2, "clip_norm": 0.6},
        "selector": films["selector"],
        "io": films["io"],
        "cost": {
            "macs": films["cost"]["macs"] + POOLED * RANK + RANK,
            "parameter_bytes": 4 * numbers,
            "download_bytes": len(made),
        },
        "licence": LICENCE,
        "provenance": {
            "made_by": "make/clients.py",
            "data": "VADER's rated sentences (MIT) and UCI Sentiment Labelled Sentences (CC BY 4.0), training part",
            "method": "Attention pooling of the patch products, frozen; a trainable layer on its 16 strongest directions that starts"
            " at zero, so the patch as shipped answers as the primary does. What private rounds bring is in"
            " make/simulated.json.",
        },
    }


def clients(found):
    """Who trains, who only chooses settings, and who judges: half of the films of the test part choose, the other half and all
    films of the tuning part judge."""
    films = defaultdict(list)
    for sentence in found:
        if sentence.set == "films":
            films[sentence.part, sentence.group].append([sentence.text, sentence.label])
    tests = sorted(name for part, name in films if part == "test")
    chooses = set(tests[::2])
    each = [
        {"name": name, "held_out": part != "train", "tunes": part == "test" and name in chooses, "examples": own}
        for (part, name), own in sorted(films.items())
        if part != "train" or len(own) >= SMALLEST
    ]
    return {"format": 1, "clients": each}


if __name__ == "__main__":
    main()
