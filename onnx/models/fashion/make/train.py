"""Makes the whole sample library `fashion` in the folder above: models, manifests, data, golden files.

    python3 make/train.py --data /usr/share/datasets/fashion-mnist

About 35 minutes on one core. `--cache DIR` keeps the trained networks there, and uses them when they exist.
`--only compact` makes the library `fashion-compact` beside this one, for the committed primary; `--only choice` keeps all
models and makes the probes and selectors of both libraries; `--only early` makes the patch `early-answer`.
"""

import argparse
import hashlib
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch

import choose
import compact as compact_model
import deblur
import denoiser
import early
import golden
import graphs
import held_out
import measures
import primary as primary_model
import selection
import style
import turned
from dataset import LABELS, Fashion, write_idx

FOLDER = Path(__file__).resolve().parent.parent
TEST = "Fashion-MNIST test set, 10,000 images"
TEST_SEED = 2024
POOL_SEED = 11
LICENCE = "MIT OR Apache-2.0"
PICTURE = {"dtype": "float32", "shape": ["N", 1, 28, 28]}
FIT_IMAGES = 2500  # of the pool, for the probe that chooses
SLICES = {
    "noise-reduction": {"clean": "clean", "noise 0.1": "noise sigma 0.1", "noise 0.3": "noise sigma 0.3"},
    "sharpening": {"clean": "clean", "blur 1": "blur sigma 1", "blur 1.5": "blur sigma 1.5", "blur 2": "blur sigma 2", "noise 0.3": "noise sigma 0.3"},
    "low-contrast": {"clean": "clean", "contrast 0.5": "contrast 0.5", "contrast 0.3": "contrast 0.3"},
    "rotation": {"clean": "clean", "tilt 15": "turned by 15 degrees", "tilt 25": "turned by 25 degrees", "tilt -25": "turned by -25 degrees", "tilt 35": "turned by 35 degrees"},
}
AT_IMAGE = [{"mode": "series", "inputs": {"x": "image"}, "output": {"y": "image"}}]
IMAGE_IO = {"inputs": {"x": PICTURE}, "outputs": {"y": PICTURE}, "preprocessing": "Grey pixels in 0..1, as the primary takes them."}
# name -> what it does, attachments, formats, how it was made.
IMAGE_PATCHES = {
    "noise-reduction": (
        "Removes sensor noise before classification.", AT_IMAGE, IMAGE_IO,
        {"method": "A residual convolutional denoiser, trained through the frozen primary (cross-entropy and squared error) on Gaussian noise of sigma 0 to 0.45, clipped to 0..1.", "seed": denoiser.SEED},
    ),
    "sharpening": (
        "Sharpens pictures that are out of focus before classification.", AT_IMAGE, IMAGE_IO,
        {"method": "A residual convolutional network, trained through the frozen primary (cross-entropy and squared error) on Gaussian blur of sigma 0.4 to 2.2 pixels, a quarter of the pictures sharp.", "seed": deblur.SEED},
    ),
    "low-contrast": (
        "Stretches flat pictures to the whole range of brightness before classification.", AT_IMAGE, IMAGE_IO,
        {"data": "None for the patch; selector fitted on the last 10,000 training images of Fashion-MNIST", "method": "Written by hand, nothing is trained: (x - darkest) / max(brightest - darkest, 0.05), both from a slightly smoothed copy, clipped to 0..1; a picture that uses the whole range already passes unchanged."},
    ),
    "rotation": (
        "Replaces the middle of the model by one that knows turned pictures.",
        [{"mode": "replace", "inputs": {"stem": "stem.pooled"}, "output": {"block2": "block2"}}],
        {"inputs": {"stem": {"dtype": "float32", "shape": ["N", 16, 14, 14]}}, "outputs": {"block2": {"dtype": "float32", "shape": ["N", 64, 7, 7]}}, "preprocessing": "None: it reads the primary's own activations."},
        {"method": "The primary's own layers from stem.pooled to block2, trained on from their weights on pictures turned by -45 to 45 degrees, a fifth of them straight; what comes before and after stays frozen.", "seed": turned.SEED},
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with the four idx files of Fashion-MNIST")
    parser.add_argument("--cache", type=Path, help="folder for the trained networks")
    parser.add_argument("--only", choices=["compact", "choice", "early"], help="make this part alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.time()
    log = lambda text: print(f"[{time.time() - started:5.0f} s] {text}", flush=True)
    data = Fashion(options.data)

    if options.only:
        primary = (FOLDER / "primary.onnx").read_bytes()
        frozen = primary_model.FrozenNet(primary_model.weights_of(primary))
        if options.only == "early":
            early_answer(data, primary, frozen, options.cache, log)
            write_library()
            return
        if options.only == "choice":
            committed = {name: (FOLDER / "patches" / name / "patch.onnx").read_bytes() for name in choose.ORDER}
            image_patches(data, primary, committed, log)
            write_library()
        compact_library(data, primary, frozen, options.cache, log, only_choice=options.only == "choice")
        return

    weights = cached(options.cache, "primary.pt", lambda: primary_model.train(data, log=log))
    frozen = primary_model.FrozenNet(weights)
    primary = graphs.primary(weights)
    (FOLDER / "primary.onnx").write_bytes(primary)
    log(f"primary: test accuracy {frozen.accuracy(*data.test):.4f}, {graphs.cost(primary)}")

    noise_weights = cached(options.cache, "denoiser.pt", lambda: denoiser.train(data, frozen, log=log))
    noise, contrast = graphs.noise_reduction(noise_weights, denoiser.IMMERKAER.numpy()), graphs.low_contrast(denoiser.SMALLEST_RANGE)
    sharp = graphs.sharpening(cached(options.cache, "deblur.pt", lambda: deblur.train(data, frozen, log=log)))
    turn = graphs.rotation(cached(options.cache, "rotation.pt", lambda: turned.train(data, frozen, log=log)))
    image_patches(data, primary, {"noise-reduction": noise, "sharpening": sharp, "low-contrast": contrast, "rotation": turn}, log)
    early_answer(data, primary, frozen, options.cache, log)
    point, bridge = personal_style(data, primary, frozen, log)
    compact_library(data, primary, frozen, options.cache, log)

    write_library()
    write_data(data, frozen)
    models = {
        "primary": primary, "noise-reduction": noise, "low-contrast": contrast, "personal-style": bridge(point),
        "features": graphs.with_output(primary, "features", ["N", 64]),
    }
    golden.write_all(FOLDER / "golden", data, models, point, styled_logits(frozen, *style.projection(data, frozen)))
    log("done")


def cached(folder, name, make):
    if folder and (folder / name).exists():
        return torch.load(folder / name)
    value = make()
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(value, folder / name)
    return value


def image_patches(data, primary, patches, log):
    """The probe that chooses among them, from the pool; accuracies from the test set; four manifests, make/automatic-choice.json."""
    sessions = {name: graphs.Session(model) for name, model in patches.items()}
    middle = graphs.Session(graphs.part(primary, ["image"], ["stem.pooled"])), graphs.Session(graphs.part(primary, ["block2"], ["logits"]))
    run = choose.runner(graphs.Session(primary), middle, sessions)
    images, labels = (tensor[:FIT_IMAGES] for tensor in data.pool)
    probe = graphs.gains_probe(choose.train(images, labels, run, POOL_SEED, log), choose.FEATURES)
    (FOLDER / "probes").mkdir(exist_ok=True)
    (FOLDER / "probes" / "gains.onnx").write_bytes(probe)
    gains, table, rows = graphs.Session(probe), [], {name: [] for name in choose.ORDER}
    for name in choose.MEASURED:
        answers = choose.Answers(choose.condition(data.test[0], name, TEST_SEED), data.test[1], run)
        wanted = gains(image=answers.pixels) > choose.MARGIN
        row = {"none": answers.right(()).mean()} | {patch: answers.right((patch,)).mean() for patch in choose.ORDER}
        row |= {"automatic": answers.chosen(wanted).mean()} | {f"share {p}": share for p, share in zip(choose.ORDER, wanted.mean(0))}
        table.append({"condition": name} | {key: round(float(value), 4) for key, value in row.items()})
        log(json.dumps(table[-1]))
        for patch in choose.ORDER:
            if name in SLICES[patch]:
                rows[patch].append(measures.row(TEST, SLICES[patch][name], answers.right(()), answers.right((patch,))))
    write_json(FOLDER / "make" / "automatic-choice.json", {"format": 1, "data": TEST, "metric": "accuracy", "rows": table})
    for patch in choose.ORDER:
        function, attachments, io, provenance = IMAGE_PATCHES[patch]
        write_patch(patch, function, primary, patches[patch], attachments, choose.selector(patch), io, rows[patch], provenance)


def early_answer(data, primary, frozen, cache, log):
    """The patch that answers from the first layer. What it loses is told from the pool."""
    patch = early.graph(cached(cache, "early.pt", lambda: early.train(data, frozen, log=log)))
    stem, head, whole = graphs.Session(graphs.part(primary, ["image"], ["stem.pooled"])), graphs.Session(patch), graphs.Session(primary)
    right = lambda images, labels: [
        answer.argmax(1) == labels.numpy() for answer in (whole(image=images.numpy()), head(stem=stem(image=images.numpy())))
    ]
    base, fast = right(*data.pool)
    gain = round(float(fast.mean() - base.mean()), 4)
    rows = [measures.row(TEST, "clean", *right(*data.test))]
    log(json.dumps(rows))
    write_patch(
        "early-answer", "Answers from the first layer, where there is no time for the others.", primary, patch,
        [{"mode": "replace", "inputs": {"stem": "stem.pooled"}, "output": {"logits": "logits"}}],
        {"requires": [], "gain": {"intercept": gain, "weights": {}}},
        {"inputs": {"stem": {"dtype": "float32", "shape": ["N", 16, 14, 14]}}, "outputs": {"logits": {"dtype": "float32", "shape": ["N", 10]}}, "preprocessing": "None: it reads the primary's own activations."},
        rows,
        {"method": "Two convolutions and a linear layer at the frozen stem, taught by the primary's own answers.", "seed": compact_model.SEED},
    )


def compact_library(data, primary, frozen, cache, log, only_choice=False):
    """The library `fashion-compact`: a small primary, and the complete model as a patch that replaces it."""
    folder = FOLDER.parent / "fashion-compact"
    if only_choice:
        small = (folder / "primary.onnx").read_bytes()
    else:
        small = graphs.compact(cached(cache, "compact.pt", lambda: compact_model.train(data, frozen, log=log)))
    (folder / "patches" / "complete").mkdir(parents=True, exist_ok=True)
    (folder / "primary.onnx").write_bytes(small)
    (folder / "data").mkdir(exist_ok=True)
    shutil.copyfile(FOLDER / "data" / "samples.json", folder / "data" / "samples.json")
    complete = graphs.renamed(primary, "image", "x")
    share = graphs.cost(small)["macs"] / graphs.cost(complete)["macs"]
    sessions = graphs.Session(small), graphs.Session(complete)
    right = lambda part: [s(**{key: part[0].numpy()}).argmax(1) == part[1].numpy() for s, key in zip(sessions, ("image", "x"))]
    probe = graphs.confidence_probe()
    (folder / "probes").mkdir(exist_ok=True)
    (folder / "probes" / "confidence.onnx").write_bytes(probe)
    probed = lambda part: dict(zip(compact_model.FEATURES, graphs.Session(probe)(logits=sessions[0](image=part[0].numpy())).T))
    selector = compact_model.choice(probed(data.pool)["probe.confidence"], *right(data.pool), share)
    chosen = selection.applies(selector, probed(data.test))
    base, full = right(data.test)
    both = np.where(chosen, full, base)
    result = {
        "format": 1, "data": TEST, "metric": "accuracy", "compact": round(float(base.mean()), 4), "complete": round(float(full.mean()), 4),
        "selected": round(float(both.mean()), 4), "share_complete": round(float(chosen.mean()), 4),
        "cost_compact": round(share, 4), "mean_cost": round(float(chosen.mean() + share), 4),
    }
    write_json(folder / "choice.json", result)
    log(json.dumps(result))
    rows = [measures.row(TEST, "clean", base, full), measures.row(TEST, "clean, selected automatically", base, both)]
    logits = {"dtype": "float32", "shape": ["N", 10]}
    write_patch(
        "complete", "Answers with the complete model where the compact one is likely to be wrong.", small, complete,
        [{"mode": "replace", "inputs": {"x": "image"}, "output": {"logits": "logits"}}], selector,
        {"inputs": {"x": PICTURE}, "outputs": {"logits": logits}, "preprocessing": "Grey pixels in 0..1, as the primary takes them."}, rows,
        {"method": "The primary of the library fashion, whole. A probe tells how confident the compact model is; the complete one answers where it is not."},
        folder=folder,
    )
    library = json.loads((FOLDER / "library.json").read_text()) if (FOLDER / "library.json").exists() else None
    write_json(folder / "library.json", {
        "format": 1, "name": "fashion-compact", "title": "Clothes, compact",
        "description": "A small model for most pictures; a patch replaces it by the complete one where that is likely to pay.",
        "modality": "image", "primary": {**library["primary"], "probes": [{"name": "confidence", "site": compact_model.SITE, "file": "probes/confidence.onnx", "features": compact_model.FEATURES, "described": compact_model.DESCRIBED}]},
        "patches": ["complete"], "tasks": [], "samples": "data/samples.json",
    })


def personal_style(data, primary, frozen, log):
    """Simulates, writes patch and curve. Returns the point for the golden files and a function from parameters to ONNX."""
    weight, bias = style.projection(data, frozen)
    person = style.Style(data, frozen, weight, bias)
    result, federated = person.simulate()
    write_json(FOLDER / "make" / "federated-curve.json", result)
    for name, run in result["runs"].items():
        log(f"{name}: tilted {run['tilted'][0]} -> {run['tilted'][-1]}, straight {run['straight'][-1]}")
    patch = style.graph(weight, bias)
    start = person.bridge.start()
    zero = {name: np.zeros_like(v) for name, v in start.items()}
    rows = [
        measures.row(TEST, name, person.right(zero, part), person.right(start, part))
        for name, part in (("clean", person.straight_test), ("tilted by about 25 degrees", person.tilted_test))
    ]
    settings = style.SETTINGS
    write_patch(
        "personal-style", "Learns the style of the user's own pictures, for example that they are tilted.", primary, patch,
        [{"mode": "parallel", "inputs": {"h": "features"}, "output": {"dlogits": "logits"}, "scale": 1.0}],
        {"requires": [], "gain": {"intercept": 0.02, "weights": {}}},
        {
            "inputs": {"h": {"dtype": "float32", "shape": ["N", 64]}}, "outputs": {"dlogits": {"dtype": "float32", "shape": ["N", 10]}},
            "preprocessing": "None: it reads the primary's own features.",
        },
        rows,
        {"data": "Fashion-MNIST, 10,000 of the first 50,000 training images", "method": "The frozen projection whitens the features of 10,000 training images turned by -45 to 45 degrees, without labels; the trainable part starts at zero, so the patch as shipped changes nothing. What training brings is in make/federated-curve.json.", "seed": style.SEED},
        trainable=style.TRAINABLE,
        training={"loss": "softmax_cross_entropy", "learning_rate": settings.learning_rate, "batch": settings.batch, "epochs": settings.epochs, "clip_norm": settings.clip_norm},
    )
    rng = np.random.default_rng(golden.SEED)
    point = {name: rng.normal(0, 0.2, v.shape).astype(np.float32) for name, v in start.items()}
    return point, lambda parameters: style.graph(weight, bias, parameters)


def styled_logits(frozen, weight, bias):
    """The stitched model in float64 torch, for the golden gradient."""
    double = primary_model.FrozenNet({name: value.double() for name, value in frozen.weights.items()})
    weight, bias = torch.from_numpy(weight).double(), torch.from_numpy(bias).double()

    def logits(images, parameters):
        sites = double.sites(images.double())
        return sites["logits"] + (sites["features"] @ weight + bias) @ parameters["bridge.weight"] + parameters["bridge.bias"]

    return logits


def write_patch(name, function, primary, model, attachments, selector, io, performance, provenance, trainable=(), training=None, folder=FOLDER):
    folder = folder / "patches" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "patch.onnx").write_bytes(model)
    manifest = {
        "format": 1, "name": name, "function": function,
        "primary": "sha256:" + hashlib.sha256(primary).hexdigest(),
        "attachments": attachments, "trainable": list(trainable),
    }
    if training:
        manifest["training"] = training
    manifest |= {
        "selector": selector, "io": io, "performance": performance, "cost": graphs.cost(model), "licence": LICENCE,
        "provenance": {"made_by": "make/train.py", "data": "Fashion-MNIST, the first 50,000 training images; selector fitted on the last 10,000"} | provenance,
    }
    write_json(folder / "patch.json", manifest)


def write_library():
    settings = style.SETTINGS
    write_json(FOLDER / "library.json", {
        "format": 1, "name": "fashion", "title": "Clothes",
        "description": "Names the piece of clothing in a small grey picture; its patches help with noise, blur, flat light, turned pictures and the user's own style.",
        "modality": "image",
        "primary": {
            "file": "primary.onnx", "input": "image", "output": "logits", "labels": LABELS,
            "preprocessing": {
                "width": 28, "height": 28, "channels": 1, "scale": 1 / 255,
                "description": "Luminance, the piece of clothing bright on black, fitted into 28x28 pixels, bytes times scale: 0..1.",
            },
            "probes": [{"name": "gains", "site": choose.SITE, "file": "probes/gains.onnx", "features": choose.FEATURES, "described": choose.DESCRIBED}],
        },
        "patches": ["noise-reduction", "sharpening", "low-contrast", "rotation", "early-answer", "personal-style"],
        "tasks": [{
            "name": "personal-style", "patches": ["personal-style"], "goal": 64, "clip_norm": settings.clip_norm,
            "noise_multiplier": settings.noise_multiplier, "max_participations": style.PARTICIPATIONS, "period_days": 30, "min_separation": 1,
            "epsilon": style.EPSILON, "delta": style.DELTA,
            "evaluation": {"inputs": "data/held-out-inputs.npy", "targets": "data/held-out-targets.npy"},
            "server_learning_rate": settings.server_learning_rate, "server_momentum": settings.server_momentum,
        }],
        "samples": "data/samples.json",
    })


def write_data(data, frozen):
    folder = FOLDER / "data"
    folder.mkdir(exist_ok=True)
    for part in ("images-idx3", "labels-idx1"):
        shutil.copyfile(data.folder / f"t10k-{part}-ubyte.gz", folder / f"test-{part}-ubyte.gz")
    write_idx(folder / "pool-images-idx3-ubyte.gz", data.pool_bytes)
    write_idx(folder / "pool-labels-idx1-ubyte.gz", data.pool_label_bytes)
    held_out.write(data, folder)
    probabilities = torch.softmax(frozen.batched(data.test[0]), 1).numpy()
    write_json(folder / "samples.json", golden.samples(data.test_bytes, data.test_label_bytes, probabilities))


def write_json(path, value):
    path.write_text(compact(value) + "\n")


def compact(value, indent=0):
    """JSON with one line for whatever fits in 150 characters, so that manifests and curves stay readable."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= 150 or not isinstance(value, (dict, list)):
        return line
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        inner = [f"{pad}{json.dumps(k)}: {compact(v, indent + 2)}" for k, v in value.items()]
        return "{\n" + ",\n".join(inner) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + compact(v, indent + 2) for v in value) + "\n" + " " * indent + "]"


if __name__ == "__main__":
    main()
