"""The oracle files that tests of other implementations read: features, logits, gradients."""

import base64
import json

import numpy as np
import torch
import torch.nn.functional as F

import analysis
from dataset import LABELS, low_contrast, noisy
from graphs import Session

SEED = 99


def tensor(array, dtype="<f4"):
    array = np.ascontiguousarray(array, dtype)
    return {"dtype": "float32", "shape": list(array.shape), "base64": base64.b64encode(array.tobytes()).decode()}


def numbers(array):
    return {"shape": list(np.shape(array)), "values": [float(v) for v in np.ravel(array)]}


def write(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def feature_cases(images):
    """12 pictures in several conditions, two of them with no structure at all."""
    cases = []
    for i, (name, change) in enumerate(
        [("clean", lambda x: x)] * 4
        + [("noise 0.1", lambda x: noisy(x, 0.1, SEED)), ("noise 0.3", lambda x: noisy(x, 0.3, SEED))] * 2
        + [("contrast 0.3", lambda x: low_contrast(x, 0.3)), ("contrast 0.3, noise 0.1", lambda x: noisy(low_contrast(x, 0.3), 0.1, SEED))]
        + [("constant 0.5", lambda x: torch.full_like(x, 0.5)), ("ramp to the right", lambda x: (torch.arange(28.0) / 27.0).expand_as(x).contiguous())]
    ):
        pixels = change(images[i : i + 1])[0, 0].numpy()
        values = {k: float(v[0]) for k, v in analysis.features(pixels[None]).items()}
        cases.append({"name": name, "test_index": i, "width": 28, "height": 28, "pixels": tensor(pixels), "features": values})
    return cases


def write_all(folder, data, models, style_point, styled_logits):
    """`models`: name -> ONNX bytes, `features` being the primary up to that site and personal-style having its trainable
    parameters at `style_point`. `styled_logits`: images and parameters to logits, in float64 torch."""
    folder.mkdir(exist_ok=True)
    images, labels = data.test
    write(folder / "features.json", {"format": 1, "cases": feature_cases(images)})

    batch = torch.cat([images[20:24], noisy(images[24:26], 0.3, SEED), low_contrast(images[26:28], 0.3)]).numpy()
    primary = Session(models["primary"])
    quiet, stretched = Session(models["noise-reduction"])(x=batch), Session(models["low-contrast"])(x=batch)
    both = Session(models["low-contrast"])(x=quiet)
    features, bridge = Session(models["features"]), Session(models["personal-style"])
    styled = lambda pixels: primary(image=pixels) + bridge(h=features(image=pixels))
    stacks = {
        (): primary(image=batch),
        ("noise-reduction",): primary(image=quiet),
        ("low-contrast",): primary(image=stretched),
        ("noise-reduction", "low-contrast"): primary(image=both),
        ("personal-style",): styled(batch),
        ("noise-reduction", "low-contrast", "personal-style"): styled(both),
    }
    write(folder / "forward.json", {
        "format": 1,
        "image": tensor(batch),
        "personal_style_parameters": {name: tensor(v) for name, v in style_point.items()},
        "tolerance": {"absolute": 1e-4, "relative": 1e-4},
        "stitched": [{"patches": list(p), "logits": numbers(v)} for p, v in stacks.items()],
    })

    image, target = images[40:44], labels[40:44]
    point = {name: torch.from_numpy(v).double().requires_grad_(True) for name, v in style_point.items()}
    loss = F.cross_entropy(styled_logits(image, point), target)
    loss.backward()
    write(folder / "gradient.json", {
        "format": 1,
        "patch": "personal-style",
        "loss_name": "softmax_cross_entropy",
        "image": tensor(image.numpy()),
        "target": target.tolist(),
        "parameters": {name: tensor(v) for name, v in style_point.items()},
        "loss": float(loss.detach()),
        "gradients": {name: numbers(p.grad.numpy()) for name, p in point.items()},
        "tolerance": {"absolute": 1e-5, "relative": 1e-4},
    })


def samples(images_u8, labels, probabilities):
    """Two pictures of each class that the primary answers rightly, typical: near the class's median confidence among right answers."""
    picked = []
    for c in range(10):
        own = np.flatnonzero((labels == c) & (probabilities.argmax(1) == c))
        confidence = probabilities[own, c]
        order = own[np.argsort(np.abs(confidence - np.quantile(confidence, 0.6)), kind="stable")]
        picked += [(c, int(i)) for i in sorted(order[:2])]
    return {
        "format": 1, "width": 28, "height": 28, "channels": 1, "encoding": "base64 of 784 unsigned bytes, row by row",
        "samples": [
            {"index": i, "label": c, "name": LABELS[c], "pixels": base64.b64encode(images_u8[i].tobytes()).decode()} for c, i in picked
        ],
    }
