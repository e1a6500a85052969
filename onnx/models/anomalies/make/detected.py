"""What the shared forecast does for detection: `detected.json`.

    python3 make/detected.py --packages DIR [--nab DIR]      # after clients.py and ../tune.py; seconds

The eight numbers are trained here as the rounds of the task do: clipped updates of random cohorts, noise, server momentum, with the
settings of `library.json`. Then the newest reading of a window is disturbed, in recordings of the kinds of appliance that only judge:
one reading is lost, so that the next quantity stands in its place; the sender is stuck, so that the last reading comes again; the
reading is off by a fifth of the spread. Reported is the area under the curve of the primary's own score, disturbed against ordinary
windows: 0.5 is chance. These disturbances are made; nobody has labelled real ones. On NAB the score is reported with the forecast
corrected in every series, wanted or not; the patch's selector takes it for one of the 31.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import clients
import graphs
import nab
from train import FOLDER, write_json

PLACES = np.arange(graphs.WINDOW, 1459, 31)
OFF = 0.2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, type=Path)
    parser.add_argument("--nab", type=Path)
    options = parser.parse_args()
    held = {i.name: numpy_helper.to_array(i) for i in onnx.load(FOLDER / "primary.onnx").graph.initializer}
    kernel = held["forecast.residual"].ravel().astype(float)
    one, other = clients.recordings(options.packages)
    appliances = [(kind, [a, b]) for (kind, a), (_, b) in zip(one, other)]
    known = [own for kind, own in appliances if kind not in clients.TUNING + clients.JUDGING]
    learnt = kernel.copy()
    learnt[:-1] += rounds(kernel, known)
    judges = [values for kind, own in appliances if kind in clients.JUDGING for values in own]
    path = FOLDER / "make" / "detected.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    found["disturbed"] = disturbed(judges, kernel, learnt)
    if options.nab:
        found["nab"] = on_nab(options.nab, kernel, learnt)
    write_json("make/detected.json", found)
    print(json.dumps(found, indent=1))


def normal(windows):
    mean = windows.mean(1, keepdims=True)
    return (windows - mean) / (windows.std(1, keepdims=True) + graphs.FLAT * np.abs(mean) + 1e-6)


def rounds(kernel, appliances):
    """The correction after as many private rounds as `tuning.json` found best."""
    task = json.loads((FOLDER / "library.json").read_text())["tasks"][0]
    chosen = json.loads((FOLDER / "make" / "tuning.json").read_text())["chosen"]
    training = json.loads((FOLDER / "patches" / clients.NAME / "patch.json").read_text())["training"]
    random = np.random.default_rng(1)
    data = []
    for own in appliances:
        parts = [np.lib.stride_tricks.sliding_window_view(v, graphs.WINDOW)[:: clients.STRIDE] for v in own]
        view = np.lib.stride_tricks.sliding_window_view(normal(np.concatenate(parts)), graphs.ORDER + 1, axis=1)
        # The loss of a window is a quadratic form in the kernel.
        data.append(np.einsum("nti,ntj->nij", view, view) / view.shape[1])
    weights, momentum = np.zeros(graphs.ORDER), np.zeros(graphs.ORDER)
    for _ in range(chosen["rounds"]):
        cohort = random.choice(len(data), task["goal"], replace=False)
        total = sum(clipped(descent(data[i], kernel, weights, training, random) - weights, task["clip_norm"]) for i in cohort)
        noise = random.normal(0, task["noise_multiplier"] * task["clip_norm"], graphs.ORDER)
        momentum = task["server_momentum"] * momentum + (total + noise) / task["goal"]
        weights = weights + task["server_learning_rate"] * momentum
    return weights


def descent(forms, kernel, weights, training, random):
    """One client's passes over four fifths of its windows."""
    order = random.permutation(len(forms))[: len(forms) * 4 // 5]
    for _ in range(training["epochs"]):
        random.shuffle(order)
        for at in range(0, len(order), training["batch"]):
            form = forms[order[at : at + training["batch"]]].mean(0)
            whole = kernel.copy()
            whole[:-1] += weights
            weights = weights - training["learning_rate"] * 2 * (form @ whole)[:-1]
    return weights


def clipped(update, norm):
    return update * min(1, norm / max(np.linalg.norm(update), 1e-12))


def disturbed(recordings, kernel, learnt):
    """Area under the curve for each disturbance, by the primary's forecast and by the corrected one."""
    random = np.random.default_rng(0)
    sets = {"ordinary": [], "a reading is lost": [], "the sender is stuck": [], "a reading is off": []}
    for values in recordings:
        for end in PLACES:
            window = values[end - graphs.WINDOW : end]
            newest = [window[-1], values[end], window[-2], window[-1] + OFF * values.std() * random.choice([-1, 1])]
            for rows, reading in zip(sets.values(), newest):
                rows.append(np.append(window[:-1], reading))
    found = {"windows": len(sets["ordinary"])}
    for name, rows in list(sets.items())[1:]:
        each = [area(score(rows, k), score(sets["ordinary"], k)) for k in (kernel, learnt)]
        found[name] = {"primary": round(each[0], 3), "shared_forecast": round(each[1], 3)}
    return found


def score(windows, kernel):
    """The primary's score of the newest moment, with this kernel."""
    view = np.lib.stride_tricks.sliding_window_view(normal(np.array(windows)), graphs.ORDER + 1, axis=1)
    error = np.abs(view @ kernel)
    return (error[:, -1] - error.mean(1)) / (error.std(1) + graphs.FLAT)


def area(positive, negative):
    """The share of pairs in the right order; half of those that are equal."""
    lower = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    return float(lower)


def on_nab(folder, kernel, learnt):
    corpus = nab.read(folder)
    found = {}
    for name, own in (("primary", kernel), ("shared_forecast", learnt)):
        weights = -own[:-1][::-1]
        # The numpy form of the scores wants weights that add up to 1; the learnt ones nearly do.
        pairs = [graphs.whole(series.values, weights / weights.sum()) for series in corpus]
        scores = [nab.score(corpus, [pair[i] for pair in pairs])["score"] for i in (0, 1)]
        found[name] = {"alone": round(scores[0], 2), "with_temporal_anomaly": round(scores[1], 2)}
    return found


if __name__ == "__main__":
    main()
