"""Makes the whole sample library `anomalies` in the folder above: models, manifests, samples, golden answers, results.

    python3 make/train.py --packages DIR [--nab DIR]

DIR holds the wheel of sktime 1.2.0. With the folder of NAB's data (see nab.py) the benchmark's score is measured and written into
the manifest and into results.json; without it the measured numbers stay as they are. Two minutes on one core.
"""

import argparse
import csv
import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime

import graphs
import nab

FOLDER = Path(__file__).resolve().parent.parent
LICENCE = "MIT OR Apache-2.0"
# Clip norm and momentum are those that ../tune.py found; the others are what `backstitch privacy forecast` allows.
TASK = {
    "name": "shared-forecast",
    "patches": ["shared-forecast"],
    "goal": 48,
    "clip_norm": 0.25,
    "noise_multiplier": 3.6,
    "max_participations": 8,
    "period_days": 30,
    "min_separation": 1,
    "epsilon": 4.0,
    "delta": 1e-6,
    "server_learning_rate": 1.0,
    "server_momentum": 0.5,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, type=Path)
    parser.add_argument("--nab", type=Path)
    options = parser.parse_args()
    wheel = zipfile.ZipFile(next(options.packages.glob("sktime-1.2.0*.whl")))
    beats, strange = read_beats(wheel)
    # The strange stretch is far behind what the forecaster learns from.
    weights = forecast([beats[:4000], read_sun(wheel)])
    primary, patch = graphs.primary(weights).SerializeToString(), graphs.patch().SerializeToString()
    write("primary.onnx", primary)
    write("patches/temporal-anomaly/patch.onnx", patch)
    results = json.loads((FOLDER / "make/results.json").read_text()) if not options.nab else on_nab(options.nab, weights)
    results["beats"] = on_beats(beats, strange, weights)
    write_json("make/results.json", results)
    write_json("patches/temporal-anomaly/patch.json", manifest(primary, patch, results))
    write_json("library.json", library())
    write_json("data/samples.json", {"format": 1, "samples": [sample(beats, strange)]})
    write_json("golden/stream.json", golden(primary, patch, beats, weights))
    print(json.dumps(results, indent=1))


def write(path, data):
    (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
    (FOLDER / path).write_bytes(data)


def write_json(path, value):
    write(path, (json.dumps(value, indent=1) + "\n").encode())


def read_beats(wheel):
    """An electrocardiogram and whether each moment belongs to the one strange stretch."""
    rows = list(csv.reader(io.StringIO(wheel.read("sktime/datasets/data/mitdb/mitdb.csv").decode())))[1:]
    return np.array([float(row[0]) for row in rows]), np.array([float(row[1]) > 0 for row in rows])


def read_sun(wheel):
    """Half-hourly output of the solar plants of Great Britain."""
    rows = csv.DictReader(io.StringIO(wheel.read("sktime/datasets/data/solar/solar.csv").decode()))
    return np.array([float(row["solar_gen"]) for row in rows])


def forecast(series, ridge=1e-2):
    """Weights of the last ORDER values, newest first, that add up to 1: changes are forecast from changes."""
    a, b = np.zeros((graphs.ORDER - 1, graphs.ORDER - 1)), np.zeros(graphs.ORDER - 1)
    for values in series:
        change = np.diff(values) / (values.std() + 1e-9)
        past = np.lib.stride_tricks.sliding_window_view(change[:-1], graphs.ORDER - 1)[:, ::-1]
        next_change = change[graphs.ORDER - 1 :]
        a += past.T @ past
        b += past.T @ next_change
    change = np.linalg.solve(a + ridge * len(series) * np.eye(len(a)), b)
    weights = np.zeros(graphs.ORDER)
    weights[0] = 1
    weights[:-1] += change
    weights[1:] -= change
    return weights


def on_nab(folder, weights):
    corpus = nab.read(folder)
    pairs = [graphs.whole(series.values, weights) for series in corpus]
    base, patched = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    gauss = [nab.windowed_gaussian(series.values) for series in corpus]
    measured = {}
    for profile in nab.PROFILES:
        measured[profile] = {
            "windowed_gaussian": nab.score(corpus, gauss, profile),
            "forecaster": nab.score(corpus, base, profile),
            "forecaster_and_patch": nab.score(corpus, patched, profile),
        }
    thresholds = {k: v["threshold"] for k, v in measured["standard"].items()}
    halves = [transferred(corpus, patched, half) for half in (0, 1)]
    return {
        "nab": {
            "files": len(corpus),
            "windows": sum(len(series.windows) for series in corpus),
            "moments": int(sum(len(series.values) for series in corpus)),
            "profiles": measured,
            "threshold_from_the_other_half_of_the_files": halves,
            "gain_ci95": interval(corpus, base, patched, thresholds),
        }
    }


def transferred(corpus, scores, half):
    """The score on half of the files at the threshold that is best on the other half."""
    there = nab.score(corpus[1 - half :: 2], scores[1 - half :: 2])["threshold"]
    return round(nab.score(corpus[half::2], scores[half::2], thresholds=np.array([there]))["score"], 2)


def interval(corpus, base, patched, thresholds, draws=1000):
    """Of the gain in the standard score over files drawn again, at the thresholds of the whole corpus."""
    at = lambda scores, name: [
        nab.score([s], [v], thresholds=np.array([thresholds[name]]))["score"] * len(s.windows) if s.windows else extra(s, v, thresholds[name])
        for s, v in zip(corpus, scores)
    ]
    gains = np.array(at(patched, "forecaster_and_patch")) - np.array(at(base, "forecaster"))
    counts = np.array([len(s.windows) for s in corpus])
    random = np.random.default_rng(0)
    again = []
    for _ in range(draws):
        rows = random.integers(len(corpus), size=len(corpus))
        again.append(gains[rows].sum() / counts[rows].sum())
    return [round(float(q), 2) for q in np.quantile(again, [0.025, 0.975])]


def extra(series, scores, threshold):
    """What false alarms cost in a file without a window, in points of one window."""
    window, value = nab.worth(series, "standard")
    detected = (np.arange(len(scores)) >= series.probation) & (scores >= threshold)
    return 100 * value[detected].sum() / 2


def on_beats(values, strange, weights):
    """Where the highest score lies, and how many alarms come before the first one inside the strange stretch."""
    out = {"moments": len(values), "strange": [int(np.flatnonzero(strange)[0]), int(np.flatnonzero(strange)[-1])]}
    for name, scores in zip(("forecaster", "forecaster_and_patch"), graphs.whole(values, weights)):
        scored = scores.copy()
        scored[: graphs.WINDOW] = 0
        inside = scored[strange].max()
        false = int((scored[~strange] >= inside).sum())
        out[name] = {"highest_at": int(scored.argmax()), "inside": bool(strange[scored.argmax()]), "false_alarms_at_the_inner_highest": false}
    return out


def manifest(primary, patch, results):
    measured = results["nab"]["profiles"]["standard"]
    return {
        "format": 1,
        "name": "temporal-anomaly",
        "function": "Tells what stands out in time: level, spread or forecast error beyond all that was seen lately, once.",
        "primary": "sha256:" + hashlib.sha256(primary).hexdigest(),
        "attachments": [
            {"mode": "replace", "inputs": {"normal": "normal", "error": "error"}, "output": {"anomaly": "score"}}
        ],
        "trainable": [],
        "selector": {"requires": [], "gain": {"intercept": 0.05, "weights": {}}},
        "io": {
            "inputs": {
                "normal": {"dtype": "float32", "shape": ["N", 1, graphs.WINDOW]},
                "error": {"dtype": "float32", "shape": ["N", 1, graphs.WINDOW - graphs.ORDER]},
            },
            "outputs": {"anomaly": {"dtype": "float32", "shape": ["N", 1]}},
            "preprocessing": "None: it reads the primary's own tensors.",
        },
        "performance": [
            {
                "data": f"Numenta Anomaly Benchmark, {results['nab']['files']} of its series, {results['nab']['windows']} windows",
                "slice": "standard profile; 0 is silence, 100 perfect",
                "metric": "nab_score",
                "base": round(measured["forecaster"]["score"], 2),
                "patched": round(measured["forecaster_and_patch"]["score"], 2),
                "n": results["nab"]["windows"],
                "ci95": results["nab"]["gain_ci95"],
            }
        ],
        "cost": {
            "macs": (graphs.LONG + 2 * graphs.SHORT) * graphs.WINDOW,
            "parameter_bytes": 4 * (graphs.LONG + 2 * graphs.SHORT),
            "download_bytes": len(patch),
        },
        "licence": LICENCE,
        "provenance": {
            "made_by": "make/train.py",
            "data": "None: nothing is trained. Its form and its three window lengths were chosen by looking at the benchmark itself.",
            "method": "Exceedance of records: see make/graphs.py.",
        },
    }


def library():
    return {
        "format": 1,
        "name": "anomalies",
        "title": "Anomalies",
        "description": "Scores the newest moment of a series: how far from its forecast, and how much it stands out in time.",
        "modality": "series",
        "primary": {
            "file": "primary.onnx",
            "input": "series",
            "output": "score",
            "labels": [],
            "preprocessing": {
                "window": graphs.WINDOW,
                "channels": 1,
                "max_missing": 0.95,
                "description": "Any unit and rate; the newest 1,024 moments, NaN where nothing was seen yet.",
            },
        },
        "patches": ["temporal-anomaly", "shared-forecast"],
        "tasks": [TASK],
        "samples": "data/samples.json",
    }


def sample(values, strange):
    places = np.flatnonzero(strange)
    first = int(places[0]) - 2500
    return {
        "name": "heartbeats",
        "rate_hz": 360,
        "strange": [int(places[0]) - first, int(places[-1]) - first],
        "values": [round(float(v), 4) for v in values[first:]],
    }


def golden(primary, patch, values, weights):
    """Scores of some windows by onnxruntime; they also have to agree with the numpy form that the benchmark used."""
    base, told = graphs.whole(values, weights)
    everything = augmented(primary)
    one, two = onnxruntime.InferenceSession(everything), onnxruntime.InferenceSession(patch)
    stream = graphs.padded(values)
    cases = []
    loud = [int(i) for i in np.argsort(told)[-4:]]
    for at in sorted({1023, 1500, 3000, 4500, 6000, *loud}):
        window = stream[at : at + graphs.WINDOW].astype(np.float32)[None, None]
        score, normal, error = one.run(["score", "normal", "error"], {"series": window})
        anomaly = two.run(None, {"normal": normal, "error": error})[0]
        assert np.isclose(score[0, 0], base[at], rtol=2e-2, atol=2e-2), (at, score, base[at])
        assert np.isclose(anomaly[0, 0], told[at], rtol=2e-2, atol=2e-2), (at, anomaly, told[at])
        start = at + 1 - graphs.WINDOW
        if start >= 0:
            series = [round(float(v), 4) for v in values[start : at + 1]]
            cases.append({"at": at, "series": series, "score": float(score[0, 0]), "anomaly": float(anomaly[0, 0])})
    return {"format": 1, "tolerance": 1e-3, "cases": cases}


def augmented(primary):
    """The primary with the tensors that the patch reads as outputs too."""
    import onnx

    model = onnx.load_from_string(primary)
    for name in ("normal", "error"):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return model.SerializeToString()


if __name__ == "__main__":
    main()
