"""Runs the training models that the gradient tests dump in onnxruntime and compares every output.

    BACKSTITCH_GRADIENT_DUMP=/tmp/gradients cargo test -p backstitch-onnx --test main gradients
    python onnx/tests/golden/check_onnxruntime.py /tmp/gradients

Needs numpy, onnx and onnxruntime. Exits with 1 if a model is refused by
onnx.checker, does not run, or differs by more than the tolerance relative to the output's largest element.
"""

import json
import pathlib
import struct
import sys

import numpy as np
import onnx
import onnxruntime

TOLERANCE = 1e-4
TYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "I32": np.int32}


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a safetensors file: the length of a JSON header, the header, the bytes of the tensors."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def differ(path: pathlib.Path) -> float:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    stored = load(path.with_suffix(".safetensors"))
    feed = {name[3:]: value for name, value in stored.items() if name.startswith("in.")}
    worst = 0.0
    names = [output.name for output in session.get_outputs()]
    for name, theirs in zip(names, session.run(names, feed)):
        ours = stored[f"out.{name}"]
        assert ours.shape == theirs.shape, f"{name}: {ours.shape} and {theirs.shape}"
        scale = max(np.abs(theirs).max(initial=0.0), 1e-3)
        error = np.abs(ours - theirs).max(initial=0.0) / scale
        worst = max(worst, float("inf") if np.isnan(error) else float(error))
    return worst


def main(folder: str) -> int:
    failures, errors = [], {}
    for path in sorted(pathlib.Path(folder).glob("*.onnx")):
        try:
            errors[path.stem] = differ(path)
        except Exception as error:  # a report on all models is worth more than the first traceback
            failures.append(f"{path.stem}: {str(error).strip()[:300]}")
            continue
        if errors[path.stem] > TOLERANCE:
            failures.append(f"{path.stem}: relative error {errors[path.stem]:.1e}")
    worst = max(errors, key=errors.get, default=None)
    print(f"{len(errors)} models ran; largest relative error {errors.get(worst, 0):.1e} ({worst})")
    print("\n".join(failures))
    return 1 if failures or not errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
