#!/usr/bin/env python3
"""Writes ../data/held-out-inputs.npy and held-out-targets.npy: the public examples of the release gate.

    python3 held_out.py --data /usr/share/datasets/fashion-mnist

400 pictures of the training images 49,600 to 49,999, which no device of the simulation has, tilted as people's pictures
are: a quarter straight, the others by about 25 degrees. Bytes; the server reads them as 0 to 1. The primary has seen these
pictures straight, so its accuracy on them flatters; the gate compares two versions of a patch on them.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from dataset import TRAIN_IMAGES, Fashion, tilted
from style import STRAIGHT_SHARE, TILT_BETWEEN_PEOPLE, TILT_WITHIN, TYPICAL_TILT

COUNT = 400


def write(data, folder, seed=8):
    rng = np.random.default_rng(seed)
    images, labels = (part[TRAIN_IMAGES - COUNT :] for part in data.train)
    angles = rng.normal(TYPICAL_TILT, math.hypot(TILT_BETWEEN_PEOPLE, TILT_WITHIN), COUNT)
    angles[rng.random(COUNT) < STRAIGHT_SHARE] = 0.0
    turned = tilted(images, torch.tensor(angles, dtype=torch.float32)).clamp(0, 1).numpy()
    np.save(folder / "held-out-inputs.npy", np.round(turned * 255).astype(np.uint8))
    np.save(folder / "held-out-targets.npy", labels.numpy().astype(np.int64))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    write(Fashion(parser.parse_args().data), Path(__file__).parent.parent / "data")
