"""Runs ONNX's own test cases through `backstitch onnx run` and writes docs/NODE_TESTS.md.

    python3 onnx/tests/golden/node_tests.py [--data /usr/share/libonnx-testdata/data] [--binary target/debug/backstitch]

The cases are those of Debian's package libonnx-testdata (ONNX 1.12, Apache-2.0). Needs numpy and onnx. A case passes
when every output of every data set has the shape and, within rtol 1e-3 and atol 1e-5, the values of the expected one:
the tolerances of ONNX's own backend test.
"""

import argparse
import collections
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[3]
GROUPS = ["node", "pytorch-converted", "pytorch-operator", "simple"]


def tensor(path):
    proto = onnx.TensorProto()
    try:
        proto.ParseFromString(path.read_bytes())
        return numpy_helper.to_array(proto)
    except Exception:
        return None


def run(binary, model_path, data, scratch):
    """None where the case passes, else why it does not."""
    model = onnx.load(model_path)
    initializers = {i.name for i in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in initializers]
    kinds = {v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]}
    if onnx.TensorProto.BFLOAT16 in kinds:
        return "bfloat16 in or out, which .npy cannot carry"
    inputs = [tensor(data / f"input_{i}.pb") for i in range(len(names))]
    wanted = [tensor(data / f"output_{i}.pb") for i in range(len(model.graph.output))]
    if any(t is None or t.dtype == object for t in inputs + wanted):
        return "not a dense numeric tensor (sequence, optional, string or sparse)"
    command = [binary, "onnx", "run", str(model_path), "--out", str(scratch)]
    for index, (name, value) in enumerate(zip(names, inputs)):
        file = scratch / f"in-{index}.npy"
        np.save(file, value)
        command += ["--input", f"{name}={file}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if result.returncode != 0:
        return result.stderr.strip().splitlines()[-1] if result.stderr.strip() else "no message"
    for output, expected in zip(model.graph.output, wanted):
        found = np.load(scratch / f"{output.name.replace('/', '_')}.npy")
        if found.shape != expected.shape:
            return f"WRONG shape {found.shape}, expected {expected.shape}"
        if not np.allclose(found.astype(np.float64), expected.astype(np.float64), rtol=1e-3, atol=1e-5, equal_nan=True):
            return "WRONG values"
    return None


def cause(message):
    """Messages of one kind under one heading: names, numbers and quotes do not count."""
    operator = re.search(r"no operator (\w+)", message)
    if operator:
        return f"no operator {operator[1]}"
    for pattern, heading in [
        (r"domain", "operators of another domain, such as training"),
        (r"opset|operator set", "operator set older than 7"),
        (r"bfloat16 in or out", message),
        (r"not a dense", "sequences, optionals, strings, sparse tensors"),
        (r"WRONG", message),
    ]:
        if re.search(pattern, message):
            return heading
    return re.sub(r"`[^`]*`|\d+", "…", message.split(": ", 1)[-1])[:110]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="/usr/share/libonnx-testdata/data", type=Path)
    parser.add_argument("--binary", default=str(ROOT / "target/debug/backstitch"))
    options = parser.parse_args()
    failures, passed, total = collections.defaultdict(list), collections.Counter(), collections.Counter()
    for group in GROUPS:
        for folder in sorted((options.data / group).iterdir()):
            total[group] += 1
            reason = None
            for data in sorted(folder.glob("test_data_set_*")):
                with tempfile.TemporaryDirectory() as scratch:
                    try:
                        reason = reason or run(options.binary, folder / "model.onnx", data, Path(scratch))
                    except Exception as error:
                        reason = f"the runner: {type(error).__name__} {error}"
            if reason is None:
                passed[group] += 1
            else:
                failures[cause(reason)].append(f"{folder.name}")
    lines = ["# ONNX's own test cases", "", "Written by `onnx/tests/golden/node_tests.py`.", "", "| group | passed | of |", "| --- | --- | --- |"]
    lines += [f"| {g} | {passed[g]} | {total[g]} |" for g in GROUPS]
    lines += [f"| all | {sum(passed.values())} | {sum(total.values())} |", "", "## What does not pass, by cause", "", "| cause | cases | which |", "| --- | --- | --- |"]
    for reason, names in sorted(failures.items(), key=lambda item: (-len(item[1]), item[0])):
        shown = ", ".join(n.removeprefix("test_") for n in names[:6]) + (" …" if len(names) > 6 else "")
        lines.append(f"| {reason.replace('|', '/')} | {len(names)} | {shown} |")
    (ROOT / "docs/NODE_TESTS.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines[4:11]))


if __name__ == "__main__":
    main()
