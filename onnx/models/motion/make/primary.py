"""The primary: means, spreads, extremes and a short spectrum of each axis, then a small perceptron.

The spectrum is a matrix product with sines and cosines, so that the whole model is standard ONNX operators. It is trained in
numpy; nothing but this file decides what the graph computes.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from dataset import WINDOW

AXES = 6
CLASSES = 7
BINS = 24
HIDDEN = 96
EPSILON = 1e-6


def waves():
    """Hann-windowed sines and cosines of the frequencies 1 … BINS over the window: [WINDOW, 2 · BINS]."""
    t = np.arange(WINDOW)
    phase = 2 * np.pi * np.outer(t, np.arange(1, BINS + 1)) / WINDOW
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (t + 0.5) / WINDOW)
    return (np.concatenate([np.cos(phase), np.sin(phase)], 1) * hann[:, None] * 4 / WINDOW).astype(np.float32)


def measures(x):
    """[N, 6, WINDOW] to [N, 6 · (4 + BINS)]: mean, spread, least, largest, log spectrum of each axis."""
    mean = x.mean(2, keepdims=True)
    still = x - mean
    spread = np.sqrt((still**2).mean(2, keepdims=True) + EPSILON)
    parts = still @ waves()
    power = parts[..., :BINS] ** 2 + parts[..., BINS:] ** 2
    spectrum = np.log(power + 1e-3)
    each = [mean, spread, x.min(2, keepdims=True), x.max(2, keepdims=True), spectrum]
    return np.concatenate(each, 2).reshape(len(x), -1)


class Primary:
    """Trained arrays: standardisation of the measures, and two layers."""

    def __init__(self, shift, scale, w1, b1, w2, b2):
        self.shift, self.scale, self.w1, self.b1, self.w2, self.b2 = shift, scale, w1, b1, w2, b2

    def features(self, x):
        return (measures(x) - self.shift) / self.scale

    def logits(self, features):
        return np.maximum(features @ self.w1 + self.b1, 0) @ self.w2 + self.b2


def turned(x, degrees, draws):
    """Windows as a watch that sits a little differently would give them; x is in the watch's units."""
    angles = np.deg2rad(degrees) * draws.standard_normal((len(x), 3))
    matrices = np.tile(np.eye(3), (len(x), 1, 1))
    for axis in range(3):
        i, j = [(1, 2), (0, 2), (0, 1)][axis]
        turn = np.tile(np.eye(3), (len(x), 1, 1))
        cos, sin = np.cos(angles[:, axis]), np.sin(angles[:, axis])
        turn[:, i, i], turn[:, j, j], turn[:, i, j], turn[:, j, i] = cos, cos, -sin, sin
        matrices = matrices @ turn
    strength = 1 + 0.1 * draws.standard_normal((len(x), 1, 1))
    return np.concatenate([matrices @ x[:, :3], matrices @ x[:, 3:] * strength], 1).astype(np.float32)


def fit(x, y, epochs=12, copies=4, rate=2e-3, decay=2e-2, batch=128, seed=0):
    """Adam with decoupled weight decay on windows in the watch's units and turned copies of them."""
    draws = np.random.default_rng(seed)
    all_x = np.concatenate([x, *[turned(x, 12, draws) for _ in range(copies)]])
    all_y = np.tile(y, copies + 1)
    raw = measures(all_x)
    shift, scale = raw.mean(0), raw.std(0) + 1e-3
    features = ((raw - shift) / scale).astype(np.float32)
    size = features.shape[1]
    weights = [
        draws.standard_normal((size, HIDDEN)) * np.sqrt(2 / size),
        np.zeros(HIDDEN),
        draws.standard_normal((HIDDEN, CLASSES)) * np.sqrt(1 / HIDDEN),
        np.zeros(CLASSES),
    ]
    weights = [w.astype(np.float32) for w in weights]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    steps = epochs * (len(features) // batch)
    step = 0
    for _ in range(epochs):
        order = draws.permutation(len(features))
        for at in range(0, len(order) - batch + 1, batch):
            rows = order[at : at + batch]
            step += 1
            for i, g in enumerate(gradient(features[rows], all_y[rows], weights, draws)):
                first[i] = 0.9 * first[i] + 0.1 * g
                second[i] = 0.99 * second[i] + 0.01 * g * g
                now = rate * min(1, step / 100) * (1 - step / (steps + 1))
                move = first[i] / (1 - 0.9**step) / (np.sqrt(second[i] / (1 - 0.99**step)) + 1e-8)
                weights[i] -= now * (move + decay * weights[i] * (weights[i].ndim == 2) * 10)
    return Primary(shift.astype(np.float32), scale.astype(np.float32), *weights)


def gradient(x, y, weights, draws, dropout=0.2):
    """Of the mean cross-entropy, with features dropped out."""
    w1, b1, w2, b2 = weights
    x = x * (draws.random(x.shape) >= dropout) / (1 - dropout)
    h = np.maximum(x @ w1 + b1, 0)
    z = h @ w2 + b2
    error = np.exp(z - z.max(1, keepdims=True))
    error /= error.sum(1, keepdims=True)
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    back = error @ w2.T * (h > 0)
    return [x.T @ back, back.sum(0), h.T @ error, error.sum(0)]


def graph(model):
    """The ONNX model: `series` [N, 6, 128] in the watch's units, `features`, `logits`."""
    nodes, constants = [], []

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    time = constant("axis.time", np.array([2], np.int64))
    mean = op("ReduceMean", ["series", time], "mean")
    still = op("Sub", ["series", mean], "still")
    square = op("Mul", [still, still], "square")
    variance = op("ReduceMean", [square, time], "variance")
    variance = op("Add", [variance, constant("epsilon", np.float32(EPSILON))], "variance.positive")
    spread = op("Sqrt", [variance], "spread")
    least, largest = op("ReduceMin", ["series", time], "least"), op("ReduceMax", ["series", time], "largest")
    parts = op("MatMul", [still, constant("waves", waves())], "parts")
    power = op("Mul", [parts, parts], "power")
    nodes.append(helper.make_node("Split", [power], ["power.cosine", "power.sine"], name="power.split", axis=2, num_outputs=2))
    power = op("Add", ["power.cosine", "power.sine"], "power.sum")
    power = op("Add", [power, constant("floor", np.float32(1e-3))], "power.floored")
    spectrum = op("Log", [power], "spectrum")
    every = op("Concat", [mean, spread, least, largest, spectrum], "measures", axis=2)
    flat = op("Flatten", [every], "measures.flat", axis=1)
    moved = op("Sub", [flat, constant("features.shift", model.shift)], "features.moved")
    features = op("Div", [moved, constant("features.scale", model.scale)], "features")
    hidden = op("Gemm", [features, constant("hidden.weight", model.w1), constant("hidden.bias", model.b1)], "hidden")
    hidden = op("Relu", [hidden], "hidden.positive")
    op("Gemm", [hidden, constant("head.weight", model.w2), constant("head.bias", model.b2)], "logits")
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "motion",
        [info("series", TensorProto.FLOAT, ["N", AXES, WINDOW])],
        [info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        constants,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
