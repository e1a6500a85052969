"""What other implementations must reproduce: token ids by the package's own tokenizer, answers by onnxruntime."""

import numpy as np
import onnx
import onnxruntime

import dataset
import vectors

DRAWS = 32
TENSORS = ["logits", "block6", "mask", "embedding"]

# Accents, capitals, other scripts, emoji, control characters, long words, punctuation of many kinds, very long texts.
HARD = [
    "Caf\u00e9 na\u00efve \u00c5ngstr\u00f6m \u1e9b\u0323 fa\u00e7ade",
    "STRASSE stra\u00dfe \u0130stanbul \u01c5",
    "\u4eca\u65e5\u306f\u826f\u3044\u5929\u6c17\u3067\u3059\u306d and \u4f60\u597d",
    "\ud55c\uad6d\uc5b4 \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea \u0939\u093f\u0928\u094d\u0926\u0940",
    "love it \U0001f60d\U0001f44d\U0001f3fd \u2764\ufe0f :-) ;) <3",
    "tab\there\nnew\r\nline \u00a0 nbsp\u2003em",
    "zero\u200bwidth soft\u00adhyphen bell\u0007 null\u0000 \ufffd end",
    "\u201cquotes\u201d \u2018single\u2019 \u2014 dash\u2026 \u00bfque? \u00a1hola! \u3001\u3002",
    "don't can't it's we're o'clock rock'n'roll",
    "a" * 100 + " " + "b" * 101,
    "antidisestablishmentarianism floccinaucinihilipilification xqzzyk",
    "$5.00 50% #hash @name http://x.y/z?a=b&c=d e-mail@host.com",
    "^`|~<>=+ \u20ac\u00a3\u00a5 \u00a9\u00ae\u2122 \u00b1\u00d7\u00f7 \u2190\u2192",
    "1/2 \u00bd 3\u00b2 \u2167 \uff21\uff22\uff23 \uff11\uff12 \ufb01ne",
    "e\u0301 o\u0308 \u1112\u1161\u11ab",
    "word " * 100,
]


def tokens(tokenizer, found):
    texts = HARD + [s.text for s in found[:: len(found) // 80]]
    return {"format": 1, "limit": vectors.LENGTH, "cases": [{"text": t, "ids": tokenizer.encode(t).ids} for t in texts]}


def forward(folder, tokenizer, found):
    """Logits of the primary and with each patch, for 12 test sentences and one that is cut.

    Where two implementations differ in the last digit of a number, it may fall to another of the 256 levels, and on the way
    through six blocks such a step grows. How far that goes is measured on onnxruntime itself, with the last digits of the
    norms' weights moved: `apart`, the most that an answer then moves, relative to 1 + |logit|.
    """
    model = onnx.load(folder / "primary.onnx")
    for name in ("block6", "mask", "embedding"):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    patches = {name: vectors.session(onnx.load(folder / f"patches/{name}/patch.onnx")) for name in dataset.DOMAINS}
    test = [s for s in found if s.part == "test"]
    texts = [s.text for s in test[:: len(test) // 12]] + ["good and bad " * 60]
    ids = [tokenizer.encode(text).ids for text in texts]
    asked = lambda session: [answers(*all, patches) for all in vectors.one_by_one(session, TENSORS, ids)]
    written = asked(as_written(model))
    moved = max(apart(written, asked(as_written(last_digits_moved(model, seed)))) for seed in range(DRAWS))
    cases = [{"text": text, "logits": logits} for text, logits in zip(texts, written)]
    return {"format": 1, "apart": round(moved, 3), "cases": cases}


def as_written(model):
    """Without the optimiser, and on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def last_digits_moved(model, seed):
    """Every weight of a norm one step up or down in float32."""
    moved, draws = onnx.ModelProto(), np.random.default_rng(seed)
    moved.CopyFrom(model)
    norms = {node.input[1] for node in moved.graph.node if node.op_type == "LayerNormalization"}
    for known in moved.graph.initializer:
        if known.name in norms:
            weight = onnx.numpy_helper.to_array(known)
            towards = draws.choice(np.array([-np.inf, np.inf], np.float32), weight.shape)
            known.CopyFrom(onnx.numpy_helper.from_array(np.nextafter(weight, towards), known.name))
    return moved


def apart(written, moved):
    return max(abs(a - b) / (1 + abs(a)) for a, b in zip(numbers(written), numbers(moved)))


def answers(logits, h, m, e, patches):
    fed = {"h": h, "m": m, "e": e}
    return {"": plain(logits)} | {name: plain(patch.run(None, fed)[0]) for name, patch in patches.items()}


def numbers(cases):
    return [number for case in cases for logits in case.values() for number in logits]


def plain(logits):
    return [round(float(v), 6) for v in logits[0]]
