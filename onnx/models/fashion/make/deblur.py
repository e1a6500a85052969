"""The blur patch: sharpens pictures that are out of focus, trained through the frozen primary on the first 50,000 images."""

import math
import time

import torch
import torch.nn.functional as F
from torch import nn

from dataset import blurred

SEED = 8
EPOCHS = 3
BATCH = 128
LEARNING_RATE = 4e-3
LARGEST_SIGMA = 2.2
CLEAN_SHARE = 0.25
CHANNELS = 12
PIXEL_WEIGHT = 4.0


class Deblur(nn.Module):
    """y = clip(x + correction(x), 0, 1), all in 0..1. Two kernels of five see what a wide blur has spread."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, CHANNELS, 5, padding=2)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.conv3 = nn.Conv2d(CHANNELS, 1, 5, padding=2)
        nn.init.zeros_(self.conv3.weight)
        nn.init.zeros_(self.conv3.bias)

    def forward(self, x):
        return (x + self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))).clamp(0.0, 1.0)


def train(data, primary, epochs=EPOCHS, log=print):
    """Returns the weights. Loss: what the primary says about the sharpened image, and the distance to the sharp one."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = data.train
    net = Deblur()
    optimiser = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    steps_per_epoch = len(images) // BATCH
    total, step = epochs * steps_per_epoch, 0
    for epoch in range(epochs):
        order, started, loss_sum = torch.randperm(len(images), generator=generator), time.time(), 0.0
        for i in range(steps_per_epoch):
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / total))
            take = order[i * BATCH : (i + 1) * BATCH]
            sigma = 0.4 + (LARGEST_SIGMA - 0.4) * torch.rand(BATCH, generator=generator)
            sigma[torch.rand(BATCH, generator=generator) < CLEAN_SHARE] = 0.0
            restored = net(blurred(images[take], sigma))
            loss = F.cross_entropy(primary(restored), labels[take]) + PIXEL_WEIGHT * F.mse_loss(restored, images[take])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss_sum, step = loss_sum + loss.item(), step + 1
        log(f"deblur epoch {epoch + 1}/{epochs}: loss {loss_sum / steps_per_epoch:.4f}, {time.time() - started:.0f} s")
    return {name: value.detach() for name, value in net.state_dict().items()}
