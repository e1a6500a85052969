"""The client's image analysis in numpy float64: the definition that the golden values and the selector fits use.

An image is luminance in 0..1, [H,W]; every function takes a stack [N,H,W] and returns one value per image.
Filters are correlations over the valid region (no padding).
"""

import numpy as np

NAMES = ["image.noise", "image.contrast", "image.brightness", "image.sharpness", "image.edge_density", "image.orientation"]
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


def features(stack):
    """A dictionary of [N] float64 arrays, one for each of NAMES."""
    stack = np.asarray(stack, np.float64)
    height, width = stack.shape[1:]
    gx, gy = correlate(stack, SOBEL_X), correlate(stack, SOBEL_X.T)
    magnitude = np.sqrt(gx * gx + gy * gy) / 4.0
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
        "image.edge_density": (magnitude > EDGE_THRESHOLD).mean((1, 2)),
        "image.orientation": np.degrees(0.5 * np.arctan2(across, along)),
    }
