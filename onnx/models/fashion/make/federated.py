"""Federated averaging of one small patch under differential privacy, simulated as the product runs it.

A client holds 40-60 pictures with a skewed mix of classes, trains locally by SGD in batches of 16, clips its
delta to `clip_norm` in L2. The server sums a cohort of n, divides by n, adds Gaussian noise of standard
deviation noise_multiplier * clip_norm / n to each coordinate, and moves by its own learning rate and momentum.
All in numpy on the activations at the patch's site, which the frozen primary makes once.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

COHORT = 64
MAX_PARTICIPATIONS = 4


@dataclass(frozen=True)
class Settings:
    clip_norm: float = 1.0
    learning_rate: float = 0.05
    epochs: int = 1
    batch: int = 16
    server_learning_rate: float = 1.0
    server_momentum: float = 0.0
    noise_multiplier: float = 2.54
    rounds: int = 16


class LinearBridge:
    """delta logits = (features @ P + p) @ W + b: P, p frozen, W and b trained from zero."""

    def __init__(self, projection, offset):
        self.projection, self.offset = projection, offset
        self.rank = projection.shape[1]

    def start(self):
        return {"bridge.weight": np.zeros((self.rank, 10)), "bridge.bias": np.zeros(10)}

    def hidden(self, features):
        return features @ self.projection + self.offset

    def logits(self, parameters, hidden, base):
        return base + hidden @ parameters["bridge.weight"] + parameters["bridge.bias"]

    def gradient(self, parameters, hidden, base, labels):
        error = softmax(self.logits(parameters, hidden, base))
        error[np.arange(len(labels)), labels] -= 1.0
        error /= len(labels)
        return {"bridge.weight": hidden.T @ error, "bridge.bias": error.sum(0)}


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def dirichlet_clients(labels, count, concentration, rng):
    """Index lists of `count` clients of 40-60 pictures: each draws its mix of classes from a symmetric Dirichlet,
    then pictures without replacement inside the client (two clients may own the same picture when classes run short)."""
    by_class = [rng.permutation(np.flatnonzero(labels == c)) for c in range(10)]
    used = [0] * 10
    clients = []
    for _ in range(count):
        mix = rng.dirichlet([concentration] * 10)
        wanted = rng.multinomial(rng.integers(40, 61), mix)
        own = []
        for c, k in enumerate(wanted):
            members = by_class[c]
            k = min(k, len(members))
            own.extend(members[(used[c] + np.arange(k)) % len(members)])
            used[c] += k
        clients.append(np.array(own))
    return clients


def local_training(bridge, parameters, hidden, base, labels, settings, rng):
    """The parameters after the client's own epochs."""
    own = {name: value.copy() for name, value in parameters.items()}
    for _ in range(settings.epochs):
        order = rng.permutation(len(labels))
        for i in range(0, len(order), settings.batch):
            take = order[i : i + settings.batch]
            gradient = bridge.gradient(own, hidden[take], base[take], labels[take])
            for name in own:
                own[name] -= settings.learning_rate * gradient[name]
    return own


def clipped_delta(before, after, clip_norm):
    delta = np.concatenate([(after[name] - before[name]).ravel() for name in before])
    norm = np.linalg.norm(delta)
    return delta * min(1.0, clip_norm / max(norm, 1e-12)), norm


def federate(bridge, clients, settings, evaluate, seed):
    """Runs the rounds; returns the parameters, `evaluate(parameters)` after each round (index 0: before any), and the mean delta norm."""
    rng = np.random.default_rng(seed)
    parameters = bridge.start()
    names = list(parameters)
    taken = np.zeros(len(clients), int)
    curve, norms = [evaluate(parameters)], []
    velocity = np.zeros(sum(v.size for v in parameters.values()))
    for _ in range(settings.rounds):
        free = np.flatnonzero(taken < MAX_PARTICIPATIONS)
        cohort = rng.choice(free, COHORT, replace=False)
        taken[cohort] += 1
        total = np.zeros_like(velocity)
        for c in cohort:
            own = local_training(bridge, parameters, *clients[c], settings, rng)
            delta, norm = clipped_delta(parameters, own, settings.clip_norm)
            total += delta
            norms.append(norm)
        noise = rng.normal(0.0, settings.noise_multiplier * settings.clip_norm / COHORT, len(total)) if settings.noise_multiplier else 0.0
        velocity = settings.server_momentum * velocity + total / COHORT + noise
        step, at = settings.server_learning_rate * velocity, 0
        for name in names:
            size = parameters[name].size
            parameters[name] = parameters[name] + step[at : at + size].reshape(parameters[name].shape)
            at += size
        curve.append(evaluate(parameters))
    return parameters, curve, float(np.mean(norms))
