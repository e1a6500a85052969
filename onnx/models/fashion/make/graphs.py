"""ONNX graphs written node by node, so that every tensor has a name one can read."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8


class Graph:
    """Collects nodes and initializers; each call returns the name of the tensor it makes."""

    def __init__(self, name):
        self.name, self.nodes, self.initializers = name, [], []

    def constant(self, name, value):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}.{op}", **attributes))
        return output

    def conv(self, x, name, weight, bias, output):
        w, b = self.constant(name + ".weight", weight), self.constant(name + ".bias", bias)
        pad = (weight.shape[2] - 1) // 2
        return self.node("Conv", [x, w, b], output, kernel_shape=list(weight.shape[2:]), pads=[pad] * 4, strides=[1, 1])

    def model(self, inputs, outputs, doc):
        """`inputs` and `outputs`: name -> shape, where a text is a symbolic dimension."""
        value = lambda items: [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in items.items()]
        graph = helper.make_graph(self.nodes, self.name, value(inputs), value(outputs), self.initializers, doc_string=doc)
        model = helper.make_model(graph, producer_name="backstitch", producer_version="1", opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()


IMAGE = ["N", 1, 28, 28]


def primary(weights):
    w = {name: value.numpy() for name, value in weights.items()}
    g = Graph("fashion")
    conv = lambda x, name, output: g.conv(x, name, w[name + ".weight"], w[name + ".bias"], output)
    pool = dict(kernel_shape=[2, 2], strides=[2, 2])
    x = g.node("Relu", [conv("image", "stem", "stem.conv")], "stem")
    x = g.node("MaxPool", [x], "stem.pooled", **pool)
    x = g.node("Relu", [conv(x, "widen1", "block1.widened")], "block1.wide")
    x = g.node("Add", [x, conv(x, "residual1", "block1.residual")], "block1.sum")
    x = g.node("Relu", [x], "block1")
    x = g.node("MaxPool", [x], "block1.pooled", **pool)
    x = g.node("Relu", [conv(x, "widen2", "block2.widened")], "block2.wide")
    x = g.node("Add", [x, conv(x, "residual2", "block2.residual")], "block2.sum")
    x = g.node("Relu", [x], "block2")
    x = g.node("GlobalAveragePool", [x], "block2.mean")
    x = g.node("Flatten", [x], "features", axis=1)
    g.node("Gemm", [x, g.constant("head.weight", w["head.weight"]), g.constant("head.bias", w["head.bias"])], "logits", transB=1)
    return g.model({"image": IMAGE}, {"logits": ["N", 10]}, "Fashion-MNIST classifier: image [N,1,28,28] in 0..1 to logits [N,10].")


def noise_reduction(weights, structure_mask):
    """y = clip(x + strength * conv3(relu(conv2(relu(conv1(x))))), 0, 1); strength: see denoiser.Denoiser."""
    w = {name: value.numpy() for name, value in weights.items()}
    g = Graph("noise-reduction")
    conv = lambda x, name, output: g.conv(x, name, w[name + ".weight"], w[name + ".bias"], output)
    scalar = lambda name, value: g.constant(name, np.float32(value))
    mean_size = lambda x, name: g.node("GlobalAveragePool", [g.node("Abs", [x], name + ".size")], name)
    h = g.node("Relu", [conv("x", "conv1", "hidden1.conv")], "hidden1")
    h = g.node("Relu", [conv(h, "conv2", "hidden2.conv")], "hidden2")
    correction = conv(h, "conv3", "correction")

    fine = g.node("Conv", ["x", g.constant("structure.mask", structure_mask)], "structure.fine", kernel_shape=[3, 3])
    centred = g.node("Sub", ["x", g.node("GlobalAveragePool", ["x"], "brightness")], "contrast.centred")
    by_structure, by_contrast, offset = w["strength"]
    strength = g.node("Add", [
        g.node("Mul", [mean_size(fine, "structure"), scalar("strength.by_structure", by_structure)], "strength.structure"),
        g.node("Mul", [mean_size(centred, "contrast"), scalar("strength.by_contrast", by_contrast)], "strength.contrast"),
    ], "strength.weighed")
    strength = g.node("Add", [strength, scalar("strength.offset", offset)], "strength.open")
    black, white = scalar("black", 0), scalar("white", 1)
    strength = g.node("Clip", [strength, black, white], "strength")
    h = g.node("Add", ["x", g.node("Mul", [correction, strength], "weighed_correction")], "corrected")
    g.node("Clip", [h, black, white], "y")
    return g.model({"x": IMAGE}, {"y": IMAGE}, "A residual denoiser for images in 0..1.")


def low_contrast(smallest_range):
    """y = x + flatness * (stretched - x).

    stretched = clip((x - darkest) / max(brightest - darkest, smallest_range), 0, 1), both taken from a slightly smoothed image:
    half the pixel, half the mean of the 3x3 around it, so one noisy pixel does not set the range.
    flatness falls from 1 to 0 while the range of the pixels grows from 0.85 to 0.95: what uses the whole range passes unchanged."""
    g = Graph("low-contrast")
    scalar = lambda name, value: g.constant(name, np.float32(value))
    black, white = scalar("black", 0), scalar("white", 1)

    def extremes(x, name):
        low = g.node("ReduceMin", [x], name + ".darkest", axes=[1, 2, 3], keepdims=1)
        high = g.node("ReduceMax", [x], name + ".brightest", axes=[1, 2, 3], keepdims=1)
        return low, g.node("Sub", [high, low], name + ".range")

    kernel = np.full((1, 1, 3, 3), 0.5 / 9, np.float32)
    kernel[0, 0, 1, 1] += 0.5
    smooth = g.node("Conv", ["x", g.constant("smooth.kernel", kernel)], "smooth", kernel_shape=[3, 3])
    darkest, span = extremes(smooth, "smooth")
    span = g.node("Max", [span, scalar("smallest_range", smallest_range)], "safe_range")
    stretched = g.node("Div", [g.node("Sub", ["x", darkest], "shifted"), span], "stretched.open")
    stretched = g.node("Clip", [stretched, black, white], "stretched")

    _, used = extremes("x", "pixel")
    unused = g.node("Sub", [scalar("full_range", 0.95), used], "unused_range")
    flatness = g.node("Clip", [g.node("Mul", [unused, scalar("steepness", 10)], "flatness.open"), black, white], "flatness")
    change = g.node("Mul", [g.node("Sub", [stretched, "x"], "change"), flatness], "weighed_change")
    g.node("Add", ["x", change], "y")
    return g.model({"x": IMAGE}, {"y": IMAGE}, "Stretches flat images to the whole range of brightness.")


def sharpening(weights):
    """y = clip(x + conv3(relu(conv2(relu(conv1(x))))), 0, 1); see deblur.Deblur."""
    w = {name: value.numpy() for name, value in weights.items()}
    g = Graph("sharpening")
    conv = lambda x, name, output: g.conv(x, name, w[name + ".weight"], w[name + ".bias"], output)
    h = g.node("Relu", [conv("x", "conv1", "hidden1.conv")], "hidden1")
    h = g.node("Relu", [conv(h, "conv2", "hidden2.conv")], "hidden2")
    h = g.node("Add", ["x", conv(h, "conv3", "correction")], "corrected")
    g.node("Clip", [h, g.constant("black", np.float32(0)), g.constant("white", np.float32(1))], "y")
    return g.model({"x": IMAGE}, {"y": IMAGE}, "Sharpens images in 0..1 that are out of focus.")


def rotation(weights):
    """The primary's layers from `stem.pooled` to `block2`, with other weights; see turned.Turned."""
    w = {name: value.numpy() for name, value in weights.items()}
    g = Graph("rotation")
    conv = lambda x, name, output: g.conv(x, name, w[name + ".weight"], w[name + ".bias"], output)
    x = g.node("Relu", [conv("stem", "widen1", "block1.widened")], "block1.wide")
    x = g.node("Add", [x, conv(x, "residual1", "block1.residual")], "block1.sum")
    x = g.node("MaxPool", [g.node("Relu", [x], "block1")], "block1.pooled", kernel_shape=[2, 2], strides=[2, 2])
    x = g.node("Relu", [conv(x, "widen2", "block2.widened")], "block2.wide")
    x = g.node("Add", [x, conv(x, "residual2", "block2.residual")], "block2.sum")
    g.node("Relu", [x], "block2")
    return g.model({"stem": ["N", 16, 14, 14]}, {"block2": ["N", 64, 7, 7]}, "The primary's middle, trained on turned pictures.")


def compact(weights):
    """The compact primary; see compact.CompactNet."""
    w = {name: value.numpy() for name, value in weights.items()}
    g = Graph("fashion-compact")
    conv = lambda x, name, output: g.conv(x, name, w[name + ".weight"], w[name + ".bias"], output)
    pool = dict(kernel_shape=[2, 2], strides=[2, 2])
    x = g.node("MaxPool", [g.node("Relu", [conv("image", "stem", "stem.conv")], "stem")], "stem.pooled", **pool)
    x = g.node("MaxPool", [g.node("Relu", [conv(x, "middle", "middle.conv")], "middle")], "middle.pooled", **pool)
    x = g.node("Relu", [conv(x, "last", "last.conv")], "last")
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x], "last.mean")], "features", axis=1)
    g.node("Gemm", [x, g.constant("head.weight", w["head.weight"]), g.constant("head.bias", w["head.bias"])], "logits", transB=1)
    return g.model({"image": IMAGE}, {"logits": ["N", 10]}, "A small Fashion-MNIST classifier: image [N,1,28,28] in 0..1 to logits [N,10].")


def gains_probe(weights, features):
    """What each image patch is expected to win; see choose.Probe."""
    g = Graph("gains")
    convolve = lambda x, name, output: g.node(
        "Conv", [x, g.constant(name + ".weight", weights[name + ".weight"]), g.constant(name + ".bias", weights[name + ".bias"])], output,
        kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    summary = []
    x = "image"
    for name in ("first", "second"):
        x = g.node("Relu", [convolve(x, name, name + ".conv")], name)
        summary.append(g.node("GlobalAveragePool", [x], name + ".mean"))
        squares = g.node("GlobalAveragePool", [g.node("Mul", [x, x], name + ".squared")], name + ".power")
        summary.append(g.node("Sqrt", [squares], name + ".rms"))
    joined = g.node("Flatten", [g.node("Concat", summary, "summary", axis=1)], "row", axis=1)
    root = g.node("Gemm", [joined, g.constant("head.weight", weights["head.weight"]), g.constant("head.bias", weights["head.bias"])], "roots", transB=1)
    g.node("Mul", [root, g.node("Abs", [root], "size")], "gains")
    return g.model({"image": IMAGE}, {"gains": ["N", len(features)]}, "Picture [N,1,28,28] to the accuracy that each of " + ", ".join(features) + " is expected to win.")


def confidence_probe():
    """What the compact model's logits tell about its answer: the largest softmax, and the entropy in nats."""
    g = Graph("confidence")
    chances = g.node("Softmax", ["logits"], "chances", axis=1)
    most = g.node("ReduceMax", [chances], "most", axes=[1], keepdims=1)
    logarithms = g.node("LogSoftmax", ["logits"], "logarithms", axis=1)
    terms = g.node("Mul", [chances, logarithms], "terms")
    less = g.node("ReduceSum", [terms, g.constant("axis", np.array([1], np.int64))], "less", keepdims=1)
    g.node("Concat", [most, g.node("Neg", [less], "entropy")], "features", axis=1)
    return g.model({"logits": ["N", 10]}, {"features": ["N", 2]}, "Logits [N,10] to the largest softmax and the entropy in nats, [N,2].")


class Session:
    """One model in onnxruntime, one thread, first output."""

    def __init__(self, model):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, **inputs):
        total = len(next(iter(inputs.values())))
        parts = []
        for i in range(0, total, 500):
            parts.append(self.session.run(None, {n: np.ascontiguousarray(v[i : i + 500]) for n, v in inputs.items()})[0])
        return np.concatenate(parts)


def with_output(model, tensor, shape):
    """The same model with one more tensor made an output, in front of the others."""
    proto = onnx.load_from_string(model)
    proto.graph.output.insert(0, helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape))
    return proto.SerializeToString()


def part(model, inputs, outputs):
    """The nodes between some tensors: what `cut` gives."""
    whole = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    return onnx.utils.Extractor(whole).extract_model(inputs, outputs).SerializeToString()


def renamed(model, old, new):
    """The same model with another name of an input."""
    proto = onnx.load_from_string(model)
    for value in proto.graph.input:
        value.name = new if value.name == old else value.name
    for node in proto.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def cost(model):
    """MACs of one example, bytes of parameters, bytes to download (uncompressed)."""
    proto = onnx.load_from_string(model)
    proto = onnx.shape_inference.infer_shapes(proto)
    shapes = {v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim] for v in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]}
    weights = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    macs = 0
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            kernel = weights[node.input[1]]
            per_output = int(np.prod(kernel.shape[1:])) if node.op_type == "Conv" else kernel.size // shapes[node.output[0]][-1]
            macs += per_output * int(np.prod(shapes[node.output[0]][1:]))
    return {"macs": macs, "parameter_bytes": sum(w.nbytes for w in weights.values()), "download_bytes": len(model)}
