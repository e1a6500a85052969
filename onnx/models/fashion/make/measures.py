"""Accuracy rows of a manifest: paired, with a bootstrap interval of the difference."""

import numpy as np

RESAMPLES = 2000


def row(data, slice_, base_right, patched_right, seed=1):
    """`base_right`, `patched_right`: whether each test image is answered rightly without and with the patch."""
    n = len(base_right)
    difference = patched_right.astype(int) - base_right.astype(int)
    counts = np.array([(difference == v).sum() for v in (-1, 0, 1)])
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, RESAMPLES)
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) / n, [0.025, 0.975])
    return {
        "data": data, "slice": slice_, "metric": "accuracy",
        "base": round(float(base_right.mean()), 4), "patched": round(float(patched_right.mean()), 4),
        "n": n, "ci95": [round(float(low), 4), round(float(high), 4)],
    }
