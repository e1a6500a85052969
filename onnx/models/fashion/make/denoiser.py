"""The noise-reduction patch: trained through the frozen primary on the first 50,000 images."""

import math
import time

import torch
import torch.nn.functional as F
from torch import nn

from dataset import low_contrast, noisy

SEED = 7
EPOCHS = 6
BATCH = 128
LEARNING_RATE = 4e-3
LARGEST_SIGMA = 0.45
CLEAN_SHARE = 0.25
CHANNELS = 10
PIXEL_WEIGHT = 4.0
# A quarter of each batch has also lost contrast and is stretched after the denoiser, as the low-contrast patch does;
# another quarter is stretched without having lost any. So the two patches can follow each other.
FLAT_SHARE, STRETCHED_SHARE = 0.25, 0.5
SMALLEST_RANGE = 0.05


IMMERKAER = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]).view(1, 1, 3, 3)


class Denoiser(nn.Module):
    """y = clip(x + strength * correction(x), 0, 1), all in 0..1.

    `strength` is one number per image, from how much fine structure it has (Immerkaer's mask) and how much contrast,
    so that a clean picture passes nearly unchanged. It starts as a plain threshold between clean and noisy pictures."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.conv3 = nn.Conv2d(CHANNELS, 1, 3, padding=1)
        nn.init.zeros_(self.conv3.weight)
        nn.init.zeros_(self.conv3.bias)
        self.strength = nn.Parameter(torch.tensor([4.0, -1.0, -0.4]))

    def forward(self, x):
        correction = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        structure = F.conv2d(x, IMMERKAER).abs().mean((2, 3), keepdim=True)
        contrast = (x - x.mean((2, 3), keepdim=True)).abs().mean((2, 3), keepdim=True)
        by_structure, by_contrast, offset = self.strength
        strength = (by_structure * structure + by_contrast * contrast + offset).clamp(0.0, 1.0)
        return (x + strength * correction).clamp(0.0, 1.0)


def stretched(x):
    """What the low-contrast patch does to flat pictures, only more strictly: it takes the range from plain 3x3 means."""
    smooth = F.avg_pool2d(x, 3, 1)
    darkest, brightest = smooth.amin((1, 2, 3), keepdim=True), smooth.amax((1, 2, 3), keepdim=True)
    return ((x - darkest) / (brightest - darkest).clamp(min=SMALLEST_RANGE)).clamp(0.0, 1.0)


def train(data, primary, epochs=EPOCHS, log=print):
    """Returns the weights. Loss: what the primary says about the denoised image, and the distance to the clean one."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = data.train
    net = Denoiser()
    optimiser = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    steps_per_epoch = len(images) // BATCH
    total, step = epochs * steps_per_epoch, 0
    for epoch in range(epochs):
        order, started, loss_sum = torch.randperm(len(images), generator=generator), time.time(), 0.0
        for i in range(steps_per_epoch):
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / total))
            take = order[i * BATCH : (i + 1) * BATCH]
            sigma = LARGEST_SIGMA * torch.rand(BATCH, generator=generator)
            sigma[torch.rand(BATCH, generator=generator) < CLEAN_SHARE] = 0.0
            flat, also = int(FLAT_SHARE * BATCH), int(STRETCHED_SHARE * BATCH)
            contrast = 0.2 + 0.6 * torch.rand(flat, 1, 1, 1, generator=generator)
            scene = torch.cat([low_contrast(images[take[:flat]], contrast), images[take[flat:]]])
            sigma[:flat] *= contrast.flatten()
            restored = net(noisy(scene, sigma, seed=SEED * 1_000_003 + step))
            restored = torch.cat([stretched(restored[:also]), restored[also:]])
            loss = F.cross_entropy(primary(restored), labels[take]) + PIXEL_WEIGHT * F.mse_loss(restored, images[take])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss_sum, step = loss_sum + loss.item(), step + 1
        log(f"denoiser epoch {epoch + 1}/{epochs}: loss {loss_sum / steps_per_epoch:.4f}, {time.time() - started:.0f} s")
    return {name: value.detach() for name, value in net.state_dict().items()}
