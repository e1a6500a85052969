"""The rotation patch: the same layers from `stem.pooled` to `block2`, trained again on turned pictures.

It replaces what the primary makes between the two sites, so that a turned picture costs what a straight one does; what
follows (the mean, the head, a personal style) is the primary's own."""

import math
import time

import torch
import torch.nn.functional as F
from torch import nn

from dataset import tilted
from primary import CONVOLUTIONS, LABEL_SMOOTHING, augment

SEED = 9
EPOCHS = 3
BATCH = 128
LEARNING_RATE = 2e-3
LARGEST_TILT = 45.0
STRAIGHT_SHARE = 0.2
NAMES = [name for name in CONVOLUTIONS if name != "stem"]


class Turned(nn.Module):
    """`stem.pooled` [N,16,14,14] to `block2` [N,64,7,7], starting from the primary's own weights."""

    def __init__(self, weights):
        super().__init__()
        for name in NAMES:
            conv = nn.Conv2d(*CONVOLUTIONS[name], 3, padding=1)
            conv.load_state_dict({"weight": weights[name + ".weight"].clone(), "bias": weights[name + ".bias"].clone()})
            setattr(self, name, conv)

    def forward(self, x):
        x = F.relu(self.widen1(x))
        x = F.relu(x + self.residual1(x))
        x = F.relu(self.widen2(F.max_pool2d(x, 2)))
        return F.relu(x + self.residual2(x))


def train(data, primary, epochs=EPOCHS, log=print):
    """Returns the weights."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = data.train
    net = Turned(primary.weights)
    optimiser = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    steps_per_epoch = len(images) // BATCH
    total, step = epochs * steps_per_epoch, 0
    for epoch in range(epochs):
        order, started, loss_sum = torch.randperm(len(images), generator=generator), time.time(), 0.0
        for i in range(steps_per_epoch):
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / total))
            take = order[i * BATCH : (i + 1) * BATCH]
            straight = augment(images[take], generator)
            angles = (2 * torch.rand(BATCH, generator=generator) - 1) * LARGEST_TILT
            angles[torch.rand(BATCH, generator=generator) < STRAIGHT_SHARE] = 0.0
            with torch.no_grad():
                stem = F.max_pool2d(F.relu(primary.conv["stem"](tilted(straight, angles))), 2)
            logits = primary.head(net(stem).mean((2, 3)))
            loss = F.cross_entropy(logits, labels[take], label_smoothing=LABEL_SMOOTHING)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss_sum, step = loss_sum + loss.item(), step + 1
        log(f"rotation epoch {epoch + 1}/{epochs}: loss {loss_sum / steps_per_epoch:.4f}, {time.time() - started:.0f} s")
    return {name: value.detach() for name, value in net.state_dict().items()}
