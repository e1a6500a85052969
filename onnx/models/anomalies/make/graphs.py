"""The forecaster and the temporal patch as ONNX graphs, and the same scores for a whole series at once in numpy.

A window holds 1,024 moments, the newest last. Five curves are drawn over it: the level and its mirror image, the mean of the
last 20 moments and its mirror image, the spread of the last 5, and the forecast error. A moment stands out by how far a curve
exceeds everything in the 804 moments before, in units of the curve's own spread over the window. The score is the sum over
curves, and 0 unless it is higher than at every one of the 200 moments before, so that one disturbance is told once.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WINDOW, CONTEXT, RECENT, LEAD = 1024, 804, 200, 19
ORDER, SHORT, LONG = 8, 5, LEAD + 1
FLAT = 1e-3
assert CONTEXT + RECENT + 1 + LEAD == WINDOW


class Graph:
    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name, array, dtype=np.float32):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype), name))
        return name

    def op(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def moments(self, x, name, time):
        """Mean and population standard deviation over time, kept as [N, C, 1]."""
        mean = self.op("ReduceMean", [x, time], name + ".mean")
        still = self.op("Sub", [x, mean], name + ".still")
        square = self.op("Mul", [still, still], name + ".square")
        variance = self.op("ReduceMean", [square, time], name + ".variance")
        return mean, still, self.op("Sqrt", [variance], name + ".deviation")

    def model(self, name, inputs, outputs):
        info = lambda pair: helper.make_tensor_value_info(pair[0], TensorProto.FLOAT, pair[1])
        graph = helper.make_graph(self.nodes, name, [info(i) for i in inputs], [info(o) for o in outputs], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def primary(weights):
    """`series` [N, 1, 1024] → `normal`, `error` [N, 1, 1016], `score` [N, 1]: the newest error among all of the window."""
    g = Graph()
    time = g.constant("axis.time", [2], np.int64)
    mean, still, deviation = g.moments("series", "series", time)
    size = g.op("Abs", [mean], "series.size")
    floor = g.op("Mul", [size, g.constant("flat", FLAT)], "series.floor")
    scale = g.op("Add", [deviation, floor], "series.roughness")
    scale = g.op("Add", [scale, g.constant("tiny", 1e-6)], "series.scale")
    normal = g.op("Div", [still, scale], "normal")
    kernel = g.constant("forecast.residual", np.concatenate([-weights[::-1], [1]])[None, None])
    residual = g.op("Conv", [normal, kernel], "residual", kernel_shape=[ORDER + 1])
    error = g.op("Abs", [residual], "error")
    _, centred, spread = g.moments(error, "error", time)
    newest = g.op("Slice", [centred, g.constant("newest", [-1], np.int64), g.constant("end", [2**31 - 1], np.int64), time], "error.newest")
    spread = g.op("Add", [spread, g.constant("error.flat", FLAT)], "error.spread")
    score = g.op("Div", [newest, spread], "score.kept")
    g.op("Flatten", [score], "score", axis=1)
    return g.model("forecaster", [("series", ["N", 1, WINDOW])], [("score", ["N", 1])])


def patch():
    """`normal` and `error` of the primary → `anomaly` [N, 1], which replaces the score."""
    g = Graph()
    time = g.constant("axis.time", [2], np.int64)
    cut = lambda x, name, count: g.op(
        "Slice", [x, g.constant(name + ".from", [count], np.int64), g.constant(name + ".to", [2**31 - 1], np.int64), time], name
    )
    average = lambda x, name, width: g.op(
        "Conv", [x, g.constant(name + ".kernel", np.full((1, 1, width), 1 / width))], name, kernel_shape=[width]
    )
    level = cut("normal", "level", LEAD)
    long = average("normal", "long", LONG)
    short = average("normal", "short", SHORT)
    square = g.op("Mul", ["normal", "normal"], "square")
    power = average(square, "power", SHORT)
    lost = g.op("Mul", [short, short], "short.square")
    variance = g.op("Sub", [power, lost], "short.variance")
    spread = g.op("Sqrt", [g.op("Relu", [variance], "short.positive")], "short.spread")
    spread = cut(spread, "spread", LEAD - SHORT + 1)
    error = cut("error", "error.recent", LEAD - ORDER)
    mirror = g.op("Neg", [level], "level.mirror")
    long_mirror = g.op("Neg", [long], "long.mirror")
    curves = g.op("Concat", [level, mirror, long, long_mirror, spread, error], "curves", axis=1)
    _, _, deviation = g.moments(curves, "curves", time)
    scale = g.op("Add", [deviation, g.constant("flat", FLAT)], "curves.scale")
    before = g.op("MaxPool", [curves], "before.every", kernel_shape=[CONTEXT], strides=[1])
    before = g.op("Slice", [before, g.constant("first", [0], np.int64), g.constant("count", [RECENT + 1], np.int64), time], "before")
    now = cut(curves, "now", CONTEXT)
    beyond = g.op("Sub", [now, before], "beyond")
    beyond = g.op("Relu", [beyond], "beyond.positive")
    beyond = g.op("Div", [beyond, scale], "beyond.scaled")
    channel = g.constant("axis.channel", [1], np.int64)
    total = g.op("ReduceSum", [beyond, channel], "total", keepdims=1)
    newest = cut(total, "newest", RECENT)
    earlier = g.op("Slice", [total, "first", g.constant("recent", [RECENT], np.int64), time], "earlier")
    highest = g.op("ReduceMax", [earlier, time], "highest")
    higher = g.op("Greater", [newest, highest], "higher")
    higher = g.op("Cast", [higher], "higher.number", to=TensorProto.FLOAT)
    told = g.op("Mul", [newest, higher], "told")
    g.op("Flatten", [told], "anomaly", axis=1)
    inputs = [("normal", ["N", 1, WINDOW]), ("error", ["N", 1, WINDOW - ORDER])]
    return g.model("temporal-anomaly", inputs, [("anomaly", ["N", 1])])


def padded(values):
    """A series with its first value held before it, as the client bridges what it has not seen."""
    return np.concatenate([np.full(WINDOW - 1, values[0]), values]).astype(np.float64)


def rolling(x, width):
    """Mean and population standard deviation of each full window of `width`."""
    x = x - x.mean()
    sums = np.concatenate([[0], np.cumsum(x)])
    squares = np.concatenate([[0], np.cumsum(x * x)])
    mean = (sums[width:] - sums[:-width]) / width
    return mean, np.sqrt(np.maximum((squares[width:] - squares[:-width]) / width - mean**2, 0))


def highest_before(x, count):
    """The largest of the `count` values before each moment; the first `count` moments have none."""
    from collections import deque

    out, kept = np.full(len(x), np.inf), deque()
    for at, value in enumerate(x):
        while kept and kept[0] < at - count:
            kept.popleft()
        if at >= count:
            out[at] = x[kept[0]]
        while kept and x[kept[-1]] <= value:
            kept.pop()
        kept.append(at)
    return out


def whole(values, weights):
    """The scores of `primary` and of `patch` at every moment of a series, in float64."""
    x = padded(values)
    n = len(values)
    sums = np.concatenate([[0], np.cumsum(x - x.mean())])
    mean = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW + x.mean()
    scale = rolling(x, WINDOW)[1] + FLAT * np.abs(mean) + 1e-6
    # A forecast whose weights did not add up to 1 would depend on the level, which the window takes away.
    assert abs(weights.sum() - 1) < 1e-9
    error = np.abs(np.convolve(x, np.concatenate([[1], -weights]), "valid"))
    error_mean, error_spread = windowed(error, WINDOW - ORDER, n)
    base = (error[-n:] / scale - error_mean / scale) / (error_spread / scale + FLAT)
    long = np.concatenate([np.full(LONG - 1, x[0]), np.convolve(x, np.full(LONG, 1 / LONG), "valid")])
    spread = np.concatenate([np.zeros(SHORT - 1), rolling(x, SHORT)[1]])
    error = np.concatenate([np.zeros(ORDER), error])
    total = np.zeros((n, RECENT + 1))
    for curve in (x, -x, long, -long, spread, error):
        beyond = np.maximum(curve - highest_before(curve, CONTEXT), 0)
        beyond[~np.isfinite(beyond)] = 0
        deviation = windowed(curve, WINDOW - LEAD, n)[1]
        recent = np.lib.stride_tricks.sliding_window_view(beyond, RECENT + 1)[-n:]
        total += recent / (deviation + FLAT * scale)[:, None]
    newest = total[:, -1]
    return base, np.where(newest > total[:, :-1].max(1), newest, 0)


def windowed(x, width, count):
    """Mean and deviation of the windows that end at the last `count` moments."""
    middle = x.mean()
    mean, deviation = rolling(x, width)
    return mean[-count:] + middle, deviation[-count:]
