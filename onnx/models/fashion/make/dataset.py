"""Fashion-MNIST as arrays: the idx files, the fixed split, and the conditions a picture can be in.

Split (never mixed): the first 50,000 training images train the primary and the image patches, the
last 10,000 are the pool (federated clients, selector fits, held-out use), the 10,000 test images only measure.
"""

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

LABELS = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]
TRAIN_IMAGES = 50_000
BLUR_RADIUS = 8  # pixels: three standard deviations of the widest blur and more


def read_idx(path):
    """An idx file of unsigned bytes (gzip) as a uint8 array."""
    raw = gzip.decompress(Path(path).read_bytes())
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: not an idx file of unsigned bytes")
    rank = raw[3]
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def write_idx(path, array):
    """Writes a uint8 array as a gzipped idx file; the bytes depend on the array alone (no time stamp)."""
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    Path(path).write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), 9, mtime=0))


class Fashion:
    """The three parts, images as float32 [N,1,28,28] in 0..1, labels as int64."""

    def __init__(self, folder):
        folder = Path(folder)
        self.folder = folder
        images = read_idx(folder / "train-images-idx3-ubyte.gz")
        labels = read_idx(folder / "train-labels-idx1-ubyte.gz")
        self.pool_bytes, self.pool_label_bytes = images[TRAIN_IMAGES:], labels[TRAIN_IMAGES:]
        self.test_bytes = read_idx(folder / "t10k-images-idx3-ubyte.gz")
        self.test_label_bytes = read_idx(folder / "t10k-labels-idx1-ubyte.gz")
        self.train = unit(images[:TRAIN_IMAGES]), classes(labels[:TRAIN_IMAGES])
        self.pool = unit(self.pool_bytes), classes(self.pool_label_bytes)
        self.test = unit(self.test_bytes), classes(self.test_label_bytes)


def unit(images):
    return torch.from_numpy(images.astype(np.float32) / 255.0).unsqueeze(1)


def classes(labels):
    return torch.from_numpy(labels.astype(np.int64))


def noisy(images, sigma, seed):
    """Gaussian noise of standard deviation `sigma` (a number, or one per image), then clipped to 0..1 as a camera does."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator)
    if torch.is_tensor(sigma):
        sigma = sigma.view(-1, 1, 1, 1)
    return (images + sigma * noise).clamp(0.0, 1.0)


def low_contrast(images, contrast):
    """x' = mean(x) + contrast * (x - mean(x)), the mean taken per image."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + contrast * (images - mean)


def blurred(images, sigma):
    """Gaussian blur of standard deviation `sigma` pixels (a number, or one per image), mirrored at the border; 0 is no blur."""
    sigma = torch.as_tensor(sigma, dtype=torch.float32).expand(len(images)).clamp(min=1e-3)
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets.view(1, -1) / sigma.view(-1, 1)) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    along = lambda x, shape: F.conv2d(x.transpose(0, 1), kernel.view(len(images), 1, *shape), groups=len(images)).transpose(0, 1)
    padded = F.pad(images, (BLUR_RADIUS,) * 4, mode="reflect")
    return along(along(padded, (1, -1)), (-1, 1))


def tilted(images, degrees, scale=1.0):
    """Each picture turned by `degrees` (a number, or one per image; positive is anticlockwise as seen),
    drawn `scale` times as large, bilinear, black outside."""
    degrees = torch.as_tensor(degrees, dtype=torch.float32).expand(len(images))
    angle = degrees * (math.pi / 180.0)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    zero = torch.zeros_like(cos)
    # grid_sample asks where each output pixel comes from, y points down: the inverse turn.
    theta = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    out = []
    for start in range(0, len(images), 2000):
        part = images[start : start + 2000]
        grid = F.affine_grid(theta[start : start + 2000], list(part.shape), align_corners=False)
        out.append(F.grid_sample(part, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    return torch.cat(out)
