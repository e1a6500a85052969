"""Makes the files that onnxruntime-web may run instead of ours, into the folder of the models.

    python3 tests/bench/derive.py DIR

Needs onnx, onnxruntime and numpy. From `minilm-l6-v2-w8.onnx` (int8 weights, float activations) come the float32 file and
the file with dynamic int8 products, which is what users of other runtimes run; from `efficientnet-lite0.onnx` one with
static int8 convolutions, calibrated on noise, which serves for timing alone.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)


def dequantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every DequantizeLinear of weights carried out."""
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in weights:
            kept.append(node)
            continue
        levels, scale, zero = (weights[name] for name in node.input)
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        shape = [-1 if i == axis else 1 for i in range(levels.ndim)] if scale.ndim else []
        values = (levels.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    unused = [tensor for tensor in graph.initializer if tensor.name not in used]
    for tensor in unused:
        graph.initializer.remove(tensor)
    return model


class Noise(CalibrationDataReader):
    """A few pictures of noise."""

    def __init__(self):
        random = np.random.default_rng(1)
        self.left = [random.uniform(-1, 1, (1, 3, 224, 224)).astype(np.float32) for _ in range(8)]

    def get_next(self):
        return {"image": self.left.pop()} if self.left else None


def main(folder: Path) -> None:
    w8 = folder / "minilm-l6-v2-w8.onnx"
    if w8.exists():
        f32 = folder / "minilm-l6-v2-f32.onnx"
        onnx.save(dequantized(onnx.load(w8)), f32)
        quantize_dynamic(f32, folder / "minilm-l6-v2-int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
    lite = folder / "efficientnet-lite0.onnx"
    if lite.exists():
        quantize_static(
            lite,
            folder / "efficientnet-lite0-int8.onnx",
            Noise(),
            quant_format=QuantFormat.QOperator,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
