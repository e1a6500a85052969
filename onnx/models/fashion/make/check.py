"""Checks the committed library with onnx and onnxruntime alone: python3 make/check.py

Graphs pass onnx.checker, manifests name the primary's digest, stitching by hand gives the golden logits, the analysis
gives the golden features, and finite differences give the golden gradient.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx

import analysis
from graphs import Session, with_output

FOLDER = Path(__file__).resolve().parent.parent


def main():
    for step in (graphs, manifests, features, forward, gradient, no_constant_breaks):
        step()
        print(f"ok: {step.__name__}")


def graphs():
    for path in [FOLDER / "primary.onnx", *sorted(FOLDER.glob("p*/*/patch.onnx")), *FOLDER.glob("probes/*.onnx")]:
        onnx.checker.check_model(onnx.load(path), full_check=True)


def manifests():
    digest = "sha256:" + hashlib.sha256((FOLDER / "primary.onnx").read_bytes()).hexdigest()
    primary = onnx.load(FOLDER / "primary.onnx").graph
    tensors = {"image"} | {o for node in primary.node for o in node.output}
    for name in read("library.json")["patches"]:
        manifest = read(f"patches/{name}/patch.json")
        patch = onnx.load(FOLDER / f"patches/{name}/patch.onnx").graph
        assert manifest["primary"] == digest, name
        for at in manifest["attachments"]:
            assert set(at["inputs"].values()) | set(at["output"].values()) <= tensors, name
            assert set(at["inputs"]) <= {i.name for i in patch.input} and set(at["output"]) <= {o.name for o in patch.output}, name
        assert set(manifest["trainable"]) <= {i.name for i in patch.initializer}, name
        assert manifest["cost"]["download_bytes"] == (FOLDER / f"patches/{name}/patch.onnx").stat().st_size, name


def features():
    for case in read("golden/features.json")["cases"]:
        got = analysis.features(array(case["pixels"])[None])
        for name, want in case["features"].items():
            assert abs(got[name][0] - want) < 1e-9, (case["name"], name)


def forward():
    golden = read("golden/forward.json")
    parameters = {n: array(t) for n, t in golden["personal_style_parameters"].items()}
    for stitched in golden["stitched"]:
        pixels = array(golden["image"])
        for name in ("noise-reduction", "low-contrast"):
            if name in stitched["patches"]:
                pixels = session(f"patches/{name}/patch.onnx")(x=pixels)
        logits = session("primary.onnx")(image=pixels)
        if "personal-style" in stitched["patches"]:
            logits = logits + style(parameters)(h=features_of(pixels))
        want = np.array(stitched["logits"]["values"]).reshape(stitched["logits"]["shape"])
        np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-4)


def gradient():
    """Central differences in float64 on the linear bridge, from onnxruntime's features and logits."""
    golden = read("golden/gradient.json")
    images, target = array(golden["image"]), golden["target"]
    base, h = session("primary.onnx")(image=images).astype(float), features_of(images).astype(float)
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(FOLDER / "patches/personal-style/patch.onnx").graph.initializer}
    directions = h @ weights["projection.weight"] + weights["projection.bias"]
    parameters = {n: array(t).astype(float) for n, t in golden["parameters"].items()}

    def loss():
        logits = base + directions @ parameters["bridge.weight"] + parameters["bridge.bias"]
        return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(target)), target]))

    assert abs(loss() - golden["loss"]) < 1e-4
    for name, want in golden["gradients"].items():
        got = np.zeros(want["shape"])
        for at in np.ndindex(*want["shape"]):
            ends = []
            for side in (1e-5, -2e-5):
                parameters[name][at] += side
                ends.append(loss())
            parameters[name][at] += 1e-5
            got[at] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(got.ravel(), want["values"], rtol=1e-3, atol=1e-5)


def no_constant_breaks():
    for value in (0.0, 0.5, 1.0):
        flat = np.full((2, 1, 28, 28), value, np.float32)
        for name in ("noise-reduction", "low-contrast"):
            flat = session(f"patches/{name}/patch.onnx")(x=flat)
            assert np.isfinite(flat).all(), name
        assert np.isfinite(session("primary.onnx")(image=flat)).all()


def read(path):
    return json.loads((FOLDER / path).read_text())


def array(tensor):
    return np.frombuffer(base64.b64decode(tensor["base64"]), "<f4").reshape(tensor["shape"]).copy()


def session(path):
    return Session((FOLDER / path).read_bytes())


def features_of(pixels):
    return Session(with_output((FOLDER / "primary.onnx").read_bytes(), "features", ["N", 64]))(image=pixels)


def style(parameters):
    model = onnx.load(FOLDER / "patches/personal-style/patch.onnx")
    for initializer in model.graph.initializer:
        if initializer.name in parameters:
            initializer.CopyFrom(onnx.numpy_helper.from_array(parameters[initializer.name], initializer.name))
    return Session(model.SerializeToString())


if __name__ == "__main__":
    sys.exit(main())
