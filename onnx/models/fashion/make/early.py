"""The early answer: a small tail at `stem.pooled`, for when there is no time for the rest of the model.

What it replaces, the logits, makes everything between the stem and them superfluous. It learns as the compact model does
(compact.py), with the primary's own stem."""

import compact
from graphs import Graph


def train(data, primary, log=print):
    """Returns the folded weights."""
    return compact.train(data, primary, stem=primary.conv["stem"], log=log)


def graph(weights):
    """`stem.pooled` [N,16,14,14] to logits [N,10] with these weights; see compact.run."""
    w = {name: value.numpy() for name, value in weights.items()}
    g = Graph("early-answer")
    conv = lambda x, name: g.node("Relu", [g.conv(x, name, w[name + ".weight"], w[name + ".bias"], name + ".conv")], name)
    x = g.node("MaxPool", [conv("stem", "middle")], "middle.pooled", kernel_shape=[2, 2], strides=[2, 2])
    x = g.node("Flatten", [g.node("GlobalAveragePool", [conv(x, "last")], "mean")], "summary", axis=1)
    g.node("Gemm", [x, g.constant("head.weight", w["head.weight"]), g.constant("head.bias", w["head.bias"])], "logits", transB=1)
    return g.model({"stem": ["N", 16, 14, 14]}, {"logits": ["N", 10]}, "Answers from the primary's first layer.")
