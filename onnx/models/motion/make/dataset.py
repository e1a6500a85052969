"""Smartwatch recordings of ten people doing seven shoulder exercises, from the PyPI package `seglearn` 1.2.5."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATE_HZ = 50
WINDOW = 128
STRIDE = 32
CHANNELS = ["ax", "ay", "az", "wx", "wy", "wz"]

LABELS = {
    "PEN": "pendulum",
    "ABD": "abduction",
    "FEL": "forward elevation",
    "IR": "internal rotation",
    "ER": "external rotation",
    "TRAP": "trapezius extension",
    "ROW": "upright row",
}


@dataclass(frozen=True)
class Recording:
    """One exercise of one arm; `values` is [moments, 6] in g and rad/s as the watch gave them."""

    person: int
    arm: int
    label: int
    values: np.ndarray

    def half(self, second):
        middle = len(self.values) // 2
        # Windows of the two halves share no moment.
        return self.values[middle:] if second else self.values[:middle]


def recordings(packages):
    """All 140 recordings and the labels in their order."""
    wheel = zipfile.ZipFile(next(Path(packages).glob("seglearn-1.2.5*.whl")))
    packed = io.BytesIO(wheel.read("seglearn/data/watch_dataset.npy"))
    # The package itself ships a pickled dictionary.
    data = np.load(packed, allow_pickle=True).item()
    found = [
        Recording(int(person), int(arm), int(label), np.asarray(values, np.float32))
        for values, label, person, arm in zip(data["X"], data["y"], data["subject"], data["side"])
    ]
    return found, [LABELS.get(name, name) for name in data["y_labels"]]


def windows(values, stride=STRIDE):
    """[count, 6, WINDOW]."""
    starts = range(0, len(values) - WINDOW + 1, stride)
    return np.stack([values[start : start + WINDOW].T for start in starts]) if len(starts) else np.zeros((0, 6, WINDOW), np.float32)


def table(found, stride=STRIDE, part=None):
    """Windows and labels of recordings; `part` 0 or 1 takes one half of each."""
    taken = [(windows(r.values if part is None else r.half(part), stride), r.label) for r in found]
    x = np.concatenate([w for w, _ in taken])
    return x.astype(np.float32), np.concatenate([np.full(len(w), label) for w, label in taken])


if __name__ == "__main__":
    import sys
    from collections import Counter

    found, labels = recordings(sys.argv[1])
    print(labels, Counter(r.person for r in found), Counter(r.arm for r in found))
    both = np.concatenate([r.values for r in found])
    print(both.mean(0), both.std(0), np.abs(both).max(0))
    print(table(found)[0].shape)
