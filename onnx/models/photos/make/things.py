"""Makes the patch `my-things` and the built-in photographs of `photos`, and measures what a few pictures teach.

    pip install scikit-image==0.26.0 scikit-learn==1.9.1 onnx==1.16.2 onnxruntime==1.32.0
    python3 make/things.py

What is taught is a direction: the features of a picture, less those of the mean photograph, at a fixed length. So a thing
that was taught alone does not become the answer to everything, as it does where the plain features are weighed: they are
all positive, and a step towards one picture is a step towards any. The mean is taken over the photographs of MEAN.
`results.json` is what the measurement gave: things are taught by views of one photograph, in ten passes as a page trains,
and judged on other views of it and on all photographs that show something else.
"""

import base64
import io
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import skimage
import sklearn
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageEnhance

FOLDER = Path(__file__).resolve().parent.parent
OPSET, IR_VERSION = 13, 7
FEATURES, CLASSES, OWN = 1280, 1000, 8
LENGTH = 12.0  # of the features that are weighed; a step of 0.02 moves their logit by about 7
SIDE, SAMPLE_SIDE, SAMPLE_QUALITY = 224, 320, 85
VIEWS = 24
MEAN = ["astronaut", "rocket", "hubble_deep_field", "ihc", "retina", "brick", "grass", "gravel", "coins", "page", "clock_motion", "text", "moon", "camera", "china", "flower"]
SAMPLES = {
    "chelsea": ("a cat", "Stéfan van der Walt, CC0"),
    "coffee": ("a cup of coffee", "Rachel Michetti, CC0"),
    "motorcycle_left": ("a motorcycle", "Daniel Scharstein, Middlebury stereo, CC0"),
    "motorcycle_right": ("the motorcycle from beside", "Daniel Scharstein, Middlebury stereo, CC0"),
    "rocket": ("a rocket", "SpaceX, CC0"),
    "astronaut": ("an astronaut", "NASA, public domain"),
    "hubble_deep_field": ("galaxies", "NASA, public domain"),
    "grass": ("grass", "Linolafett, CC0"),
}
TAUGHT = ["coffee", "motorcycle_left", "chelsea"]  # none of them is in MEAN
ALIKE = [{"motorcycle_left", "motorcycle_right"}]


def photographs():
    folders = [Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets" / "images"]
    paths = [path for folder in folders for path in sorted(folder.iterdir()) if path.stem in {*MEAN, *SAMPLES, *TAUGHT}]
    return {path.stem: Image.open(path).convert("RGB") for path in paths}


def view(photo, random):
    """The photograph as somebody may hold it before a camera: nearer, turned, in other light."""
    width, height = photo.size
    side = int(min(width, height) * random.uniform(0.65, 0.95))
    place = lambda whole: int(np.clip((whole - side) / 2 + random.uniform(-0.12, 0.12) * whole, 0, whole - side))
    x, y = place(width), place(height)
    part = photo.crop((x, y, x + side, y + side)).resize((SIDE, SIDE), Image.BICUBIC).rotate(random.uniform(-15, 15), Image.BICUBIC)
    return ImageEnhance.Contrast(ImageEnhance.Brightness(part).enhance(random.uniform(0.7, 1.3))).enhance(random.uniform(0.8, 1.2))


def read(photos):
    """Features and logits of many views of each photograph, by the committed primary."""
    session = onnxruntime.InferenceSession(str(FOLDER / "primary.onnx"), providers=["CPUExecutionProvider"])
    random, read = np.random.default_rng(1), {}
    for name, photo in photos.items():
        pixels = np.stack([np.asarray(view(photo, random), np.float32) for _ in range(VIEWS)]).transpose(0, 3, 1, 2)
        read[name] = session.run(["features", "logits"], {"image": (pixels - 127) / 128})
    return read


def patch(mean):
    """What is added to the logits for one's own things: zeros before the own places, then direction * weight + bias."""
    initializers = {
        "weight": np.zeros((FEATURES, OWN), np.float32), "bias": np.zeros(OWN, np.float32),
        "mean": mean.astype(np.float32), "length": np.float32(LENGTH), "least": np.float32(1e-6),
        "across": np.array([1], np.int64), "before": np.array([0, CLASSES, 0, 0], np.int64), "nothing": np.float32(0),
    }
    nodes = [
        helper.make_node("Sub", ["h", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "across"], ["square"], keepdims=1),
        helper.make_node("Add", ["square", "least"], ["positive"]),
        helper.make_node("Sqrt", ["positive"], ["norm"]),
        helper.make_node("Div", ["centred", "norm"], ["unit"]),
        helper.make_node("Mul", ["unit", "length"], ["direction"]),
        helper.make_node("MatMul", ["direction", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["own"]),
        helper.make_node("Pad", ["own", "before", "nothing"], ["dlogits"]),
    ]
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(
        nodes, "my-things", [value("h", ["N", FEATURES])], [value("dlogits", ["N", CLASSES + OWN])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in initializers.items()],
    )
    model = helper.make_model(graph, producer_name="backstitch", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def train(directions, logits, classes, passes=10, rate=0.02, batch=16):
    """Adam as the client takes its steps."""
    weights = [np.zeros((FEATURES, OWN)), np.zeros(OWN)]
    means, squares, step, random = [0 * w for w in weights], [0 * w for w in weights], 0, np.random.default_rng(1)
    for _ in range(passes):
        order = random.permutation(len(directions))
        for at in range(0, len(order), batch):
            some, step = order[at : at + batch], step + 1
            scores = answers(directions[some], logits[some], weights)
            shares = np.exp(scores - scores.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            shares[np.arange(len(some)), classes[some]] -= 1
            slope = shares[:, CLASSES:] / len(some)
            for i, gradient in enumerate([directions[some].T @ slope, slope.sum(0)]):
                means[i] = 0.9 * means[i] + 0.1 * gradient
                squares[i] = 0.999 * squares[i] + 0.001 * gradient**2
                weights[i] -= rate * means[i] / (1 - 0.9**step) / (np.sqrt(squares[i] / (1 - 0.999**step)) + 1e-8)
    return weights


def answers(directions, logits, weights):
    scores = logits.copy()
    scores[:, CLASSES:] += directions @ weights[0] + weights[1]
    return scores


def measure(read, weighed):
    """Shares of views that are recognised, and of views of other photographs that are taken for something taught."""
    rows = []
    for things, pictures in [(1, 4), (1, 8), (3, 4), (3, 8)]:
        hits, mistakes = [], []
        for first in range(len(TAUGHT)):
            taught = [TAUGHT[(first + i) % len(TAUGHT)] for i in range(things)]
            parts = [(weighed(read[n][0][:pictures]), read[n][1][:pictures]) for n in taught]
            classes = np.repeat(CLASSES + np.arange(things), pictures)
            weights = train(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), classes)
            said = lambda name, after: answers(weighed(read[name][0][after:]), read[name][1][after:], weights).argmax(1)
            hits += [(said(name, pictures) == CLASSES + i).mean() for i, name in enumerate(taught)]
            alike = {name for pair in ALIKE if pair & set(taught) for name in pair}
            mistakes += [(said(name, 0) >= CLASSES).mean() for name in read if name not in {*taught, *alike}]
        rows.append({"things": things, "pictures_each": pictures, "recognised": round(float(np.mean(hits)), 4), "mistaken": round(float(np.mean(mistakes)), 4)})
    return rows


def samples(photos):
    def encoded(photo):
        side = min(photo.size)
        x, y = (photo.width - side) // 2, (photo.height - side) // 2
        file = io.BytesIO()
        photo.crop((x, y, x + side, y + side)).resize((SAMPLE_SIDE,) * 2, Image.LANCZOS).save(file, "JPEG", quality=SAMPLE_QUALITY, optimize=True)
        return base64.b64encode(file.getvalue()).decode()

    return {"format": 1, "samples": [{"name": name, "credit": credit, "jpeg": encoded(photos[file])} for file, (name, credit) in SAMPLES.items()]}


def main():
    photos = photographs()
    features = read(photos)
    mean = np.mean([features[name][0].mean(0) for name in MEAN], 0)
    made = patch(mean)
    folder = FOLDER / "patches" / "my-things"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "patch.onnx").write_bytes(made)
    (FOLDER / "data").mkdir(exist_ok=True)
    (FOLDER / "data" / "samples.json").write_text(json.dumps(samples(photos), ensure_ascii=False) + "\n")

    def direction(rows):
        centred = rows - mean
        return LENGTH * centred / np.linalg.norm(centred, axis=1, keepdims=True)

    results = {"directions": measure(features, direction), "plain features": measure(features, lambda rows: rows)}
    (FOLDER / "make" / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
