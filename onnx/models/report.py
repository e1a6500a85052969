"""Prints docs/LIBRARIES.md from what stands in the libraries: python3 onnx/models/report.py > docs/LIBRARIES.md"""

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


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


def choice():
    """Automatic choice of four patches of `fashion`, against the best single one."""
    yield "### Automatic choice in `fashion`\n"
    yield "Accuracy on the whole test set. Won back is the share of what the condition cost; the last column is automatic minus the best single choice.\n"
    rows = read(FOLDER / "fashion" / "make" / "added-choice.json")["rows"]
    patches = ["noise-reduction", "low-contrast", "sharpening", "rotation"]
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


def main():
    print("# Libraries: what the patches win\n")
    print("Written by `python3 onnx/models/report.py > docs/LIBRARIES.md` from the manifests. Base and patched run on the very same")
    print("held-out inputs; intervals are paired bootstraps. Every figure of a manifest can be measured again with")
    print("`backstitch patch eval`.\n")
    for folder in sorted(p.parent for p in FOLDER.glob("*/library.json")):
        print("\n".join(library(folder)))
        if folder.name == "fashion" and (folder / "make" / "added-choice.json").exists():
            print("\n".join(choice()))
        if folder.name == "fashion-compact":
            print("\n".join(compact()))


if __name__ == "__main__":
    main()
