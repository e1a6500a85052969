"""The compact primary: under a third of the complete model's work, taught by the complete model's answers (Hinton et al. 2015)."""

import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from primary import Normalised, shifted

SEED = 20261125
EPOCHS = 14
BATCH = 128
PEAK_LEARNING_RATE = 0.12
WEIGHT_DECAY = 3e-4
TEMPERATURE = 3.0
MEAN_COST = 0.55  # of the complete model's multiply-accumulates, over the pool; the compact model always runs
SITE, FEATURES = "logits", ["probe.confidence", "probe.entropy"]
# What people read of them.
DESCRIBED = {
    "probe.confidence": {"label": "is sure of its answer", "range": "0 to 1", "about": "The share of the likeliest class in the small model's answer."},
    "probe.entropy": {"label": "wavers between answers", "range": "≥ 0", "about": "The entropy of the small model's answer."},
}
CHANNELS = {"stem": (1, 16), "middle": (16, 28), "last": (28, 56)}


class CompactNet(nn.Module):
    """As it is trained. The stem is one 3x3 convolution; each of the three stages halves the picture. A stem that is given
    stays as it is."""

    def __init__(self, stem=None):
        super().__init__()
        self.given = {"stem": stem} if stem else {}
        for name, (inputs, outputs) in CHANNELS.items():
            if name not in self.given:
                setattr(self, name, Normalised(inputs, outputs))
        self.head = nn.Linear(CHANNELS["last"][1], 10)

    def forward(self, image):
        return run(image, {name: self.given.get(name) or getattr(self, name) for name in CHANNELS}, self.head)


def run(image, conv, head):
    x = F.max_pool2d(F.relu(conv["stem"](image)), 2)
    x = F.max_pool2d(F.relu(conv["middle"](x)), 2)
    x = F.relu(conv["last"](x))
    return head(x.mean((2, 3)))


def fold(net):
    weights = {}
    for name in CHANNELS.keys() - net.given.keys():
        weights[name + ".weight"], weights[name + ".bias"] = getattr(net, name).folded()
    weights["head.weight"], weights["head.bias"] = net.head.weight.detach(), net.head.bias.detach()
    return weights


def train(data, teacher, stem=None, epochs=EPOCHS, log=print):
    """Returns the folded weights, without those of a stem that is given."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = data.train
    # The teacher answers once for each picture and its mirror image; a shift of two pixels changes its mind little.
    wanted = torch.stack([F.softmax(teacher.batched(x) / TEMPERATURE, 1) for x in (images, images.flip(3))])
    net = CompactNet(stem).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY)
    steps_per_epoch = len(images) // BATCH
    total, warm, step = epochs * steps_per_epoch, steps_per_epoch, 0
    for epoch in range(epochs):
        net.train()
        order, started, loss_sum = torch.randperm(len(images), generator=generator), time.time(), 0.0
        for i in range(steps_per_epoch):
            rate = step / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
            for group in optimiser.param_groups:
                group["lr"] = PEAK_LEARNING_RATE * rate
            take = order[i * BATCH : (i + 1) * BATCH]
            mirrored = (torch.rand(BATCH, generator=generator) < 0.5).long()
            batch = torch.where(mirrored.view(-1, 1, 1, 1) == 1, images[take].flip(3), images[take])
            logits = net(shifted(batch, generator).contiguous(memory_format=torch.channels_last))
            answers = F.log_softmax(logits / TEMPERATURE, 1)
            distance = F.kl_div(answers, wanted[mirrored, take], reduction="batchmean") * TEMPERATURE**2
            loss = 0.3 * F.cross_entropy(logits, labels[take]) + 0.7 * distance
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss_sum, step = loss_sum + loss.item(), step + 1
        net.eval()
        with torch.no_grad():
            held_out = (torch.cat([net(p) for p in data.pool[0].split(500)]).argmax(1) == data.pool[1]).float().mean().item()
        log(f"compact epoch {epoch + 1}/{epochs}: loss {loss_sum / steps_per_epoch:.4f}, pool {held_out:.4f}, {time.time() - started:.0f} s")
    return fold(net)


def choice(confidence, base, full, share):
    """When the complete model pays: the compact one, which always answers first, is not confident. The bound on its
    confidence keeps the mean cost at MEAN_COST of the complete model's; the gain is what the complete model is more often
    right at that confidence, a straight line fitted where the bound is kept."""
    bound = float(np.quantile(confidence, MEAN_COST - share))
    unsure = confidence <= bound
    rows = np.stack([np.ones(unsure.sum()), confidence[unsure]], 1)
    intercept, slope = np.linalg.lstsq(rows, full[unsure].astype(float) - base[unsure], rcond=None)[0]
    return {
        "requires": [{"feature": FEATURES[0], "at_most": round(bound, 4)}],
        "gain": {"intercept": round(float(intercept), 5), "weights": {FEATURES[0]: round(float(slope), 5)}},
    }
