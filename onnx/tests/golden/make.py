#!/usr/bin/env python3
"""Makes the golden cases: small models of operator families, with inputs and the outputs that onnxruntime gives.

    python3 make.py            needs numpy, onnx and onnxruntime; the tests need none of them

Each case is <name>.onnx and <name>.safetensors, whose tensors are named in.<input> and out.<output>.
"""
import json
import pathlib
import struct

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper, numpy_helper

HERE = pathlib.Path(__file__).parent
NAMES = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16",
         "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL"}
random = np.random.default_rng(7)


def floats(*shape, scale=1.0, low=None, high=None):
    if low is not None:
        return random.uniform(low, high, shape).astype(np.float32)
    return (random.standard_normal(shape) * scale).astype(np.float32)


def save(path, tensors):
    header, offset, data = {}, 0, b""
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name]).reshape(tensors[name].shape)
        raw = array.tobytes()
        header[name] = {"dtype": NAMES[str(array.dtype)], "shape": list(array.shape),
                        "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class Case:
    """Collects nodes of one family; every node's outputs become outputs of the model."""

    def __init__(self, name, opset, **inputs):
        self.name, self.opset, self.inputs = name, opset, inputs
        self.nodes, self.weights, self.outputs, self.symbols = [], [], [], {}

    def weight(self, array, name=None):
        name = name or f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind, inputs, outputs=1, keep=True, **attributes):
        """Adds a node; arrays among its inputs become initializers. Returns its output name(s)."""
        reads = [i if isinstance(i, str) else self.weight(i) for i in inputs]
        names = [f"{kind.lower()}{len(self.nodes)}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, reads, names, name=f"{kind}_{len(self.nodes)}", **attributes))
        if keep:
            self.outputs += names
        return names[0] if outputs == 1 else names

    def write(self):
        def info(name, array):
            return helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), self.symbols.get(name, array.shape))

        graph = helper.make_graph(
            self.nodes, self.name, [info(n, a) for n, a in self.inputs.items()],
            [onnx.ValueInfoProto(name=n) for n in self.outputs], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)],
                                  ir_version=10 if self.opset >= 20 else 8)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        results = session.run(self.outputs, self.inputs)
        typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        known = {v.name: v for v in list(typed.graph.output) + list(typed.graph.value_info)
                 if v.type.tensor_type.HasField("shape")}
        del model.graph.output[:]
        model.graph.output.extend(known.get(n) or info(n, np.asarray(a)) for n, a in zip(self.outputs, results))
        onnx.checker.check_model(model, full_check=True)
        (HERE / f"{self.name}.onnx").write_bytes(model.SerializeToString())
        tensors = {f"in.{n}": a for n, a in self.inputs.items()}
        tensors |= {f"out.{n}": np.asarray(a) for n, a in zip(self.outputs, results)}
        save(HERE / f"{self.name}.safetensors", tensors)
        print(f"{self.name}: {len(self.outputs)} outputs")


def elementwise(opset):
    c = Case(f"elementwise-{opset}", opset, x=floats(2, 3, 4), y=floats(3, 1), p=floats(2, 3, 4, low=0.1, high=3.0),
             u=floats(2, 3, 4, low=-0.9, high=0.9), b=random.integers(0, 2, (2, 3, 4)).astype(bool),
             i=random.integers(-9, 9, (2, 3, 4)).astype(np.int64))
    for kind in ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "PRelu"]:
        c.op(kind, ["x", "y"])
    c.op("Sum", ["x", "y", "p"])
    c.op("Pow", ["p", "y"])
    c.op("Pow", ["x", np.float32(2)])
    for kind in ["Neg", "Abs", "Exp", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "HardSigmoid",
                 "Softplus", "Softsign", "Erf", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Tan", "Atan", "Sinh",
                 "Cosh", "Asinh", "Identity", "ThresholdedRelu", "Shrink", "IsNaN"]:
        c.op(kind, ["x"])
    c.op("LeakyRelu", ["x"], alpha=0.3)
    c.op("Elu", ["x"], alpha=0.5)
    for kind in ["Log", "Sqrt", "Reciprocal"]:
        c.op(kind, ["p"])
    for kind in ["Asin", "Acos", "Atanh"]:
        c.op(kind, ["u"])
    c.op("Clip", ["x", np.float32(-0.5), np.float32(0.7)])
    c.op("Clip", ["x", "", np.float32(0.7)])
    for kind in ["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"]:
        c.op(kind, ["x", "y"])
    c.op("Not", ["b"])
    for kind in ["And", "Or", "Xor"]:
        c.op(kind, ["b", np.array([[True], [False], [True]])])
    c.op("Where", ["b", "x", "y"])
    c.op("Mod", ["i", np.int64(4)])
    c.op("Div", ["i", np.int64(4)])
    c.op("Abs", ["i"])
    c.op("Cast", ["x"], to=T.INT32)
    c.op("Cast", ["x"], to=T.DOUBLE)
    c.op("Cast", ["x"], to=T.BOOL)
    c.op("Cast", ["i"], to=T.FLOAT)
    c.op("Cast", ["b"], to=T.FLOAT)
    c.op("CumSum", ["x", np.int64(1)])
    c.op("Dropout", ["x"])
    if opset >= 15:
        c.op("HardSwish", ["x"])
        c.op("CastLike", ["i", "x"])
    if opset >= 18:
        c.op("Mish", ["x"])
    if opset >= 20:
        c.op("Gelu", ["x"])
        c.op("Gelu", ["x"], approximate="tanh")
    c.write()


def reductions(opset):
    c = Case(f"reductions-{opset}", opset, x=floats(2, 3, 4), p=floats(2, 3, 4, low=0.1, high=2.0),
             i=random.integers(-9, 9, (2, 3, 4)).astype(np.int32))
    kinds = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
             "ReduceSumSquare", "ReduceLogSumExp"]
    for kind in kinds + ["ReduceLogSum"]:
        x = "p" if kind == "ReduceLogSum" else "x"
        for axes, keep in [([1], 1), ([0, -1], 0)]:
            if opset >= 18 or kind == "ReduceSum":
                c.op(kind, [x, np.array(axes, np.int64)], keepdims=keep)
            else:
                c.op(kind, [x], axes=axes, keepdims=keep)
        c.op(kind, [x], keepdims=0)
    c.op("ReduceSum", ["i", np.array([1], np.int64)])
    c.op("ReduceSum", ["x"], noop_with_empty_axes=1)
    for kind in ["ArgMax", "ArgMin"]:
        c.op(kind, ["x"], axis=1)
        c.op(kind, ["x"], axis=-1, keepdims=0)
    c.op("TopK", ["x", np.array([2], np.int64)], 2, axis=-1)
    c.op("TopK", ["x", np.array([2], np.int64)], 2, axis=1, largest=0)
    for kind in ["Softmax", "LogSoftmax", "Hardmax"]:
        c.op(kind, ["x"])
        c.op(kind, ["x"], axis=1)
    c.op("LpNormalization", ["x"], axis=1, p=2)
    c.write()


def layout(opset):
    def ints(*v):
        return np.array(v, np.int64)
    c = Case(f"layout-{opset}", opset, x=floats(2, 3, 4), q=floats(1, 4, 2, 2), s=floats(1, 3, 1),
             g=random.integers(0, 3, (2, 2)).astype(np.int64), shape=ints(4, 6))
    c.op("Reshape", ["x", ints(0, -1)])
    c.op("Reshape", ["x", ints(4, 3, 2)])
    c.op("Reshape", ["x", "shape"]) if opset < 0 else None
    c.op("Transpose", ["x"])
    c.op("Transpose", ["x"], perm=[1, 0, 2])
    c.op("Squeeze", ["s", ints(0)])
    c.op("Squeeze", ["s"])
    c.op("Unsqueeze", ["x", ints(0, -1)])
    c.op("Flatten", ["x"])
    c.op("Flatten", ["x"], axis=2)
    c.op("Concat", ["x", "x"], axis=1)
    c.op("Concat", ["x", "x"], axis=-1)
    c.op("Split", ["x", ints(1, 3)], 2, axis=2)
    if opset >= 18:
        c.op("Split", ["x"], 2, axis=2, num_outputs=2)
    else:
        c.op("Split", ["x"], 2, axis=2)
    c.op("Slice", ["x", ints(0, 1), ints(2, 4), ints(1, 2), ints(1, 2)])
    c.op("Slice", ["x", ints(-1), ints(-10), ints(2), ints(-1)])
    c.op("Slice", ["x", ints(1), ints(9223372036854775807), ints(1)])
    c.op("Gather", ["x", "g"], axis=1)
    c.op("Gather", ["x", np.int64(-1)], axis=2)
    c.op("GatherElements", ["x", np.array([[[0, -1, 2, 0]], [[1, 1, 0, 2]]], np.int64)], axis=1)
    c.op("GatherND", ["x", np.array([[0, 1], [1, 2]], np.int64)])
    c.op("ScatterND", ["x", np.array([[0, 1], [1, 2]], np.int64), floats(2, 4)])
    c.op("ScatterElements", ["x", np.array([[[0, 1, 2, 0]], [[1, 1, 0, 2]]], np.int64), floats(2, 1, 4)], axis=1)
    if opset >= 18:
        c.op("ScatterND", ["x", np.array([[0, 1], [0, 1]], np.int64), floats(2, 4)], reduction="add")
        c.op("ScatterElements", ["x", np.array([[[0, 1, 2, 0]], [[1, 1, 0, 2]]], np.int64), floats(2, 1, 4)],
             axis=1, reduction="add")
        c.op("Pad", ["x", ints(1, 2), np.float32(3), ints(-1)])
        c.op("Shape", ["x"], start=1, end=3)
    c.op("Expand", ["s", ints(2, 1, 4)])
    c.op("Tile", ["x", ints(1, 2, 1)])
    c.op("Pad", ["x", ints(0, 1, 0, 0, 2, 1), np.float32(1.5)])
    c.op("Pad", ["x", ints(0, 0, 1, 0, 0, 2)], mode="reflect")
    c.op("Pad", ["x", ints(0, 0, 1, 0, 0, 2)], mode="edge")
    c.op("DepthToSpace", ["q"], blocksize=2)
    c.op("DepthToSpace", ["q"], blocksize=2, mode="CRD")
    c.op("SpaceToDepth", ["q"], blocksize=2)
    c.op("OneHot", ["g", ints(3), np.array([0, 1], np.float32)])
    c.op("Range", [np.int64(1), np.int64(9), np.int64(3)])
    c.op("Shape", ["x"])
    c.op("Size", ["x"])
    c.op("ConstantOfShape", [ints(2, 2)], value=helper.make_tensor("v", T.FLOAT, [1], [2.5]))
    c.op("EyeLike", [np.zeros((3, 3), np.float32)])
    c.op("Trilu", ["x"], upper=0) if opset >= 14 else None
    c.op("Compress", ["x", np.array([True, False, True])], axis=1)
    c.write()


def convolution(opset):
    c = Case(f"convolution-{opset}", opset, x=floats(2, 4, 7, 6), s=floats(1, 3, 9), m=floats(2, 6))
    w, b = floats(6, 4, 3, 3, scale=0.3), floats(6)
    c.op("Conv", ["x", w, b], pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    c.op("Conv", ["x", w], strides=[2, 2])
    c.op("Conv", ["x", w, b], dilations=[2, 2], pads=[2, 2, 2, 2])
    c.op("Conv", ["x", w, b], auto_pad="SAME_UPPER", strides=[2, 2])
    c.op("Conv", ["x", floats(8, 2, 3, 3), floats(8)], group=2)
    c.op("Conv", ["x", floats(4, 1, 3, 3), floats(4)], group=4, pads=[1, 1, 1, 1])
    c.op("Conv", ["s", floats(2, 3, 3)], pads=[0, 1])
    c.op("ConvTranspose", ["x", floats(4, 3, 3, 3), floats(3)], strides=[2, 2], pads=[1, 1, 1, 1],
         output_padding=[1, 1])
    c.op("ConvTranspose", ["x", floats(4, 2, 2, 2)], group=2)
    c.op("MaxPool", ["x"], kernel_shape=[2, 2], strides=[2, 2])
    c.op("MaxPool", ["x"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)
    c.op("MaxPool", ["x"], kernel_shape=[2, 2], dilations=[2, 2])
    c.op("AveragePool", ["x"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    c.op("AveragePool", ["x"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1, strides=[2, 2])
    c.op("GlobalAveragePool", ["x"])
    c.op("GlobalMaxPool", ["x"])
    c.op("BatchNormalization", ["x", floats(4), floats(4), floats(4), floats(4, low=0.5, high=2.0)])
    c.op("InstanceNormalization", ["x", floats(4), floats(4)])
    c.op("LRN", ["x"], size=3)
    up = np.array([1, 1, 2, 2], np.float32)
    c.op("Resize", ["x", "", up], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    c.op("Resize", ["x", "", up], mode="linear", coordinate_transformation_mode="half_pixel")
    c.op("Resize", ["x", "", "", np.array([2, 4, 5, 5], np.int64)], mode="linear",
         coordinate_transformation_mode="align_corners")
    if opset >= 17:
        c.op("LayerNormalization", ["x", floats(6), floats(6)])
        c.op("LayerNormalization", ["x", floats(4, 7, 6), floats(4, 7, 6)], axis=1, epsilon=1e-3)
        c.op("LayerNormalization", ["m", floats(6)])
    if opset >= 21:
        c.op("GroupNormalization", ["x", floats(4), floats(4)], num_groups=2)
    c.write()


def linear(opset):
    c = Case(f"linear-{opset}", opset, a=floats(2, 3, 4), b=floats(2, 4, 5), m=floats(3, 4), v=floats(4), k=floats(4, 3))
    c.op("MatMul", ["a", "b"])
    c.op("MatMul", ["a", floats(4, 5)])
    c.op("MatMul", ["m", "b"])
    c.op("MatMul", ["a", "v"])
    c.op("MatMul", ["v", "v"])
    c.op("Gemm", ["m", floats(4, 5), floats(5)])
    c.op("Gemm", ["m", floats(5, 4), floats(3, 1)], transB=1, alpha=0.5, beta=2.0)
    c.op("Gemm", ["k", floats(4, 5)], transA=1)
    c.op("Gemm", ["m", floats(4, 5), np.float32(0.3)])
    c.op("Einsum", ["a", "b"], equation="bij,bjk->bik")
    c.op("Einsum", ["a", "m"], equation="bij,kj->bik")
    c.op("Einsum", ["a"], equation="bij->bj")
    c.write()


def quantised(opset):
    def bytes_(*shape):
        return random.integers(-100, 100, shape).astype(np.int8)
    c = Case(f"quantised-{opset}", opset, x=floats(3, 4), i=floats(1, 2, 5, 5), u=random.integers(0, 255, (3, 4)).astype(np.uint8))
    w = c.op("DequantizeLinear", [bytes_(4, 6), floats(6, low=0.01, high=0.1), bytes_(6)], axis=1)
    c.op("MatMul", ["x", w])
    w = c.op("DequantizeLinear", [bytes_(4, 6), floats(4, low=0.01, high=0.1)], axis=0)
    c.op("MatMul", ["x", w])
    w = c.op("DequantizeLinear", [bytes_(3, 2, 3, 3), floats(3, low=0.01, high=0.1), bytes_(3)], axis=0)
    c.op("Conv", ["i", w])
    table = c.op("DequantizeLinear", [bytes_(9, 4), floats(9, low=0.01, high=0.1)], axis=0)
    c.op("Gather", [table, np.array([1, 8], np.int64)])
    c.op("DequantizeLinear", ["u", np.float32(0.1), np.uint8(128)])
    c.op("DequantizeLinear", ["u", np.float32(0.1)])
    c.op("QuantizeLinear", ["x", np.float32(0.02), np.int8(3)])
    c.op("QuantizeLinear", ["x", np.float32(0.02), np.uint8(128)])
    c.op("QuantizeLinear", ["x", floats(4, low=0.01, high=0.1), np.zeros(4, np.int8)], axis=1)
    c.op("DynamicQuantizeLinear", ["x"], 3)
    c.op("MatMulInteger", ["u", bytes_(4, 5), np.uint8(12)])
    c.write()


def recurrent(opset):
    c = Case(f"recurrent-{opset}", opset, x=floats(5, 2, 3))
    c.op("LSTM", ["x", floats(1, 16, 3, scale=0.4), floats(1, 16, 4, scale=0.4), floats(1, 32, scale=0.2)], 3, hidden_size=4)
    c.op("GRU", ["x", floats(1, 12, 3, scale=0.4), floats(1, 12, 4, scale=0.4), floats(1, 24, scale=0.2)], 2,
         hidden_size=4, linear_before_reset=1)
    c.op("RNN", ["x", floats(1, 4, 3), floats(1, 4, 4)], 2, hidden_size=4)
    c.write()


def old(opset):
    c = Case(f"old-{opset}", opset, x=floats(2, 3, 4, 1))
    c.op("Softmax", ["x"])
    c.op("Softmax", ["x"], axis=2)
    c.op("LogSoftmax", ["x"], axis=1)
    c.op("Hardmax", ["x"], axis=-2)
    c.op("Squeeze", ["x"], axes=[3])
    c.op("Unsqueeze", ["x"], axes=[0])
    c.op("ReduceSum", ["x"], axes=[1], keepdims=0)
    c.op("Split", ["x"], 2, axis=2, split=[1, 3])
    if opset < 12:
        c.op("Dropout", ["x"], ratio=0.4)
    c.write()


def dynamic(opset):
    """Shapes computed in the graph, symbols in the inputs, a branch, and a Constant node."""
    c = Case(f"dynamic-{opset}", opset, x=floats(2, 3, 4), y=floats(2, 5), cond=np.array(True))
    c.symbols = {"x": ["batch", 3, 4], "y": ["batch", "length"]}
    shape = c.op("Shape", ["x"])
    batch = c.op("Gather", [shape, np.array([0], np.int64)])
    target = c.op("Concat", [batch, np.array([-1], np.int64)], axis=0)
    c.op("Reshape", ["x", target])
    ones = c.op("ConstantOfShape", [c.op("Shape", ["y"])], value=helper.make_tensor("v", T.FLOAT, [1], [1.0]))
    c.op("Add", ["y", ones])
    c.op("Expand", [floats(1, 1), c.op("Shape", ["y"])])
    value = c.op("Constant", [], value=helper.make_tensor("v", T.FLOAT, [4], [1, 2, 3, 4]), keep=False)
    c.op("Mul", ["x", value])
    branch = [helper.make_graph([helper.make_node(kind, ["x", value], [f"{kind}_out"])], kind, [],
                                [helper.make_tensor_value_info(f"{kind}_out", T.FLOAT, ["batch", 3, 4])])
              for kind in ("Add", "Sub")]
    c.op("If", ["cond"], then_branch=branch[0], else_branch=branch[1])
    c.op("NonZero", ["y"])
    c.write()


def attributes(opset):
    """Attributes away from their defaults, where an engine may silently ignore them."""
    def ints(*v):
        return np.array(v, np.int64)
    c = Case(f"attributes-{opset}", opset, x=floats(2, 4, 7, 6), m=floats(3, 5), i=random.integers(-9, 9, (3, 5)).astype(np.int64),
             s=floats(5, 2, 3), grid=floats(2, 3, 3, 2, low=-1.1, high=1.1), z=np.array([0.0, np.inf, -np.inf, np.nan], np.float32))
    c.op("MaxPool", ["x"], 2, kernel_shape=[2, 2], strides=[2, 2])
    c.op("MaxPool", ["x"], auto_pad="SAME_LOWER", kernel_shape=[2, 2], strides=[2, 2])
    c.op("AveragePool", ["x"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    c.op("AveragePool", ["x"], kernel_shape=[2, 2], auto_pad="SAME_UPPER")
    c.op("Conv", ["x", floats(3, 4, 2, 3)], auto_pad="SAME_LOWER")
    c.op("Conv", ["x", floats(3, 4, 2, 3)], pads=[1, 0, 0, 2], strides=[2, 1])
    c.op("ConvTranspose", ["x", floats(4, 3, 3, 3)], strides=[2, 2], output_shape=[14, 12], auto_pad="SAME_UPPER")
    c.op("ConvTranspose", ["x", floats(4, 3, 3, 3)], dilations=[2, 1], pads=[1, 0, 0, 1])
    c.op("CumSum", ["m", np.int64(1)], exclusive=1)
    c.op("CumSum", ["m", np.int64(-2)], reverse=1)
    c.op("CumSum", ["m", np.int64(1)], reverse=1, exclusive=1)
    c.op("ArgMax", [np.array([[1, 3, 3], [2, 2, 0]], np.float32)], axis=1, select_last_index=1)
    c.op("ArgMin", [np.array([[1, 1, 3], [2, 0, 0]], np.float32)], axis=1, select_last_index=1)
    c.op("TopK", ["m", ints(3)], 2, axis=0)
    c.op("OneHot", ["i", np.int64(4), np.array([-1, 2], np.float32)], axis=0)
    c.op("Trilu", ["m", np.int64(1)])
    c.op("Trilu", ["m", np.int64(-1)], upper=0)
    c.op("Gather", ["m", ints(-1, 0)], axis=1)
    c.op("GatherND", ["m", np.array([[-1, 0], [0, -2]])])
    c.op("GatherND", ["x", np.array([[1, 0], [3, -1]])], batch_dims=1)
    c.op("ScatterND", ["m", np.array([[-1, 0], [0, 2]]), floats(2)])
    c.op("ScatterElements", ["m", np.array([[0, -1, 1, 0, 2]]), floats(1, 5)])
    for reduction in ["mul"] + (["max", "min"] if opset >= 18 else []):
        c.op("ScatterElements", ["m", np.array([[0, 0, 1, 0, 2], [0, 1, 1, 2, 2]]), floats(2, 5)], reduction=reduction)
        c.op("ScatterND", ["m", np.array([[0, 1], [0, 1], [2, 2]]), floats(3)], reduction=reduction)
    c.op("Mod", ["m", np.float32(0.7)], fmod=1)
    c.op("Mod", ["i", np.int64(4)], fmod=1)
    c.op("Einsum", ["x", floats(6, 2)], equation="...j,jk->...k")
    c.op("Einsum", ["m"], equation="ij->ji")
    c.op("Einsum", ["m", "m"], equation="ij,ij->i")
    c.op("Einsum", ["m", "m"], equation="ij,kj->")
    c.op("Einsum", ["m", floats(5, 4), floats(4, 2)], equation="ij,jk,kl->il")
    c.op("IsInf", ["z"], detect_negative=0)
    c.op("IsNaN", ["z"])
    c.op("GridSample", ["x", "grid"], mode="linear" if opset >= 20 else "bilinear")
    c.op("GridSample", ["x", "grid"], mode="nearest", padding_mode="border", align_corners=1)
    c.op("Resize", ["x", "", np.array([1, 1, 0.6, 0.7], np.float32)], mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
    c.op("Resize", ["x", "", np.array([1, 1, 2, 1.5], np.float32)], mode="cubic", cubic_coeff_a=-0.5)
    c.op("Resize", ["x", "", "", ints(2, 4, 10, 4)], mode="nearest", nearest_mode="round_prefer_ceil")
    if opset >= 18:
        c.op("Resize", ["x", "", "", ints(4, 4)], mode="linear", antialias=1, axes=[2, 3])
        c.op("Resize", ["x", "", np.array([2, 2], np.float32)], mode="nearest", axes=[2, 3])
        c.op("Resize", ["x", "", "", ints(10, 10)], mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger")
    if opset >= 19:
        c.op("Pad", ["m", ints(0, 1, 0, 2)], mode="wrap")
        c.op("AveragePool", ["x"], kernel_shape=[2, 2], dilations=[2, 2])
        c.op("Reshape", [floats(0, 3), ints(3, 0)], allowzero=1)
    c.op("LayerNormalization", ["m", floats(5), floats(5)], 3)
    for direction, n in [("reverse", 1), ("bidirectional", 2)]:
        c.op("LSTM", ["s", floats(n, 16, 3, scale=0.4), floats(n, 16, 4, scale=0.4), floats(n, 32, scale=0.2)], 3, hidden_size=4, direction=direction)
        c.op("GRU", ["s", floats(n, 12, 3, scale=0.4), floats(n, 12, 4, scale=0.4)], 2, hidden_size=4, direction=direction)
    c.op("GRU", ["s", floats(1, 12, 3), floats(1, 12, 4), floats(1, 24)], 2, hidden_size=4)
    c.op("LSTM", ["s", floats(1, 16, 3), floats(1, 16, 4), floats(1, 32), "", floats(1, 2, 4), floats(1, 2, 4), floats(1, 12)], 3, hidden_size=4)
    c.op("LSTM", ["s", floats(1, 16, 3), floats(1, 16, 4), "", np.array([5, 3], np.int32)], 3, hidden_size=4)
    c.op("Softmax", ["x"], axis=2)
    c.op("Transpose", ["x"], perm=[3, 1, 0, 2])
    c.op("Split", ["m", ints(0, 5)], 2, axis=1)
    c.op("DequantizeLinear", [np.array([100, -7], np.int32), np.float32(0.01)])
    c.op("Clip", ["i", np.int64(-2), np.int64(3)])
    c.op("BitShift", [np.array([1, 2, 3], np.uint32), np.array([1, 2, 3], np.uint32)], direction="LEFT")
    c.op("Celu", ["m"], alpha=0.4)
    c.op("ThresholdedRelu", ["m"], alpha=0.4)
    c.op("Shrink", ["m"], lambd=0.3, bias=0.1)
    c.op("HardSigmoid", ["m"], alpha=0.3, beta=0.4)
    c.op("Hardmax", ["m"], axis=0)
    c.op("LpNormalization", ["m"], axis=0, p=1)
    c.op("LRN", ["x"], size=3, alpha=0.3, beta=0.5, bias=2.0)
    c.op("Gemm", ["m", floats(4, 5), floats(1)], transB=1)
    c.op("NonZero", ["i"])
    c.op("Expand", ["m", ints(1)])
    c.op("Where", [np.array([True, False, True, False, True]), "m", np.float32(0)])
    c.op("Size", ["m"])
    c.op("Shape", ["x"], start=-2)
    c.op("ReduceMax", [np.array([[True, False]])], keepdims=0) if opset >= 20 else None
    c.write()


def network(opset):
    """A small residual network with two outputs, to be cut and stitched anywhere."""
    c = Case(f"network-{opset}", opset, image=floats(2, 3, 8, 8))
    c.symbols = {"image": ["batch", 3, 8, 8]}

    def conv(x, out, read, stride=1):
        return c.op("Conv", [x, floats(out, read, 3, 3, scale=0.2), floats(out, scale=0.1)], keep=False,
                    pads=[1, 1, 1, 1], strides=[stride, stride])
    x = c.op("Relu", [conv("image", 6, 3)], keep=False)
    y = c.op("Relu", [conv(x, 6, 6)], keep=False)
    x = c.op("Add", [conv(y, 6, 6), x], keep=False)
    x = c.op("HardSigmoid", [conv(x, 8, 6, 2)], keep=False)
    left, right = c.op("Split", [x, np.array([4, 4])], 2, keep=False, axis=1)
    x = c.op("Concat", [c.op("Mul", [left, c.op("Sigmoid", [right], keep=False)], keep=False), left], keep=False, axis=1)
    features = c.op("Flatten", [c.op("GlobalAveragePool", [x], keep=False)])
    logits = c.op("Gemm", [features, floats(8, 5), floats(5)], keep=False)
    c.op("Softmax", [logits])
    c.write()


def attention(opset):
    """A transformer block whose reshapes compute their targets from the input's shape, as exporters write it."""
    c = Case(f"attention-{opset}", opset, ids=random.integers(0, 11, (2, 5)).astype(np.int64),
             mask=np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int64))
    c.symbols = {"ids": ["batch", "length"], "mask": ["batch", "length"]}

    def part(kind, inputs, outputs=1, **attributes):
        return c.op(kind, inputs, outputs, keep=False, **attributes)
    x = part("Gather", [floats(11, 8), "ids"])
    shape = part("Shape", [x])
    heads = part("Concat", [part("Slice", [shape, np.array([0]), np.array([2])]), np.array([2, 4])], axis=0)

    def split(kind):
        dense = part("Add", [part("MatMul", [x, floats(8, 8, scale=0.4)]), floats(8, scale=0.2)])
        return part("Transpose", [part("Reshape", [dense, heads])], perm=[0, 2, 3, 1] if kind == "k" else [0, 2, 1, 3])
    q, k, v = split("q"), split("k"), split("v")
    bias = part("Mul", [part("Sub", [np.float32(1), part("Cast", [part("Unsqueeze", ["mask", np.array([1, 2])])],
                to=T.FLOAT)]), np.float32(-10000)])
    scores = part("Softmax", [part("Add", [part("Mul", [part("MatMul", [q, k]), np.float32(0.5)]), bias])], axis=-1)
    mixed = part("Reshape", [part("Transpose", [part("MatMul", [scores, v])], perm=[0, 2, 1, 3]), shape])
    hidden = part("LayerNormalization", [part("Add", [x, mixed]), floats(8), floats(8)], axis=-1)
    wide = part("MatMul", [hidden, floats(8, 16)])
    gelu = part("Mul", [part("Mul", [wide, np.float32(0.5)]),
                        part("Add", [part("Erf", [part("Div", [wide, np.float32(2 ** 0.5)])]), np.float32(1)])])
    c.op("Add", [part("MatMul", [gelu, floats(16, 8)]), hidden])
    c.write()


def halves(opset):
    """Products of 16-bit floats, as a half-precision export has them."""
    def half(*shape):
        return floats(*shape, scale=0.4).astype(np.float16)
    c = Case(f"halves-{opset}", opset, x=half(3, 4), u=half(4, 3))
    c.op("Gemm", ["x", half(4, 5), half(5)])
    c.op("Gemm", ["x", half(5, 4), half(3, 1)], transB=1, alpha=0.5, beta=2.0)
    c.op("Gemm", ["u", half(4, 2)], transA=1, alpha=2.0)
    c.op("MatMul", ["x", half(4, 2)])
    c.write()


for opset in (13, 17, 18, 21):
    elementwise(opset)
    reductions(opset)
    layout(opset)
    convolution(opset)
for opset in (13, 21):
    linear(opset)
    quantised(opset)
    dynamic(opset)
recurrent(14)
old(11)
old(12)
network(13)
network(18)
attention(17)
attributes(17)
attributes(21)
halves(17)
