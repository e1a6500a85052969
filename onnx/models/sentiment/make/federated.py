"""Simulated private rounds of the patch for films: every film is a device, its sentences never leave it.

    python3 make/federated.py --packages DIR --cache CACHE      # writes federated-curve.json

The start knows no films: a network trained on tweets, products and news alone, of which devices train the answer layer (514
numbers). Films are real groups: their sentences differ in number, in what they speak of and in their share of praise. A
round sums clipped updates of a cohort, adds Gaussian noise and divides by the cohort, as the server does. Judged on films of
which no sentence was seen.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import dataset
import encoder
import heads
from train import Table
from vectors import vectors

# σ / C for at most four rounds of one device at δ = 1e-6, as in the library `fashion`.
NOISE = {"4": 2.39, "8": 1.31, "none": 0.0}
PARTICIPATIONS, CLIP, RATE, EPOCHS, BATCH, SMALLEST = 4, 0.5, 0.3, 2, 16, 8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, type=Path)
    parser.add_argument("--cache", required=True, type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    weights, _ = encoder.read_weights(options.packages)
    found = dataset.sentences(options.packages)
    table = Table(found, vectors(options, weights, found))
    films = dataset.DOMAINS.index("films")
    other = table.rows("train")[table.domain[table.rows("train")] != films]
    head = heads.logistic(table.sentences, other)
    base = table.sentences.embedding @ head[0] + head[1]
    patch = stranger(options.cache, table, base, other)
    rows = np.flatnonzero(table.set == "films")
    x, start = read(table.sentences, patch, rows)
    world = World(table, rows, x, base[rows].numpy(), start)
    runs = {
        f"cohort {cohort}, epsilon {epsilon}": world.rounds(cohort, NOISE[epsilon])
        for cohort, epsilon in ((64, "4"), (64, "8"), (128, "4"), (64, "none"))
    }
    curve = {
        "what": "accuracy on sentences of held-out films after each round",
        "devices": len(world.devices),
        "held_out_films": len(set(world.group[world.test])),
        "held_out_sentences": int(len(world.test)),
        "clip_norm": CLIP,
        "max_participations": PARTICIPATIONS,
        "delta": 1e-6,
        "runs": runs,
    }
    (Path(__file__).resolve().parent / "federated-curve.json").write_text(json.dumps(curve, indent=1) + "\n")
    for name, run in runs.items():
        print(name, run["accuracy"][0], "->", run["accuracy"][-1], "after", len(run["accuracy"]) - 1)


def stranger(cache, table, base, rows):
    file = cache / "patch-stranger.pt"
    if not file.exists():
        torch.save(heads.train(table.sentences, base, rows, 3, 4e-3).state_dict(), file)
    patch = heads.Patch()
    patch.load_state_dict(torch.load(file))
    return patch.eval()


def read(sentences, patch, rows):
    """What the frozen part says of each sentence, [N, 256], and the answer layer [257, 2]."""
    answer, patch.answer = patch.answer, torch.nn.Identity()
    order = np.argsort(sentences.lengths[rows])
    out = np.zeros((len(rows), heads.QUERIES * heads.SIZE), np.float32)
    with torch.no_grad():
        for at in range(0, len(rows), 128):
            some = order[at : at + 128]
            out[some] = patch(*sentences.batch(rows[some])).numpy()
    start = np.vstack([answer.weight.detach().numpy().T, answer.bias.detach().numpy()[None]])
    return np.hstack([out, np.ones((len(rows), 1), np.float32)]), start


class World:
    def __init__(self, table, rows, x, base, start):
        self.x, self.base, self.start = x, base, start
        self.y = table.label[rows]
        self.group = np.array([table.found[row].group for row in rows])
        part = table.part[rows]
        self.test = np.flatnonzero(part == "test")
        own = {film: np.flatnonzero(self.group == film) for film in sorted(set(self.group[part == "train"]))}
        self.devices = [indices for indices in own.values() if len(indices) >= SMALLEST]

    def accuracy(self, w):
        z = self.base[self.test] + self.x[self.test] @ w
        return round(float((z.argmax(1) == self.y[self.test]).mean()), 4)

    def update(self, indices, w, draws):
        """A device's own steps, clipped."""
        now = w.copy()
        for _ in range(EPOCHS):
            order = draws.permutation(indices)
            for at in range(0, len(order), BATCH):
                some = order[at : at + BATCH]
                z = self.base[some] + self.x[some] @ now
                p = np.exp(z - z.max(1, keepdims=True))
                p /= p.sum(1, keepdims=True)
                p[np.arange(len(some)), self.y[some]] -= 1
                now = now - RATE * self.x[some].T @ p / len(some)
        delta = now - w
        return delta * min(1, CLIP / (np.linalg.norm(delta) + 1e-12))

    def rounds(self, cohort, noise, seed=0):
        draws = np.random.default_rng(seed)
        w, left = self.start.copy(), np.full(len(self.devices), PARTICIPATIONS)
        accuracy = [self.accuracy(w)]
        while (left > 0).sum() >= cohort:
            taken = draws.choice(np.flatnonzero(left > 0), cohort, replace=False)
            left[taken] -= 1
            total = sum(self.update(self.devices[device], w, draws) for device in taken)
            w = w + (total + noise * CLIP * draws.standard_normal(w.shape)) / cohort
            accuracy.append(self.accuracy(w))
        return {"rounds": len(accuracy) - 1, "accuracy": accuracy}


if __name__ == "__main__":
    main()
