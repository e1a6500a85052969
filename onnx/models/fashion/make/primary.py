"""The primary model: a small residual CNN, trained on the first 50,000 images."""

import math
import time

import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn

SEED = 20261124
EPOCHS = 20
BATCH = 128
PEAK_LEARNING_RATE = 0.15
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.05


class Normalised(nn.Module):
    """A 3x3 convolution and its batch norm; `folded` gives the one convolution they are at inference."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.norm(self.conv(x))

    def folded(self):
        scale = self.norm.weight.double() / torch.sqrt(self.norm.running_var.double() + self.norm.eps)
        weight = self.conv.weight.double() * scale.view(-1, 1, 1, 1)
        bias = self.norm.bias.double() - self.norm.running_mean.double() * scale
        return weight.float().detach(), bias.float().detach()


class TrainedNet(nn.Module):
    """The network as it is trained. Convolutions in the order of `CONVOLUTIONS`."""

    def __init__(self):
        super().__init__()
        for name, (inputs, outputs) in CONVOLUTIONS.items():
            setattr(self, name, Normalised(inputs, outputs))
        self.head = nn.Linear(64, 10)

    def forward(self, image):
        return run(image, {name: getattr(self, name) for name in CONVOLUTIONS}, self.head)["logits"]


CONVOLUTIONS = {"stem": (1, 16), "widen1": (16, 32), "residual1": (32, 32), "widen2": (32, 64), "residual2": (64, 64)}


def run(image, conv, head, block1=None):
    """Every named site of the primary; `block1` given: only what follows it."""
    if block1 is None:
        x = F.max_pool2d(F.relu(conv["stem"](image)), 2)
        x = F.relu(conv["widen1"](x))
        block1 = F.relu(x + conv["residual1"](x))
    x = F.relu(conv["widen2"](F.max_pool2d(block1, 2)))
    block2 = F.relu(x + conv["residual2"](x))
    features = block2.mean((2, 3))
    return {"block1": block1, "block2": block2, "features": features, "logits": head(features)}


class FrozenNet:
    """The network as it is shipped: batch norm folded, no gradient to its weights (but through them to the image)."""

    def __init__(self, weights):
        self.weights = {name: value.clone().requires_grad_(False) for name, value in weights.items()}
        self.conv = {
            name: (lambda x, n=name: F.conv2d(x, self.weights[n + ".weight"], self.weights[n + ".bias"], padding=1))
            for name in CONVOLUTIONS
        }

    def head(self, features):
        return F.linear(features, self.weights["head.weight"], self.weights["head.bias"])

    def sites(self, images):
        return run(images, self.conv, self.head)

    def __call__(self, images):
        return self.sites(images)["logits"]

    @torch.no_grad()
    def batched(self, images, site="logits"):
        return torch.cat([self.sites(images[i : i + 500])[site] for i in range(0, len(images), 500)])

    def accuracy(self, images, labels):
        return (self.batched(images).argmax(1) == labels).float().mean().item()


def weights_of(model):
    """The weights of a committed primary.onnx, by the names that `fold` gives them."""
    initializers = onnx.load_from_string(model).graph.initializer
    return {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in initializers}


def fold(net):
    weights = {}
    for name in CONVOLUTIONS:
        weights[name + ".weight"], weights[name + ".bias"] = getattr(net, name).folded()
    weights["head.weight"], weights["head.bias"] = net.head.weight.detach(), net.head.bias.detach()
    return weights


def augment(images, generator):
    """A mirror image half of the time, and a shift."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    return shifted(torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images), generator)


def shifted(images, generator):
    """A random shift of up to two pixels, the same for sixteen pictures."""
    padded = F.pad(images, (2, 2, 2, 2))
    parts = []
    for part in padded.split(16):
        dy, dx = torch.randint(0, 5, (2,), generator=generator).tolist()
        parts.append(part[:, :, dy : dy + 28, dx : dx + 28])
    return torch.cat(parts)


def train(data, epochs=EPOCHS, log=print):
    """Returns the folded weights."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = data.train
    net = TrainedNet().to(memory_format=torch.channels_last)
    decayed = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() <= 1]
    optimiser = torch.optim.SGD(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=0.1, momentum=0.9, nesterov=True,
    )
    steps_per_epoch = len(images) // BATCH
    total, warm, step = epochs * steps_per_epoch, 2 * steps_per_epoch, 0
    for epoch in range(epochs):
        net.train()
        order, started, loss_sum = torch.randperm(len(images), generator=generator), time.time(), 0.0
        for i in range(steps_per_epoch):
            rate = step / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
            for group in optimiser.param_groups:
                group["lr"] = PEAK_LEARNING_RATE * rate
            take = order[i * BATCH : (i + 1) * BATCH]
            batch = augment(images[take], generator).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(net(batch), labels[take], label_smoothing=LABEL_SMOOTHING)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss_sum, step = loss_sum + loss.item(), step + 1
        net.eval()
        held_out = FrozenNet(fold(net)).accuracy(*data.pool)
        log(f"primary epoch {epoch + 1}/{epochs}: loss {loss_sum / steps_per_epoch:.4f}, pool {held_out:.4f}, {time.time() - started:.0f} s")
    return fold(net)
