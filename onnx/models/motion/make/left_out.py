"""The private rounds of `turned-watch` with each person held out in turn, by settings that nobody of them was asked for.

    python3 make/left_out.py --packages DIR --backstitch target/debug/backstitch    # after ../tune.py; some minutes

Settings were chosen on person 9 (`tuning.json`). For each of the nine others a primary and a patch are made from the eight that
are left, `backstitch simulate` trains on these eight people's sessions and judges on the ones of the person left out. A person's
sessions hang together, so the interval is a bootstrap over people. Writes `left-out.json`.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import clients
import dataset
import primary
from train import FOLDER

TUNES = 9
RESAMPLES = 10_000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, type=Path)
    parser.add_argument("--backstitch", type=Path, default="backstitch")
    options = parser.parse_args()
    found, _ = dataset.recordings(options.packages)
    rounds = json.loads((FOLDER / "make" / "tuning.json").read_text())["chosen"]["rounds"]
    people = []
    for person in sorted({r.person for r in found} - {TUNES}):
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "motion"
            make(library, found, person)
            people.append({"person": person} | simulate(options.backstitch, library, rounds))
            print(json.dumps(people[-1]), flush=True)
    means = {name: mean([p[name] for p in people]) for name in ("accuracy_gain", "loss_change")}
    made = {"rounds": rounds, "people": people, "means": means}
    (FOLDER / "make" / "left-out.json").write_text(json.dumps(made, indent=1) + "\n")


def make(folder, found, person):
    """The library as it would be if this person and the one who tunes had never been recorded, with both as held-out clients."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("make", "golden", "personal"))
    known = [r for r in found if r.person not in (TUNES, person)]
    model = primary.fit(*dataset.table(known, 64), seed=person)
    made = primary.graph(model).SerializeToString()
    patch, project = clients.fitted(model, known)
    (folder / "primary.onnx").write_bytes(made)
    (folder / "patches/turned-watch/patch.onnx").write_bytes(patch)
    training = json.loads((folder / "patches/turned-watch/patch.json").read_text())["training"]
    manifest = clients.manifest(made, project, patch) | {"training": training}
    (folder / "patches/turned-watch/patch.json").write_text(json.dumps(manifest))
    library = json.loads((folder / "library.json").read_text())
    (folder / "library.json").write_text(json.dumps(library | {"patches": ["turned-watch"]}))
    clients.pack(folder / "data/clients.json.gz", clients.clients(found, sorted([TUNES, person])))


def simulate(backstitch, folder, rounds):
    command = [backstitch, "simulate", folder, "--rounds", rounds, "--json"]
    made = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE)
    report = json.loads(made.stdout)
    first, last = report["rounds"][0], report["rounds"][-1]
    return {
        "sessions": report["held_out_clients"],
        "examples": report["held_out_examples"],
        "rounds": last["round"],
        "accuracy": [first["accuracy"], last["accuracy"]],
        "loss": [first["loss"], last["loss"]],
        "accuracy_gain": last["accuracy_gain"]["mean"],
        "loss_change": last["loss_change"]["mean"],
        "epsilon": last["epsilon"],
    }


def mean(values):
    draws = np.random.default_rng(0)
    again = draws.choice(values, (RESAMPLES, len(values))).mean(1)
    return {"mean": float(np.mean(values)), "ci95": [float(q) for q in np.quantile(again, [0.025, 0.975])]}


if __name__ == "__main__":
    main()
