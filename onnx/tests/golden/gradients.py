#!/usr/bin/env python3
"""Gradients of ONNX models by PyTorch's autograd in float64: the oracle of the gradient tests.

    python3 gradients.py make              writes gradients/<case>.<loss>.onnx and .safetensors beside this file
    python3 gradients.py check FOLDER      compares what `cargo run --example gradient -- … --dump FOLDER` wrote

Needs onnx, numpy and torch (Debian's python3-torch does); the Rust tests need none of them. An operator is
one small function on torch tensors, written from its ONNX specification and not from our rules.
"""

import ctypes
import json
import pathlib
import struct
import sys

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto as T
from onnx import helper, numpy_helper

HERE = pathlib.Path(__file__).parent
TOLERANCE = 1e-3
NAMES = {"float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32"}
TORCH = {"float64": torch.float64, "int64": torch.int64, "int32": torch.int32, "bool": torch.bool, "uint8": torch.uint8,
         "int8": torch.int8}


def to_torch(array):
    array = np.asarray(array)
    if array.dtype in (np.float32, np.float16):
        array = array.astype(np.float64)
    # Through bytes: Debian's torch and a newer numpy do not share memory.
    flat = torch.frombuffer(bytearray(array.tobytes() or b"\0" * 8), dtype=TORCH[str(array.dtype)])
    return flat[: array.size].reshape(array.shape)


def to_numpy(tensor):
    tensor = tensor.detach().contiguous()
    data = ctypes.string_at(tensor.data_ptr(), tensor.numel() * tensor.element_size())
    return np.frombuffer(data, str(tensor.dtype).split(".")[1]).reshape(tuple(tensor.shape))


def load(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    types = {short: long for long, short in NAMES.items()}
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], types[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def save(path, tensors):
    header, offset, data = {}, 0, b""
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name]).reshape(np.shape(tensors[name]))
        raw = array.tobytes()
        header[name] = {"dtype": NAMES[str(array.dtype)], "shape": list(array.shape),
                        "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# --- operators -------------------------------------------------------------------------------------------------------


def ints(tensor):
    return [int(v) for v in tensor.reshape(-1).tolist()]


def spatial_pads(x, kernel, attributes):
    rank = len(kernel)
    strides = attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", "VALID"):
        pads = attributes.get("pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
        return strides, dilations, list(pads[:rank]), list(pads[rank:])
    begin, end = [], []
    for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begin.append(small if auto == "SAME_UPPER" else large)
        end.append(large if auto == "SAME_UPPER" else small)
    return strides, dilations, begin, end


def padded(x, begin, end, value):
    flat = [v for pair in zip(reversed(begin), reversed(end)) for v in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def conv(a, x, w, b=None):
    strides, dilations, begin, end = spatial_pads(x, w.shape[2:], a)
    f = {3: F.conv1d, 4: F.conv2d}[x.dim()]
    return f(padded(x, begin, end, 0.0), w, b, strides, 0, dilations, a.get("group", 1))


def conv_transpose(a, x, w, b=None):
    rank = x.dim() - 2
    f = {3: F.conv_transpose1d, 4: F.conv_transpose2d}[x.dim()]
    pads = a.get("pads", [0] * 2 * rank)
    assert pads[:rank] == pads[rank:], "uneven pads"
    return f(x, w, b, a.get("strides", [1] * rank), pads[:rank], a.get("output_padding", [0] * rank),
             a.get("group", 1), a.get("dilations", [1] * rank))


def windows(a, x, value):
    kernel = a["kernel_shape"]
    strides, dilations, begin, end = spatial_pads(x, kernel, a)
    if a.get("ceil_mode", 0):
        for i, k in enumerate(kernel):
            span = x.shape[i + 2] + begin[i] + end[i] - (k - 1) * dilations[i] - 1
            end[i] += -span % strides[i]
    return padded(x, begin, end, value), kernel, strides, dilations


def max_pool(a, x):
    x, kernel, strides, dilations = windows(a, x, -1e300)
    return {3: F.max_pool1d, 4: F.max_pool2d}[x.dim()](x, kernel, strides, 0, dilations)


def average_pool(a, x):
    f = {3: F.avg_pool1d, 4: F.avg_pool2d}[x.dim()]
    taken, kernel, strides, _ = windows(a, x, 0.0)
    if a.get("count_include_pad", 0):
        return f(taken, kernel, strides)
    ones, _, _, _ = windows(a, torch.ones_like(x), 0.0)
    return f(taken, kernel, strides) / f(ones, kernel, strides)


def reduce(f):
    def run(a, x, axes=None):
        axes = a.get("axes") if axes is None else ints(axes)
        axes = axes or list(range(x.dim()))
        return f(x, axes, bool(a.get("keepdims", 1)))
    return run


def slice_(a, x, starts, ends, axes=None, steps=None):
    starts, ends = ints(starts), ints(ends)
    axes = ints(axes) if axes is not None else list(range(len(starts)))
    steps = ints(steps) if steps is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps):
        index = list(range(x.shape[axis]))[slice(start, end if abs(end) < 2**40 else (None if end > 0 or step < 0 else 0), step)]
        x = x.index_select(axis, torch.tensor(index, dtype=torch.int64))
    return x


def pad(a, x, pads, value=None, axes=None):
    pads = ints(pads)
    axes = ints(axes) if axes is not None else list(range(x.dim()))
    flat = [0] * 2 * x.dim()
    for i, axis in enumerate(axes):
        flat[2 * (x.dim() - 1 - axis % x.dim())] = pads[i]
        flat[2 * (x.dim() - 1 - axis % x.dim()) + 1] = pads[i + len(axes)]
    mode = a.get("mode", b"constant").decode()
    if mode == "constant":
        return F.pad(x, flat, value=0.0 if value is None else float(value))
    while flat and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    shape = x.shape
    lead = max(x.dim() - len(flat) // 2, 1)
    y = F.pad(x.reshape(1, -1, *shape[lead:]), flat, mode={"edge": "replicate"}.get(mode, mode))
    return y.reshape(*shape[:lead], *y.shape[2:])


def gather(a, x, indices):
    axis = a.get("axis", 0) % x.dim()
    flat = indices.reshape(-1) % x.shape[axis]
    return x.index_select(axis, flat).reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1:])


def reshape(a, x, shape):
    shape = [x.shape[i] if n == 0 and not a.get("allowzero", 0) else n for i, n in enumerate(ints(shape))]
    return x.reshape(shape)


def squeeze(a, x, axes=None):
    axes = [i % x.dim() for i in ints(axes)] if axes is not None else [i for i, n in enumerate(x.shape) if n == 1]
    return x.reshape([n for i, n in enumerate(x.shape) if i not in axes])


def unsqueeze(a, x, axes):
    rank = x.dim() + axes.numel()
    for axis in sorted(i % rank for i in ints(axes)):
        x = x.unsqueeze(axis)
    return x


def split(a, x, sizes=None, outputs=1):
    axis = a.get("axis", 0)
    sizes = ints(sizes) if sizes is not None else [-(-x.shape[axis] // outputs)] * outputs
    sizes[-1] = x.shape[axis] - sum(sizes[:-1])
    return list(torch.split(x, sizes, axis))


def batch_norm(a, x, scale, bias, mean, variance):
    shape = [1, -1] + [1] * (x.dim() - 2)
    scale, bias, mean, variance = (v.reshape(shape) for v in (scale, bias, mean, variance))
    return (x - mean) / torch.sqrt(variance + a.get("epsilon", 1e-5)) * scale + bias


def layer_norm(a, x, scale, bias=None):
    axes = list(range(a.get("axis", -1) % x.dim(), x.dim()))
    centred = x - x.mean(axes, keepdim=True)
    y = centred / torch.sqrt((centred**2).mean(axes, keepdim=True) + a.get("epsilon", 1e-5)) * scale
    return y if bias is None else y + bias


def instance_norm(a, x, scale, bias):
    return F.instance_norm(x, weight=scale, bias=bias, eps=a.get("epsilon", 1e-5))


def gemm(a, x, y, c=None):
    x = x.t() if a.get("transA", 0) else x
    y = y.t() if a.get("transB", 0) else y
    r = a.get("alpha", 1.0) * (x @ y)
    return r if c is None else r + a.get("beta", 1.0) * c


def clip(a, x, low=None, high=None):
    x = x if low is None else torch.where(x > low, x, low)
    return x if high is None else torch.where(x < high, x, high)


def cast(a, x):
    to = a["to"]
    kinds = {T.INT64: torch.int64, T.INT32: torch.int32, T.BOOL: torch.bool}
    return x.to(kinds.get(to, torch.float64))


def dequantize(a, q, scale, zero=None):
    axis = a.get("axis", 1)
    shape = [-1 if i == axis % max(q.dim(), 1) else 1 for i in range(q.dim())] if scale.numel() > 1 else []
    levels = q.to(torch.float64)
    if zero is not None:
        levels = levels - zero.to(torch.float64).reshape(shape if zero.numel() > 1 else [])
    return levels * scale.reshape(shape)


def resize(a, x, roi=None, scales=None, sizes=None):
    mode = a.get("mode", b"nearest").decode()
    coordinates = a.get("coordinate_transformation_mode", b"half_pixel").decode()
    size = ints(sizes)[2:] if sizes is not None else [int(n * s) for n, s in zip(x.shape[2:], scales.tolist()[2:])]
    if mode == "nearest":
        assert coordinates == "asymmetric" and a.get("nearest_mode", b"round_prefer_floor") == b"floor"
        return F.interpolate(x, size=size, mode="nearest")
    return F.interpolate(x, size=size, mode="bilinear", align_corners=coordinates == "align_corners")


def lstm_cell(a, x, h, c, r, b, p):
    """Gates in the order i, o, f, c; peepholes in the order i, o, f."""
    i, o, f, g = (x + h @ r.t() + b).chunk(4, -1)
    if p is not None:
        i, f = i + p[0] * c, f + p[2] * c
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return (o if p is None else o + p[1] * c).sigmoid() * c.tanh(), c


def gru_cell(a, x, h, c, r, b, p):
    """Gates in the order z, r, h."""
    (xz, xr, xn), (rz, rr, rn), (bz, br, bn) = x.chunk(3, -1), r.chunk(3), b.chunk(3)
    update, reset = (xz + h @ rz.t() + bz).sigmoid(), (xr + h @ rr.t() + br).sigmoid()
    inner = reset * (h @ rn.t() + bn) if a.get("linear_before_reset", 0) else (reset * h) @ rn.t() + bn
    return (1 - update) * (xn + inner).tanh() + update * h, c


def rnn_cell(a, x, h, c, r, b, p):
    return (x + h @ r.t() + b).tanh(), c


def recurrent(cell):
    def run(a, x, w, r, bias=None, lengths=None, h=None, c=None, p=None):
        assert lengths is None and not a.get("layout", 0)
        direction = a.get("direction", b"forward").decode()
        sequences, hidden, cells = [], [], []
        for d, back in enumerate({"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]):
            zeros = torch.zeros(x.shape[1], r.shape[-1], dtype=x.dtype)
            wb, rb = torch.zeros(2, r.shape[1], dtype=x.dtype) if bias is None else bias[d].chunk(2)
            hd, cd = zeros if h is None else h[d], zeros if c is None else c[d]
            made = [None] * x.shape[0]
            for t in sorted(range(x.shape[0]), reverse=back):
                hd, cd = cell(a, x[t] @ w[d].t() + wb, hd, cd, r[d], rb, None if p is None else p[d].chunk(3))
                made[t] = hd
            sequences.append(torch.stack(made))
            hidden.append(hd)
            cells.append(cd)
        return [torch.stack(sequences, 1), torch.stack(hidden), torch.stack(cells)]
    return run


def local_response(a, x):
    return F.local_response_norm(x, a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0))


def variadic(f):
    def run(a, first, *rest):
        for other in rest:
            first = f(first, other)
        return first
    return run


def expand(a, x, shape):
    return x * torch.ones(ints(shape), dtype=x.dtype) if x.dtype != torch.bool else x.expand(ints(shape))


def constant_of_shape(a, shape):
    value = to_torch(numpy_helper.to_array(a["value"])) if "value" in a else torch.zeros(1, dtype=torch.float64)
    return value.reshape(()).expand(ints(shape))


def divide(a, x, y):
    return x / y if x.dtype == torch.float64 else torch.div(x, y, rounding_mode="trunc")


OPERATORS = {
    "Abs": lambda a, x: x.abs(),
    "Add": lambda a, x, y: x + y,
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "Clip": clip,
    "Concat": lambda a, *x: torch.cat(x, a["axis"]),
    "ConstantOfShape": constant_of_shape,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DequantizeLinear": dequantize,
    "Div": divide,
    "Dropout": lambda a, x, *_: x,
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)),
    "Equal": lambda a, x, y: x == y,
    "Erf": lambda a, x: torch.erf(x),
    "Exp": lambda a, x: x.exp(),
    "Expand": expand,
    "Flatten": lambda a, x: x.reshape(int(np.prod(x.shape[: a.get("axis", 1)])), -1),
    "Gather": gather,
    "GRU": recurrent(gru_cell),
    "Gelu": lambda a, x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "Gemm": gemm,
    "GlobalAveragePool": lambda a, x: x.mean(list(range(2, x.dim())), keepdim=True),
    "GlobalMaxPool": lambda a, x: x.amax(list(range(2, x.dim())), keepdim=True),
    "HardSigmoid": lambda a, x: F.hardtanh(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0.0, 1.0),
    "HardSwish": lambda a, x: F.hardswish(x),
    "Identity": lambda a, x: x,
    "InstanceNormalization": instance_norm,
    "LRN": local_response,
    "LSTM": recurrent(lstm_cell),
    "LayerNormalization": layer_norm,
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "Less": lambda a, x, y: x < y,
    "Log": lambda a, x: x.log(),
    "LogSoftmax": lambda a, x: F.log_softmax(x, a.get("axis", -1)),
    "MatMul": lambda a, x, y: x @ y,
    "Max": variadic(torch.maximum),
    "MaxPool": max_pool,
    "Min": variadic(torch.minimum),
    "Mul": lambda a, x, y: x * y,
    "Neg": lambda a, x: -x,
    "PRelu": lambda a, x, s: torch.where(x > 0, x, s * x),
    "Pad": pad,
    "Pow": lambda a, x, y: x**y,
    "RNN": recurrent(rnn_cell),
    "Reciprocal": lambda a, x: 1 / x,
    "ReduceL2": reduce(lambda x, axes, keep: (x**2).sum(axes, keepdim=keep).sqrt()),
    "ReduceMax": reduce(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": reduce(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceSum": reduce(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "Relu": lambda a, x: F.relu(x),
    "Reshape": reshape,
    "Resize": resize,
    "Shape": lambda a, x: torch.tensor(list(x.shape), dtype=torch.int64),
    "Sigmoid": lambda a, x: x.sigmoid(),
    "Slice": slice_,
    "Softmax": lambda a, x: F.softmax(x, a.get("axis", -1)),
    "Softplus": lambda a, x: F.softplus(x, threshold=1e9),
    "Sqrt": lambda a, x: x.sqrt(),
    "Squeeze": squeeze,
    "Sub": lambda a, x, y: x - y,
    "Sum": variadic(lambda x, y: x + y),
    "Tanh": lambda a, x: x.tanh(),
    "Transpose": lambda a, x: x.permute(a.get("perm", list(reversed(range(x.dim()))))),
    "Unsqueeze": unsqueeze,
    "Where": lambda a, c, x, y: torch.where(c, x, y),
}


def forward(model, values):
    """Runs the graph on a dict of named torch tensors; returns its first output."""
    for node in model.graph.node:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        inputs = [values[name] if name else None for name in node.input]
        if node.op_type == "Constant":
            made = to_torch(numpy_helper.to_array(attributes["value"]))
        elif node.op_type == "Split":
            made = split(attributes, *inputs, outputs=len(node.output))
        else:
            made = OPERATORS[node.op_type](attributes, *inputs)
        for name, value in zip(node.output, made if isinstance(made, list) else [made]):
            values[name] = value
    return values[model.graph.output[0].name]


def loss_of(kind, y, target):
    if kind == "softmax_cross_entropy":
        return F.cross_entropy(y, target)
    if kind == "sigmoid_cross_entropy":
        return F.binary_cross_entropy_with_logits(y, target)
    if kind == "mean_squared_error":
        return F.mse_loss(y, target)
    axis = 1 if y.dim() > 2 else -1
    return -(F.softmax(y, axis) * F.log_softmax(y, axis)).sum(axis).mean()


def gradients(model, kind, feed, trainable):
    """The loss and the gradient of each trainable tensor, as float64 arrays."""
    values = {tensor.name: to_torch(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    values.update({name: to_torch(array) for name, array in feed.items()})
    for name in trainable:
        values[name] = values[name].clone().requires_grad_(True)
    leaves = [values[name] for name in trainable]
    target = values.get("target")
    loss = loss_of(kind, forward(model, values), target)
    found = torch.autograd.grad(loss, leaves)
    return float(loss), {name: to_numpy(gradient) for name, gradient in zip(trainable, found)}


# --- golden cases ----------------------------------------------------------------------------------------------------

random = np.random.default_rng(11)


def weight(*shape, scale=0.4):
    return (random.standard_normal(shape) * scale).astype(np.float32)


def cases():
    """(name, loss, operator set, inputs, weights, nodes); the last node makes `y`."""
    node = helper.make_node

    def conv_net():
        weights = {"w1": weight(4, 1, 3, 3), "b1": weight(4), "w2": weight(4, 1, 3, 3), "w3": weight(6, 4, 1, 1),
                   "b3": weight(6), "w4": weight(6, 3, 3, 3), "fc.w": weight(5, 6), "fc.b": weight(5),
                   "zero": np.float32(0), "six": np.float32(6)}
        return weights, [
            node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
            node("Relu", ["c1"], ["r1"]),
            node("MaxPool", ["r1"], ["p1"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Conv", ["p1", "w2"], ["c2"], group=4, pads=[1, 1, 1, 1]),
            node("Clip", ["c2", "zero", "six"], ["r2"]),
            node("Conv", ["r2", "w3", "b3"], ["c3"]),
            node("HardSwish", ["c3"], ["r3"]),
            node("Conv", ["r3", "w4"], ["c4"], group=2, strides=[2, 2], auto_pad="SAME_UPPER"),
            node("GlobalAveragePool", ["c4"], ["g"]),
            node("Flatten", ["g"], ["f"]),
            node("Gemm", ["f", "fc.w", "fc.b"], ["y"], transB=1),
        ]

    def attention():
        weights = {name: weight(8, 8) for name in ("q", "k", "v", "o")}
        weights |= {"table": weight(12, 8), "s": 1 + weight(8), "b": weight(8), "h": weight(8, 3),
                    "heads": np.array([2, 5, 2, 4], np.int64), "flat": np.array([2, 5, 8], np.int64),
                    "root": np.float32(2.0)}
        nodes = [node("Gather", ["table", "ids"], ["e"])]
        for name in "qkv":
            nodes += [node("MatMul", ["e", name], [name + "1"]), node("Reshape", [name + "1", "heads"], [name + "2"]),
                      node("Transpose", [name + "2"], [name + "3"], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3])]
        return weights, nodes + [
            node("MatMul", ["q3", "k3"], ["s1"]), node("Div", ["s1", "root"], ["s2"]), node("Softmax", ["s2"], ["p"]),
            node("MatMul", ["p", "v3"], ["a1"]), node("Transpose", ["a1"], ["a2"], perm=[0, 2, 1, 3]),
            node("Reshape", ["a2", "flat"], ["a3"]), node("MatMul", ["a3", "o"], ["a4"]), node("Add", ["a4", "e"], ["r"]),
            node("LayerNormalization", ["r", "s", "b"], ["n"]), node("MatMul", ["n", "h"], ["l"]),
            node("Transpose", ["l"], ["y"], perm=[0, 2, 1]),
        ]

    def decoder():
        weights = {"w1": weight(3, 4, 3, 3), "b1": weight(4), "w2": weight(4, 2, 2, 2), "s": 1 + weight(4, scale=0.1),
                   "b": weight(4), "m": weight(4), "v": np.abs(weight(4)) + 0.5, "p": weight(4, 1, 1),
                   "roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32),
                   "pads": np.array([0, 0, 1, 2, 0, 0, 2, 1], np.int64)}
        return weights, [
            node("Pad", ["x", "pads"], ["d"], mode="reflect"),
            node("ConvTranspose", ["d", "w1", "b1"], ["c1"], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
            node("BatchNormalization", ["c1", "s", "b", "m", "v"], ["n1"]),
            node("PRelu", ["n1", "p"], ["r1"]),
            node("AveragePool", ["r1"], ["a1"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
            node("ConvTranspose", ["a1", "w2"], ["c2"], strides=[2, 2]),
            node("Resize", ["c2", "roi", "scales"], ["y"], mode="linear", coordinate_transformation_mode="half_pixel"),
        ]

    def gates():
        weights = {"a": weight(6, 5), "b": weight(5), "c": weight(6, 5), "d": weight(5, 5)}
        return weights, [
            node("MatMul", ["x", "a"], ["m1"]), node("Add", ["m1", "b"], ["m2"]), node("Sigmoid", ["m2"], ["g"]),
            node("MatMul", ["x", "c"], ["m3"]), node("Tanh", ["m3"], ["t"]), node("Mul", ["g", "t"], ["u"]),
            node("MatMul", ["u", "d"], ["v"]), node("Max", ["v", "u"], ["w"]), node("Gelu", ["w"], ["z"]),
            node("Softplus", ["z"], ["y"]),
        ]

    def sequence():
        weights = {"w1": weight(4, 3, 3), "w2": weight(4, 4, 3), "s": 1 + weight(4, scale=0.1), "b": weight(4)}
        return weights, [
            node("Conv", ["x", "w1"], ["c1"], dilations=[2], pads=[2, 2]), node("Elu", ["c1"], ["r1"]),
            node("InstanceNormalization", ["r1", "s", "b"], ["n1"]),
            node("Conv", ["n1", "w2"], ["c2"], strides=[2], pads=[1, 1]),
            node("MaxPool", ["c2"], ["p"], kernel_shape=[2], strides=[2]),
            node("LeakyRelu", ["p"], ["y"], alpha=0.1),
        ]

    def recurrence():
        weights = {"w1": weight(2, 12, 3), "r1": weight(2, 12, 3), "b1": weight(2, 24), "h1": weight(2, 2, 3),
                   "c1": weight(2, 2, 3), "w2": weight(1, 12, 6), "r2": weight(1, 12, 4), "b2": weight(1, 24),
                   "w3": weight(1, 9, 4), "r3": weight(1, 9, 3), "b3": weight(1, 18), "w4": weight(1, 4, 3),
                   "r4": weight(1, 4, 4), "joined": np.array([5, 2, 6], np.int64), "axis": np.array([1], np.int64),
                   "first": np.array([0], np.int64), "second": np.array(1, np.int64)}
        return weights, [
            node("LSTM", ["x", "w1", "r1", "b1", "", "h1", "c1"], ["l", "", "lc"], hidden_size=3, direction="bidirectional"),
            node("Transpose", ["l"], ["t"], perm=[0, 2, 1, 3]), node("Reshape", ["t", "joined"], ["j"]),
            node("GRU", ["j", "w2", "r2", "b2"], ["g"], hidden_size=4, linear_before_reset=1),
            node("Squeeze", ["g", "axis"], ["s"]),
            node("GRU", ["s", "w3", "r3", "b3"], ["v"], hidden_size=3, direction="reverse"),
            node("Squeeze", ["v", "axis"], ["q"]), node("RNN", ["q", "w4", "r4"], ["", "h"], hidden_size=4),
            node("Squeeze", ["h", "first"], ["f"]), node("Gather", ["lc", "second"], ["c"], axis=0),
            node("Concat", ["f", "c"], ["y"], axis=1),
        ]

    image, small = weight(2, 1, 9, 9, scale=1.0), weight(1, 3, 4, 5, scale=1.0)
    ids = random.integers(0, 12, (2, 5))
    return [
        ("network", "softmax_cross_entropy", 17, {"x": image}, *conv_net()),
        ("attention", "softmax_cross_entropy", 17, {"ids": ids}, *attention()),
        ("decoder", "mean_squared_error", 15, {"x": small}, *decoder()),
        ("gates", "sigmoid_cross_entropy", 20, {"x": weight(4, 6, scale=1.0)}, *gates()),
        ("sequence", "entropy", 13, {"x": weight(2, 3, 16, scale=1.0)}, *sequence()),
        ("recurrence", "softmax_cross_entropy", 14, {"x": weight(5, 2, 3, scale=1.0)}, *recurrence()),
    ]


def make():
    folder = HERE / "gradients"
    folder.mkdir(exist_ok=True)
    kinds = {"float32": T.FLOAT, "int64": T.INT64}
    for name, kind, opset, inputs, weights, nodes in cases():
        def build(shape):
            graph = helper.make_graph(
                nodes, name,
                [helper.make_tensor_value_info(n, kinds[str(v.dtype)], v.shape) for n, v in inputs.items()],
                [helper.make_tensor_value_info("y", T.FLOAT, shape)],
                [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()])
            return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)

        values = {n: to_torch(v) for n, v in (inputs | weights).items()}
        y = to_numpy(forward(build(None), values))
        model = build(y.shape)
        onnx.checker.check_model(model, full_check=True)
        feed = dict(inputs)
        if kind == "softmax_cross_entropy":
            shape = y.shape[:1] + y.shape[2:] if y.ndim > 2 else y.shape[:-1]
            feed["target"] = random.integers(0, y.shape[1], shape)
        elif kind != "entropy":
            feed["target"] = random.random(y.shape).astype(np.float32)
        trainable = [n for n, v in weights.items() if np.asarray(v).dtype == np.float32 and np.size(v) > 1
                     and n not in ("roi", "scales")]
        loss, found = gradients(model, kind, feed, trainable)
        stored = {f"in.{n}": v for n, v in feed.items()} | {"out.loss": np.float32(loss)}
        stored |= {f"out.grad.{n}": v.astype(np.float32) for n, v in found.items()}
        onnx.save(model, folder / f"{name}.{kind}.onnx")
        save(folder / f"{name}.{kind}.safetensors", stored)
        print(f"{name}: loss {loss:.6f}, {len(found)} gradients")
    return 0


# --- comparison ------------------------------------------------------------------------------------------------------


def check(folder):
    failed = False
    for path in sorted((folder / "forward").glob("*.onnx")):
        stored = load(folder / f"{path.stem}.safetensors")
        feed = {name[3:]: value for name, value in stored.items() if name.startswith("in.")}
        trainable = [name[9:] for name in stored if name.startswith("out.grad.")]
        try:
            loss, found = gradients(onnx.load(path), path.stem.rsplit(".", 1)[1], feed, trainable)
        except KeyError as missing:
            print(f"{path.stem}: no operator {missing}")
            continue
        errors = {}
        for name, theirs in found.items():
            ours = stored[f"out.grad.{name}"]
            assert ours.shape == theirs.shape, name
            scale = np.abs(theirs).max()
            error = np.abs(ours - theirs).max() / scale if scale > 0 else np.abs(ours).max()
            errors[name] = float("inf") if np.isnan(error) else float(error)
        worst = max(errors, key=errors.get)
        off = abs(float(stored["out.loss"]) - loss) / max(abs(loss), 1e-6)
        print(f"{path.stem}: {len(errors)} gradients, largest relative error {errors[worst]:.1e} ({worst}), "
              f"median {np.median(list(errors.values())):.1e}, loss {off:.1e}")
        beyond = [name for name, error in errors.items() if error > TOLERANCE]
        if beyond:
            failed = True
            print(f"  beyond {TOLERANCE}: {len(beyond)} of {len(errors)}, such as {beyond[:4]}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(make() if sys.argv[1] == "make" else check(pathlib.Path(sys.argv[2])))
