"""Chooses how a library's task is trained, by what each setting brings to the tuning clients. Who judges is not looked at.

    python3 onnx/models/tune.py motion --backstitch target/debug/backstitch

(`sentiment` has a quicker way of its own, `sentiment/make/tune.py`: its encoder would run anew for every setting.)

Every setting of the grid runs with every seed through `backstitch simulate --tuning`, with the cohort, noise and participations
of the task, which are what `backstitch privacy forecast` allows. The setting and the number of rounds with the lowest mean loss
win. Writes `make/tuning.json` in the library's folder, and the winner into `library.json` and the patch's manifest; to what that
comes for the judging clients, `simulate` says afterwards.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# Most rounds: as many as the clients' participations allow. A round of `fashion` takes seconds.
ROUNDS = {"anomalies": 12, "fashion": 16, "motion": 12, "photos": 6}
SEEDS = {"anomalies": [11, 12], "fashion": [11], "motion": [11, 12], "photos": [11]}
GRIDS = {
    # The curvature is at most 16 (eight values of variance 1), so a device alone may diverge by steps above 1/8.
    "anomalies": {"learning_rate": [0.05, 0.1], "clip_norm": [0.25, 0.5, 1.0], "server_momentum": [0.0, 0.5]},
    "fashion": {"learning_rate": [0.1, 0.3], "clip_norm": [0.25, 0.5, 1.0], "server_momentum": [0.0, 0.5]},
    "motion": {"learning_rate": [0.3, 1.0], "clip_norm": [0.25, 0.5, 1.0], "server_momentum": [0.0, 0.5]},
    # Every example runs the whole of a large model, forward and back: a setting takes a quarter of an hour.
    "photos": {"learning_rate": [1.0], "clip_norm": [0.2], "server_momentum": [0.0]},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=GRIDS)
    parser.add_argument("--backstitch", type=Path, default="backstitch")
    options = parser.parse_args()
    source = FOLDER / options.library
    grid = GRIDS[options.library]
    tried = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / options.library
        shutil.copytree(source, copy)
        for values in itertools.product(*grid.values()):
            setting = dict(zip(grid, values))
            put(copy, setting)
            tried.append(setting | mean([simulate(options, copy, seed) for seed in SEEDS[options.library]]))
            print(json.dumps(tried[-1]), flush=True)
    best = min(tried, key=lambda one: one["loss"])
    chosen = {name: best[name] for name in [*grid, "rounds"]}
    write(source / "make" / "tuning.json", {"seeds": SEEDS[options.library], "chosen": chosen, "tried": tried})
    put(source, chosen)


def put(folder, setting):
    """Writes a setting where server and client read it."""
    path = folder / "library.json"
    library = json.loads(path.read_text())
    (task,) = library["tasks"]
    task["clip_norm"], task["server_momentum"] = setting["clip_norm"], setting["server_momentum"]
    write(path, library)
    path = folder / "patches" / task["patches"][0] / "patch.json"
    patch = json.loads(path.read_text())
    patch["training"]["learning_rate"], patch["training"]["clip_norm"] = setting["learning_rate"], setting["clip_norm"]
    write(path, patch)


def simulate(options, folder, seed):
    """Loss and, where the answers are classes, accuracy after each round."""
    command = [options.backstitch, "simulate", folder, "--tuning", "--rounds", ROUNDS[options.library], "--seed", seed, "--json"]
    made = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE)
    lines = json.loads(made.stdout)["rounds"]
    return [{key: line[key] for key in ("loss", "accuracy") if line[key] is not None} for line in lines]


def mean(curves):
    """The round with the lowest mean loss, of those that every seed reached; what it was before."""
    rounds = [{key: sum(line[key] for line in lines) / len(curves) for key in lines[0]} for lines in zip(*curves)]
    best = min(range(1, len(rounds)), key=lambda at: rounds[at]["loss"])
    named = lambda at, prefix="": {prefix + key: round(value, 4) for key, value in rounds[at].items()}
    return {"rounds": best} | named(best) | named(0, "shipped_")


def write(path, value):
    indent = 2 if path.exists() and path.read_text().startswith('{\n  "') else 1
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
