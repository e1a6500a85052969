"""The score of the Numenta Anomaly Benchmark (Lavin, Ahmad 2015, arXiv:1510.03336), version 1.1 of its rules.

    python3 make/nab.py --nab DIR

DIR holds folders of CSV files `timestamp,value` and `windows.json`: per file a list of [first, last] timestamps of labelled
windows. The benchmark's data is not part of this project; it is MIT at github.com/numenta/NAB.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# What a true positive, a false positive and a false negative weigh, by profile.
PROFILES = {
    "standard": (1.0, 0.11, 1.0),
    "reward_low_FP_rate": (1.0, 0.22, 1.0),
    "reward_low_FN_rate": (1.0, 0.11, 2.0),
}


@dataclass(frozen=True)
class Series:
    name: str
    values: np.ndarray
    windows: tuple

    @property
    def probation(self):
        """Moments at the beginning that are not scored: 15 %, of at most 5,000."""
        return int(min(np.floor(0.15 * len(self.values)), 0.15 * 5000))


def read(folder):
    folder = Path(folder)
    labels = json.loads((folder / "windows.json").read_text())
    found = []
    for name, windows in sorted(labels.items()):
        with open(folder / name, newline="") as file:
            rows = list(csv.DictReader(file))
        stamps = [row["timestamp"][:19] for row in rows]
        places = {stamp: i for i, stamp in reversed(list(enumerate(stamps)))}
        pairs = []
        for first, last in windows:
            inside = [i for i, s in enumerate(stamps) if first[:19] <= s <= last[:19]]
            assert inside, (name, first, last, len(places))
            pairs.append((inside[0], inside[-1]))
        values = np.array([float(row["value"]) for row in rows])
        found.append(Series(name, values, tuple(pairs)))
    return found


def sigmoid(x):
    """2 σ(−5 x) − 1, and −1 beyond 3."""
    return np.where(x > 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(x, 3))) - 1)


def worth(series, profile):
    """Per moment: which window it is in (−1: none), and what a detection there is worth."""
    hit, miss, _ = PROFILES[profile]
    n = len(series.values)
    window = np.full(n, -1)
    value = np.full(n, -miss)
    for index, (first, last) in enumerate(series.windows):
        width = last - first + 1
        after = np.arange(last + 1, n)
        value[after] = sigmoid((after - last) / max(width - 1, 1)) * miss
        inside = np.arange(first, last + 1)
        window[inside] = index
        value[inside] = sigmoid(-(last - inside + 1) / width) / sigmoid(np.float64(-1.0)) * hit
    return window, value


def score(corpus, scores, profile="standard", thresholds=None):
    """The best normalised score over one threshold for the whole corpus, that threshold, and its counts.

    `scores` holds per series one number per moment. 0 is a detector that never speaks, 100 a perfect one.
    """
    missed = PROFILES[profile][2]
    if thresholds is None:
        every = np.concatenate([s[series.probation :] for series, s in zip(corpus, scores)])
        thresholds = np.unique(np.quantile(every, 1 - np.geomspace(1e-5, 0.2, 120)))
    total = np.zeros(len(thresholds))
    counts = np.zeros((len(thresholds), 2), int)
    for series, own in zip(corpus, scores):
        window, value = worth(series, profile)
        scored = np.arange(len(own)) >= series.probation
        for at, threshold in enumerate(thresholds):
            detected = scored & (own >= threshold)
            outside = detected & (window < 0)
            total[at] += value[outside].sum()
            counts[at, 1] += outside.sum()
            for index in range(len(series.windows)):
                found = value[detected & (window == index)]
                total[at] += found.max() if len(found) else -missed
                counts[at, 0] += len(found) > 0
    windows = sum(len(series.windows) for series in corpus)
    normal = 100 * (total + missed * windows) / (windows * (PROFILES[profile][0] + missed))
    best = int(normal.argmax())
    return {
        "score": float(normal[best]),
        "threshold": float(thresholds[best]),
        "windows_found": int(counts[best, 0]),
        "windows": windows,
        "false_positives": int(counts[best, 1]),
    }


def windowed_gaussian(values, size=6400, step=100):
    """NAB's own simple detector: how far a value is in the tail of a Gaussian of the last values."""
    from math import erfc, sqrt

    found, mean, std, steps = [], None, None, 0
    seen = []
    for value in values:
        result = 0.0
        if seen:
            tail = 0.5 * erfc(abs(value - mean) / (std if std > 0 else 1e-6) / sqrt(2))
            result = 1 - tail
        if len(seen) < size:
            seen.append(value)
            mean, std = np.mean(seen), np.std(seen)
        else:
            steps += 1
            seen.append(value)
            if steps % step == 0:
                seen = seen[-size:]
                mean, std = np.mean(seen), np.std(seen)
        found.append(result)
    return np.array(found)
