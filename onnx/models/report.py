"""Prints docs/LIBRARIES.md from what stands in the libraries: python3 onnx/models/report.py > docs/LIBRARIES.md"""

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CLIENTS = """## Who learns together

| library | a client | why so |
| --- | --- | --- |
| fashion | a simulated person: 40 to 60 real pictures with a mix of classes of their own (Dirichlet, α = 0.5), tilted by 25° ± 4°, a quarter of them straight | nobody knows who took which picture |
| motion | a session of a real person: an eighth of what one arm recorded, the watch turned about the forearm by 30° ± 20° | ten people are too few: a round needs z√d = 40 clients for 119 numbers. So ε is that of a session; a person has sixteen. All sessions of a person as one client would be eight clients, so a promise to persons is not to be had here: by group privacy ε = 4 for a session is over 100 for all sixteen of a person, which is none. Two people are in no session that trains, nor in the primary's data: person 9 chooses settings, person 10 judges |
| sentiment | a film: eight or more real sentences of its viewers | the sentences carry no author; a film's differ from another's in number, in what they speak of and in praise. Half of the test films choose settings; the other half and the films of the tuning part judge |
| fashion-compact | none | the patch `complete` is a model, not something that is trained |
| photos | a simulated person: five views of real photographs through a misted, greenish window of their own, one in eight of them clear | no registry has photographs with the people who took them, so whose is which is drawn; nobody who trains has a photograph of those who choose settings or judge. A class is what the primary names where nothing is before it. The patch `my-things` is each user's own |
| anomalies | a real household appliance: two recordings of its power meter, which sends four quantities in turn | ten kinds of ten appliances; seven kinds train, one kind chooses settings, and two judge, so nothing is known of the kinds that judge. Nobody labels: what is learnt is how readings go on |

For `anomalies`, `motion` and `sentiment`, learning rate, clip norm, server momentum and the number of rounds were chosen on held-out clients who
do not judge (`backstitch simulate --tuning`); cohort, noise and participations are what `backstitch privacy forecast` allows. All that was
tried stands in `make/tuning.json`. The judging clients were asked once, after the choice. The form of each patch (what it
reads, how many numbers) is older than this division, and was chosen while looking at some of those who judge.

For `anomalies` that is not all. Six more settings, with learning rate 0.2, were tried and were better (best loss on the tuning devices
0.1685, not 0.1802); they were left out afterwards, because a device alone may diverge by such steps. The judging devices were asked
once before that (0.408 after ten rounds) and once after it. The patch's selector was set while looking at all kinds.

For `photos` every example runs the whole of a large model, so little was tried: one setting for six rounds, and a clip norm of 0.5
for one, which brought the tuning people less (`make/tuning.json`).
How strong mist and tint are was set by what they cost the primary on all of the photographs, those of the judging people among them.
Judging people share forty photographs, so an interval over people says little of other photographs.

Simulated figures use noise from a seed; ε is what the server's ledger says. Where a patch starts at zero, round 0 is the
primary alone.
"""


def read(path):
    return json.loads(path.read_text())


def number(value, metric):
    return f"{100 * value:.2f} %" if metric == "accuracy" else f"{value:.4g}"


def difference(row):
    scale = 100 if row["metric"] == "accuracy" else 1
    text = f"{scale * (row['patched'] - row['base']):+.2f}"
    return text + (" ({:+.2f} to {:+.2f})".format(*(scale * c for c in row["ci95"])) if row.get("ci95") else "")


def library(folder):
    described = read(folder / "library.json")
    yield f"## {folder.name}\n\n{described['description']} Made by `onnx/models/{folder.name}/make` where it is there, licences in `NOTICE`.\n"
    manifests = [read(folder / "patches" / name / "patch.json") for name in described["patches"]]
    yield "| patch | multiply-accumulates | download | what it does |\n| --- | --- | --- | --- |"
    for m in manifests:
        cost = m.get("cost", {})
        yield f"| {m['name']} | {cost.get('macs', 0):,} | {cost.get('download_bytes', 0) / 1000:,.1f} kB | {m['function']} |"
    rows = [(m["name"], row) for m in manifests for row in m.get("performance", [])]
    if rows:
        yield "\n| patch | slice | metric | without | with | difference (95 %) | n |\n| --- | --- | --- | --- | --- | --- | --- |"
    for name, r in rows:
        yield f"| {name} | {r['slice']} | {r['metric']} | {number(r['base'], r['metric'])} | {number(r['patched'], r['metric'])} | {difference(r)} | {r['n']:,} |"
    yield ""


def federated(folder):
    """What private rounds bring to clients who never train; `backstitch simulate` printed it."""
    r = read(folder / "make" / "simulated.json")
    last, p, rounds = r["rounds"][-1], r["privacy"], len(r["rounds"]) - 1
    gain, change = last["accuracy_gain"], last["loss_change"]
    right = "" if gain is None else (
        f"accuracy is {100 * last['accuracy']:.2f} %, {100 * gain['mean']:+.2f} points (95 % {100 * gain['ci95'][0]:+.2f} to {100 * gain['ci95'][1]:+.2f}), and "
    )
    yield f"### Learnt together: `{r['task']}`\n"
    yield (
        f"A client is {r['unit']}. {r['clients']} clients train {r['parameters']} numbers in rounds of {last['goal']} (clip norm {p['clip_norm']}, noise multiplier "
        f"{p['noise_multiplier']}, at most {p['max_participations']} rounds each, ε = {p['epsilon']:g} at δ = {p['delta']:g}); {r['held_out_examples']:,} examples of {r['held_out_clients']} "
        f"other clients judge. After {rounds} rounds {right}the loss is {last['loss']:.3f}, {change['mean']:+.3f} ({change['ci95'][0]:+.3f} to {change['ci95'][1]:+.3f}): paired with the patch as shipped, "
        "by a bootstrap over whole clients.\n"
    )
    yield chosen(folder)
    if r["ended"]:
        yield f"It ended early: {r['ended']}.\n"
    tuning = folder / "make" / "tuning.json"
    wanted = read(tuning)["chosen"]["rounds"] if tuning.exists() else rounds
    some = sorted({0, 1, 2, 4, 8, 12, 16, 24, rounds} & set(range(rounds + 1)))
    lines = [r["rounds"][i] for i in some]
    yield "| round | " + " | ".join(str(line["round"]) for line in lines) + " |"
    yield "| --- |" + " --- |" * len(lines)
    if right:
        yield "| accuracy | " + " | ".join(f"{100 * line['accuracy']:.2f} %" for line in lines) + " |"
    yield "| loss | " + " | ".join(f"{line['loss']:.4f}" for line in lines) + " |"
    yield "| ε spent | " + " | ".join("–" if line["epsilon"] is None else f"{line['epsilon']:.2f}" for line in lines) + " |"
    yield f"\n`backstitch simulate {folder.name} --rounds {wanted} --json > onnx/models/{folder.name}/make/simulated.json`\n"


def chosen(folder):
    """How the settings were chosen, if they were chosen on others than judge."""
    if not (folder / "make" / "tuning.json").exists():
        return "These settings are older than the division into tuning and judging clients, and were not chosen anew.\n"
    tuned = read(folder / "make" / "tuning.json")
    best = tuned["chosen"]
    settings = f"learning rate {best['learning_rate']:g}, clip norm {best['clip_norm']:g}, server momentum {best['server_momentum']:g}"
    tuner = "make/tune.py" if (folder / "make" / "tune.py").exists() else "../tune.py"
    if len(tuned["tried"]) == 1:
        return f"On the tuning clients only {settings} was run in full; their loss was lowest after {best['rounds']} rounds.\n"
    return f"Of {len(tuned['tried'])} settings, `{tuner}` found {settings} and {best['rounds']} rounds best on the tuning clients.\n"


def detected():
    """What the shared forecast does for detection."""
    r = read(FOLDER / "anomalies" / "make" / "detected.json")
    yield (
        f"What that is worth to whom it warns: the newest reading of {r['disturbed']['windows']} windows of the kinds that judge is disturbed, and the primary's own score told "
        "apart from that of the same windows as they were. Area under the curve; chance is 0.5.\n"
    )
    yield "| disturbance | primary alone | with `shared-forecast` |\n| --- | --- | --- |"
    for name, row in r["disturbed"].items():
        if name != "windows":
            yield f"| {name} | {row['primary']:.3f} | {row['shared_forecast']:.3f} |"
    before, after = r["nab"]["primary"], r["nab"]["shared_forecast"]
    yield (
        f"\nOn NAB, with the forecast corrected in every series though its selector takes one of 31: {before['alone']:.2f} → {after['alone']:.2f} alone, "
        f"{before['with_temporal_anomaly']:.2f} → {after['with_temporal_anomaly']:.2f} with `temporal-anomaly`.\n"
    )
    yield "`python3 onnx/models/anomalies/make/detected.py --packages DIR --nab DIR`\n"


def left_out():
    """What the rounds of `motion` bring to each person, trained by eight others."""
    r = read(FOLDER / "motion" / "make" / "left-out.json")
    gain, change = r["means"]["accuracy_gain"], r["means"]["loss_change"]
    span = lambda one, scale, places: f"{scale * one['mean']:+.{places}f} (95 % {scale * one['ci95'][0]:+.{places}f} to {scale * one['ci95'][1]:+.{places}f})"
    yield (
        f"One person is one person. So each of the nine who chose nothing is left out in turn: a primary and private rounds of the eight others, judged on that person's "
        f"sessions. Mean over people, by a bootstrap over people: accuracy {span(gain, 100, 2)} points, loss {span(change, 1, 3)}.\n"
    )
    yield "| person left out | sessions | accuracy before | after | loss before | after |\n| --- | --- | --- | --- | --- | --- |"
    for p in r["people"]:
        (a, b), (c, d) = p["accuracy"], p["loss"]
        yield f"| {p['person']} | {p['sessions']} | {100 * a:.2f} % | {100 * b:.2f} % | {c:.3f} | {d:.3f} |"
    yield "\n`python3 onnx/models/motion/make/left_out.py --packages DIR`\n"


def choice():
    """Automatic choice of four patches of `fashion`, against the best single one."""
    yield "### Automatic choice in `fashion`\n"
    yield "Accuracy on the whole test set. Won back is the share of what the condition cost; the last column is automatic minus the best single choice.\n"
    rows = read(FOLDER / "fashion" / "make" / "automatic-choice.json")["rows"]
    patches = ["noise-reduction", "sharpening", "low-contrast", "rotation"]
    clean = rows[0]["none"]
    yield "| condition | none | " + " | ".join(patches) + " | automatic | won back | against the best |"
    yield "| --- | " + "--- | " * (len(patches) + 4)
    for r in rows:
        lost = clean - r["none"]
        back = f"{100 * (r['automatic'] - r['none']) / lost:.0f} %" if lost > 0.01 else ""
        best = max(r[p] for p in ["none", *patches])
        cells = [r["none"], *(r[p] for p in patches), r["automatic"]]
        yield f"| {r['condition']} | " + " | ".join(f"{100 * c:.2f}" for c in cells) + f" | {back} | {100 * (r['automatic'] - best):+.2f} |"
    yield ""


def sentences():
    """Who chooses the patch of a sentence: its own features, or a probe on the model's sentence vector."""
    rows = read(FOLDER / "sentiment" / "make" / "choice.json")["rows"]
    yield "### Automatic choice in `sentiment`\n"
    yield (
        "Shares of the domain are means over the four domains; accuracy is that of automatic selection. A linear probe on the sentence vector knows the domain far oftener. "
        "Yet its answers are right as often as those of the features, within half a point either way: the patches differ little where the features are wrong, and both stay "
        "above the pooled head by more than the bar of two points and choose right or as good for more than 80 %. The library keeps the features, which need no file of "
        "their own. The lists of words behind them were counted on all rated sentences, these among them; the sets of UCI they have not seen.\n"
    )
    yield "| chosen by | part | n | domain right | right or as good | pooled head | own domain's patch | automatic, rated | with UCI | seven sets |"
    yield "| --- " * 10 + "|"
    for r in rows:
        m = r["means"]
        cells = [r["right"], r["right_or_as_good"], m["rated"]["pooled"], m["rated"]["own"], *(m[key]["automatic"] for key in ("rated", "domains", "sets"))]
        part = {"tune": "tuning", "test": "test"}[r["part"]]
        yield f"| {r['chooser']} | {part} | {r['n']:,} | " + " | ".join(f"{100 * c:.2f} %" for c in cells) + " |"
    yield "\n`python3 onnx/models/sentiment/make/choice.py --packages DIR`\n"


def compact():
    """The compact primary and its replacement."""
    r = read(FOLDER / "fashion-compact" / "choice.json")
    yield "### Compact and complete\n"
    yield (
        f"The compact model alone is right for {100 * r['compact']:.2f} % of the test set at {100 * r['cost_compact']:.1f} % of the complete model's "
        f"multiply-accumulates. Replaced by the complete model for the {100 * r['share_complete']:.1f} % of inputs that its selector takes for hard, it is right for "
        f"{100 * r['selected']:.2f} %, which is {100 * r['selected'] / r['complete']:.2f} % of the complete model's {100 * r['complete']:.2f} %, "
        f"at {100 * r['mean_cost']:.1f} % of its mean cost.\n"
    )


def things():
    """What a few pictures of a thing teach, beside the plain features."""
    r = read(FOLDER / "photos" / "make" / "results.json")
    yield "### Things of one's own in `photos`\n"
    yield (
        "Things are taught by views of one photograph each, ten passes, nothing else beside them. Recognised: other views of the same thing. Mistaken: views of "
        "photographs of something else that are taken for it. A head on the plain features, all of them positive, takes nearly everything for what it was taught; the "
        "patch weighs their direction from the mean photograph.\n"
    )
    yield "| things | pictures of each | recognised | mistaken | plain features: recognised | mistaken |\n| --- | --- | --- | --- | --- | --- |"
    for own, plain in zip(r["directions"], r["plain features"]):
        cells = [own["recognised"], own["mistaken"], plain["recognised"], plain["mistaken"]]
        yield f"| {own['things']} | {own['pictures_each']} | " + " | ".join(f"{100 * c:.1f} %" for c in cells) + " |"
    yield "\n`python3 onnx/models/photos/make/things.py`\n"


def main():
    print("# Libraries: what the patches win\n")
    print("Written by `python3 onnx/models/report.py > docs/LIBRARIES.md` from the manifests. Base and patched run on the very same")
    print("held-out inputs; intervals are paired bootstraps. Every figure of a manifest can be measured again with")
    print("`backstitch patch eval`, every curve of rounds with `backstitch simulate`.\n")
    print(CLIENTS)
    for folder in sorted(p.parent for p in FOLDER.glob("*/library.json")):
        print("\n".join(library(folder)))
        if (folder / "make" / "simulated.json").exists():
            print("\n".join(federated(folder)))
        if folder.name == "anomalies":
            print("\n".join(detected()))
        if folder.name == "motion":
            print("\n".join(left_out()))
        if folder.name == "fashion":
            print("\n".join(choice()))
        if folder.name == "sentiment":
            print("\n".join(sentences()))
        if folder.name == "photos":
            print("\n".join(things()))
        if folder.name == "fashion-compact":
            print("\n".join(compact()))


if __name__ == "__main__":
    main()
