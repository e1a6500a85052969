"""The client's image analysis in numpy float64: the definition that the golden values and the selector fits use.

An image is luminance in 0..1, [H,W]; every function takes a stack [N,H,W] and returns one value per image.
Filters are correlations over the valid region (no padding).
"""

import numpy as np

NAMES = ["image.noise", "image.contrast", "image.brightness", "image.sharpness", "image.blur", "image.edge_density", "image.orientation", "image.alignment", "image.slant"]
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float64)
LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float64)
SOBEL_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float64)
EDGE_THRESHOLD = 0.1


def correlate(stack, kernel):
    height, width = stack.shape[1] - 2, stack.shape[2] - 2
    out = np.zeros((len(stack), height, width))
    for dy in range(3):
        for dx in range(3):
            out += kernel[dy, dx] * stack[:, dy : dy + height, dx : dx + width]
    return out


def blur(stack):
    """Crete et al. 2007, as scikit-image has it: how little of the variation along rows an average over 11 pixels takes, and
    the same along columns; the larger of both."""
    found = []
    for pixels in (stack, stack.transpose(0, 2, 1)):
        width = pixels.shape[2]
        padded = np.pad(pixels, [(0, 0), (0, 0), (5, 5)], mode="symmetric")
        smooth = np.mean([padded[:, :, i : i + width] for i in range(11)], axis=0)
        own, left = (np.abs(correlate(p, SOBEL_X))[:, 1:, 1:] for p in (pixels, smooth))
        before = own.sum((1, 2))
        lost = np.maximum(own - left, 0).sum((1, 2))
        found.append(np.where(before > 0, (before - lost) / np.where(before > 0, before, 1), 0))
    return np.maximum(*found)


def features(stack):
    """A dictionary of [N] float64 arrays, one for each of NAMES."""
    stack = np.asarray(stack, np.float64)
    height, width = stack.shape[1:]
    gx, gy = correlate(stack, SOBEL_X), correlate(stack, SOBEL_X.T)
    magnitude = np.sqrt(gx * gx + gy * gy) / 4.0
    # The gradient as a complex number: g^4 / |g|^2 (Bigun 1988). Nothing where there is no gradient.
    energy = gx * gx + gy * gy
    square, twice = gx * gx - gy * gy, 2.0 * gx * gy
    safe, total = np.where(energy > 0, energy, 1.0), np.maximum(energy.sum((1, 2)), np.finfo(np.float64).tiny)
    # The structure tensor's main axis; +0.0 turns a negative zero round, so that the range is (-90, 90].
    across, along = 2.0 * (gx * gy).sum((1, 2)) + 0.0, (gx * gx - gy * gy).sum((1, 2))
    return {
        # Immerkaer 1996, fast noise variance estimation.
        "image.noise": np.sqrt(np.pi / 2) / (6 * (width - 2) * (height - 2)) * np.abs(correlate(stack, IMMERKAER)).sum((1, 2)),
        # Peli 1990, RMS contrast: the population standard deviation.
        "image.contrast": stack.std((1, 2)),
        "image.brightness": stack.mean((1, 2)),
        # Pech-Pacheco 2000: variance of the Laplacian.
        "image.sharpness": correlate(stack, LAPLACIAN).var((1, 2)),
        "image.blur": blur(stack),
        "image.edge_density": (magnitude > EDGE_THRESHOLD).mean((1, 2)),
        "image.orientation": np.degrees(0.5 * np.arctan2(across, along)),
        "image.alignment": ((square * square - twice * twice) / safe).sum((1, 2)) / total,
        "image.slant": np.abs((2.0 * square * twice / safe).sum((1, 2))) / total,
    }
