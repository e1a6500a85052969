"""The pooled head and the domain patches, trained on the frozen encoder's outputs.

The pooled head is a logistic regression on the sentence vector. A domain patch reads the vectors of all tokens: a few learned
queries each pool them by attention, a small layer turns what they found into a correction of the two logits. All patches
start from one network that is trained on every domain, so that a small domain profits from the large ones.
"""

import copy

import numpy as np
import torch
from torch import nn

WIDTH = 384
QUERIES, SIZE = 4, 64
BATCH = 64


class Patch(nn.Module):
    """Tokens [N, L, 384] and mask [N, L] to a correction of the logits [N, 2]."""

    def __init__(self):
        super().__init__()
        self.query = nn.Linear(WIDTH, QUERIES)
        self.value = nn.Linear(WIDTH, SIZE)
        self.answer = nn.Linear(QUERIES * SIZE, 2)
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)

    def forward(self, tokens, mask):
        shares = (self.query(tokens) + (mask[:, :, None] - 1) * 1e4).softmax(1)
        found = torch.relu(self.value(tokens))
        pooled = (shares.transpose(1, 2) @ found).flatten(1)
        return self.answer(nn.functional.dropout(pooled, 0.3, self.training))


class Sentences:
    """Token vectors of many sentences, one after the other, and their labels."""

    def __init__(self, tokens, starts, embedding, labels):
        self.tokens, self.starts = tokens, starts
        self.lengths = np.diff(starts)
        self.embedding = torch.tensor(embedding)
        self.labels = torch.tensor(labels)

    def batch(self, rows):
        longest = int(self.lengths[rows].max())
        tokens, mask = np.zeros((len(rows), longest, WIDTH), np.float32), np.zeros((len(rows), longest), np.float32)
        for at, row in enumerate(rows):
            length = self.lengths[row]
            tokens[at, :length] = self.tokens[self.starts[row] : self.starts[row + 1]]
            mask[at, :length] = 1
        return torch.tensor(tokens), torch.tensor(mask)


def logistic(sentences, rows, decay=1e-4):
    """Weight [384, 2] and bias [2] of the pooled head."""
    weight, bias = torch.zeros(WIDTH, 2, requires_grad=True), torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=300)
    x, y = sentences.embedding[rows], sentences.labels[rows]

    def loss():
        optimiser.zero_grad()
        value = nn.functional.cross_entropy(x @ weight + bias, y) + decay * (weight**2).sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weight.detach(), bias.detach()


def batches(sentences, rows, draws):
    """Batches of sentences of similar length, in random order."""
    order = rows[np.lexsort((draws.random(len(rows)), sentences.lengths[rows] + draws.integers(0, 4, len(rows))))]
    starts = draws.permutation(np.arange(0, len(order), BATCH))
    return [order[start : start + BATCH] for start in starts]


def train(sentences, base, rows, epochs, rate, start=None, seed=0):
    torch.manual_seed(seed)
    draws = np.random.default_rng(seed)
    patch = copy.deepcopy(start) if start is not None else Patch()
    optimiser = torch.optim.AdamW(patch.parameters(), weight_decay=1e-2)
    steps = epochs * -(-len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    patch.train()
    for _ in range(epochs):
        for batch in batches(sentences, rows, draws):
            logits = base[batch] + patch(*sentences.batch(batch))
            optimiser.zero_grad()
            nn.functional.cross_entropy(logits, sentences.labels[batch]).backward()
            optimiser.step()
            schedule.step()
    return patch.eval()


def correct(sentences, patch, rows):
    """The correction of each row's logits."""
    out = np.zeros((len(rows), 2), np.float32)
    order = np.argsort(sentences.lengths[rows])
    with torch.no_grad():
        for at in range(0, len(rows), 128):
            some = order[at : at + 128]
            out[some] = patch(*sentences.batch(rows[some])).numpy()
    return out
