"""The personal-style patch: what it is, how it starts, and the simulation that chose its parameters.

The style is a tilt: someone whose pictures are turned by about 25 degrees. The patch is a bridge from `features` to
`logits`: a frozen projection of the 64 features to RANK whitened directions, then a trainable 32x10 matrix and bias that
start at zero, so that the new patch changes nothing. It is LoRA with a frozen first factor, which noise hurts less than
two trained factors (Sun et al. 2024, arXiv:2403.12313), and local training is then a convex problem.
"""

import math
from dataclasses import asdict, replace

import numpy as np
import torch

from dataset import tilted
from federated import LinearBridge, Settings, dirichlet_clients, federate, local_training
from graphs import Graph

SEED = 3
RANK = 32
TYPICAL_TILT = 25.0
TILT_BETWEEN_PEOPLE, TILT_WITHIN = 4.0, 2.0
STRAIGHT_SHARE = 0.25
CLIENTS = 400
LABEL_CONCENTRATION = 0.5
EPSILON, DELTA, PARTICIPATIONS = 4.0, 1e-6, 4
SETTINGS = Settings(clip_norm=0.5, learning_rate=0.3, epochs=2, server_learning_rate=1.0, server_momentum=0.0, noise_multiplier=2.54, rounds=16)
PERSONAL_USERS = 12
TRAINABLE = ["bridge.weight", "bridge.bias"]


def projection(data, primary):
    """Whitened main directions of the features of 10,000 training images turned by -45 to 45 degrees; no label is used."""
    generator = torch.Generator().manual_seed(SEED)
    angles = torch.rand(10_000, generator=generator) * 90 - 45
    features = primary.batched(tilted(data.train[0][:10_000], angles), "features").double().numpy()
    mean = features.mean(0)
    _, size, directions = np.linalg.svd(features - mean, full_matrices=False)
    for row in directions:  # the sign of a singular vector is arbitrary: make the largest entry positive
        row *= np.sign(row[np.abs(row).argmax()])
    weight = directions[:RANK].T / (size[:RANK] / math.sqrt(len(features)))
    return weight.astype(np.float32), (-mean @ weight).astype(np.float32)


def graph(weight, bias, trained=None):
    """ONNX: features h [N,64] to dlogits [N,10], added to the logits."""
    trained = trained or {"bridge.weight": np.zeros((RANK, 10)), "bridge.bias": np.zeros(10)}
    g = Graph("personal-style")
    hidden = g.node("Gemm", ["h", g.constant("projection.weight", weight), g.constant("projection.bias", bias)], "directions")
    for name in TRAINABLE:
        g.constant(name, trained[name].astype(np.float32))
    moved = g.node("MatMul", [hidden, "bridge.weight"], "bridge")
    g.node("Add", [moved, "bridge.bias"], "dlogits")
    return g.model({"h": ["N", 64]}, {"dlogits": ["N", 10]}, "What is added to the logits for one's own style.")


class Style:
    """The frozen primary's activations of tilted pictures, made once."""

    def __init__(self, data, primary, weight, bias):
        self.data, self.primary = data, primary
        self.bridge = LinearBridge(weight.astype(np.float64), bias.astype(np.float64))
        self.rng = np.random.default_rng(SEED)
        angles = self.rng.normal(TYPICAL_TILT, math.hypot(TILT_BETWEEN_PEOPLE, TILT_WITHIN), len(data.test[0]))
        self.tilted_test = self.activations(tilted(data.test[0], torch.tensor(angles)), data.test[1])
        self.straight_test = self.activations(*data.test)

    def activations(self, images, labels):
        features = self.primary.batched(images, "features")
        base = self.primary.head(features).double().numpy()
        return self.bridge.hidden(features.double().numpy()), base, labels.numpy()

    def right(self, parameters, part):
        hidden, base, labels = part
        return self.bridge.logits(parameters, hidden, base).argmax(1) == labels

    def accuracy(self, parameters, part):
        return round(float(self.right(parameters, part).mean()), 4)

    def clients(self):
        images, labels = self.data.pool
        owned = dirichlet_clients(labels.numpy(), CLIENTS, LABEL_CONCENTRATION, self.rng)
        everything = np.concatenate(owned)
        person = np.concatenate([np.full(len(o), self.rng.normal(TYPICAL_TILT, TILT_BETWEEN_PEOPLE)) for o in owned])
        angles = person + self.rng.normal(0, TILT_WITHIN, len(person))
        straight = self.rng.random(len(person)) < STRAIGHT_SHARE
        angles[straight] = self.rng.normal(0, 3.0, straight.sum())
        parts = self.activations(tilted(images[everything], torch.tensor(angles)), labels[everything])
        borders = np.cumsum([len(o) for o in owned])[:-1]
        return list(zip(*(np.split(p, borders) for p in parts)))

    def simulate(self):
        """(curves and settings as a dictionary, the parameters after the private rounds)."""
        clients = self.clients()
        tiny = noise_multiplier(0.1, DELTA, PARTICIPATIONS)
        runs, kept = {}, None
        for name, z in (("epsilon 4", SETTINGS.noise_multiplier), ("no privacy noise", 0.0), ("epsilon 0.1", tiny)):
            settings = replace(SETTINGS, noise_multiplier=z)
            both = lambda p: (self.accuracy(p, self.tilted_test), self.accuracy(p, self.straight_test))
            parameters, curve, norm = federate(self.bridge, clients, settings, both, seed=1)
            runs[name] = {"noise_multiplier": round(z, 3), "tilted": [c[0] for c in curve], "straight": [c[1] for c in curve], "mean_delta_norm": round(norm, 3)}
            kept = parameters if name == "epsilon 4" else kept
        repeats = []
        for seed in range(2, 7):
            repeats.append(federate(self.bridge, clients, SETTINGS, lambda p: self.accuracy(p, self.tilted_test), seed)[1])
        runs["epsilon 4"]["other_seeds_tilted"] = repeats
        return {
            "format": 1, "cohort": 64, "clients": CLIENTS, "label_concentration": LABEL_CONCENTRATION, "rank": RANK,
            "tilt": {"mean": TYPICAL_TILT, "between_people": TILT_BETWEEN_PEOPLE, "within": TILT_WITHIN, "straight_share": STRAIGHT_SHARE},
            "settings": asdict(SETTINGS), "runs": runs, "personal": self.personal(kept),
        }, kept

    def personal(self, federated):
        """A person with a tilt of their own and a few pictures; mean accuracy over people, on test images at their tilt."""
        rows = []
        images, labels = self.data.pool
        users = [(t, u) for t in (25.0, -25.0, 35.0) for u in range(PERSONAL_USERS)]
        tests = {t: self.activations(tilted(self.data.test[0][:4000], t), self.data.test[1][:4000]) for t in (25.0, -25.0, 35.0)}
        for examples in (30, 60):
            for start_name, start in (("untrained", self.bridge.start()), ("federated", federated)):
                for epochs in (2, 10):
                    found = {t: [] for t in tests}
                    for t, u in users:
                        rng = np.random.default_rng(1000 * u + examples)
                        own = rng.choice(len(images), examples, replace=False)
                        part = self.activations(tilted(images[own], torch.tensor(t + rng.normal(0, TILT_WITHIN, examples))), labels[own])
                        trained = local_training(self.bridge, start, *part, replace(SETTINGS, epochs=epochs), rng)
                        found[t].append(self.accuracy(trained, tests[t]))
                    for t, values in found.items():
                        rows.append({"tilt": t, "examples": examples, "start": start_name, "epochs": epochs, "base": self.accuracy(self.bridge.start(), tests[t]), "before": self.accuracy(start, tests[t]), "after": round(float(np.mean(values)), 4), "worst": min(values)})
        return rows


def privacy_delta(epsilon, rho):
    """A delta for which every rho-zCDP mechanism is (epsilon, delta)-DP (Canonne, Kamath, Steinke 2020, corollary 13)."""
    low, high = 1.01, (epsilon + 1) / (2 * rho) + 2
    for _ in range(200):
        alpha = (low + high) / 2
        if (2 * alpha - 1) * rho - epsilon + math.log1p(-1 / alpha) < 0:
            low = alpha
        else:
            high = alpha
    return math.exp((high - 1) * (high * rho - epsilon) + high * math.log1p(-1 / high)) / (high - 1)


def noise_multiplier(epsilon, delta, participations):
    """The smallest z so that `participations` sums with noise z*C are (epsilon, delta) differentially private."""
    low, high = 1e-3, 1e5
    for _ in range(200):
        middle = math.sqrt(low * high)
        if privacy_delta(epsilon, participations / (2 * middle**2)) > delta:
            low = middle
        else:
            high = middle
    return high
