"""The personal patch: a frozen whitening of the primary's features, then a trainable layer that starts at zero.

The trainable part is fitted as the client does it: plain gradient descent in small batches, every fifth example held out,
the epoch that judges best on those is kept, and it is used only where it beats the primary alone.
"""

import numpy as np

CLASSES = 7


def whitening(features, floor=1e-3):
    """Mean and projection [F, F] that make the features of many people uncorrelated with unit variance."""
    mean = features.mean(0)
    covariance = np.cov((features - mean).T)
    values, vectors = np.linalg.eigh(covariance)
    keep = values > floor * values.max()
    return mean, vectors[:, keep] / np.sqrt(values[keep] + floor * values.max())


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def loss(z, y):
    return -np.log(softmax(z)[np.arange(len(y)), y] + 1e-12).mean()


def train(h, base, y, rate, batch, epochs, seed=0):
    """Weights [D, 7] and bias [7] for whitened features h and the primary's logits; zero where nothing was gained."""
    draws = np.random.default_rng(seed)
    held = np.arange(len(y)) % 5 == 4
    train_rows = np.flatnonzero(~held)
    w, b = np.zeros((h.shape[1], CLASSES)), np.zeros(CLASSES)

    def score(w, b):
        z = base[held] + h[held] @ w + b
        return (z.argmax(1) == y[held]).mean(), -loss(z, y[held])

    best, kept = score(w, b), (w.copy(), b.copy())
    for _ in range(epochs):
        order = draws.permutation(train_rows)
        for at in range(0, len(order), batch):
            rows = order[at : at + batch]
            error = softmax(base[rows] + h[rows] @ w + b)
            error[np.arange(len(rows)), y[rows]] -= 1
            w -= rate * h[rows].T @ error / len(rows)
            b -= rate * error.mean(0)
        if score(w, b) > best:
            best, kept = score(w, b), (w.copy(), b.copy())
    return kept
