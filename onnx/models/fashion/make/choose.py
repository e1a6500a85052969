"""The probe that tells which image patches a picture wants: what each is expected to win, from the picture itself.

A patch's gain is what it wins or loses in the company of the set that is best for the picture's condition, so that gains add
up: adding whatever wins and leaving whatever loses leads to that set. A small convolutional network learns it on the pool."""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from dataset import blurred, low_contrast, noisy, tilted

# (tilt, blur, contrast, noise), in the order in which a camera does it.
CONDITIONS = {
    "clean": (0, 0, 1.0, 0),
    "noise 0.05": (0, 0, 1.0, 0.05),
    "noise 0.1": (0, 0, 1.0, 0.1),
    "noise 0.2": (0, 0, 1.0, 0.2),
    "noise 0.3": (0, 0, 1.0, 0.3),
    "noise 0.4": (0, 0, 1.0, 0.4),
    "contrast 0.7": (0, 0, 0.7, 0),
    "contrast 0.5": (0, 0, 0.5, 0),
    "contrast 0.3": (0, 0, 0.3, 0),
    "contrast 0.2": (0, 0, 0.2, 0),
    "contrast 0.3, noise 0.1": (0, 0, 0.3, 0.1),
    "contrast 0.5, noise 0.2": (0, 0, 0.5, 0.2),
    "blur 0.7": (0, 0.7, 1.0, 0),
    "blur 1": (0, 1.0, 1.0, 0),
    "blur 1.5": (0, 1.5, 1.0, 0),
    "blur 2": (0, 2.0, 1.0, 0),
    "blur 1, contrast 0.5": (0, 1.0, 0.5, 0),
    "tilt 10": (10, 0, 1.0, 0),
    "tilt -15": (-15, 0, 1.0, 0),
    "tilt 15": (15, 0, 1.0, 0),
    "tilt 25": (25, 0, 1.0, 0),
    "tilt -25": (-25, 0, 1.0, 0),
    "tilt 35": (35, 0, 1.0, 0),
    "tilt -35": (-35, 0, 1.0, 0),
}
# Measured on the test set, patch by patch.
MEASURED = ["clean", "noise 0.1", "noise 0.3", "contrast 0.5", "contrast 0.3", "contrast 0.3, noise 0.1", "blur 0.7", "blur 1", "blur 1.5", "blur 2",
            "tilt 10", "tilt 15", "tilt 25", "tilt -25", "tilt 35"]
ORDER = ("noise-reduction", "sharpening", "low-contrast", "rotation")
SETS = [tuple(p for p, on in zip(ORDER, row) if on) for row in itertools.product((False, True), repeat=len(ORDER))]
SITE, FEATURES = "image", [f"probe.{name}" for name in ORDER]
# What people read of them.
WINS = "What {} is expected to win: right answers in one."
DESCRIBED = {
    f"probe.{name}": {"label": label, "range": "-1 to 1", "about": WINS.format(what)}
    for name, label, what in zip(
        ORDER,
        ("looks noisy", "looks out of focus", "looks flat", "looks turned"),
        ("removing noise", "sharpening", "more contrast", "the model of turned pictures"),
    )
}
CHANNELS = (12, 24)
EPOCHS, BATCH, RATE, SEED = 40, 256, 6e-3, 20261127
CLEAN_WEIGHT = 6.0  # most pictures are good
MARGIN = 0.003  # accuracy that a patch must win to be worth its time


def condition(images, name, seed):
    tilt, blur, contrast, noise = CONDITIONS[name]
    if tilt:
        images = tilted(images, float(tilt))
    if blur:
        images = torch.cat([blurred(part, blur) for part in images.split(1000)])
    if contrast != 1.0:
        images = low_contrast(images, contrast)
    return noisy(images, noise, seed) if noise else images


def runner(primary, middle, sessions):
    """`run(pixels, patches) -> logits` with onnxruntime; `middle` are the primary's parts around the rotation patch."""
    to_stem, from_block2 = middle

    def run(pixels, patches):
        for name in ORDER[:3]:
            if name in patches:
                pixels = sessions[name](x=pixels)
        if "rotation" in patches:
            return from_block2(block2=sessions["rotation"](stem=to_stem(image=pixels)))
        return primary(image=pixels)

    return run


class Answers:
    """Right answers on one condition of one image set, for any set of patches, each run once."""

    def __init__(self, images, labels, run):
        self.pixels, self.labels, self.run, self.known = images.numpy(), labels.numpy(), run, {}

    def right(self, patches):
        if patches not in self.known:
            self.known[patches] = self.run(self.pixels, patches).argmax(1) == self.labels
        return self.known[patches]

    def chosen(self, wanted):
        """`wanted`: a boolean for each picture and patch."""
        out = np.zeros(len(self.labels), bool)
        for row in np.unique(wanted, axis=0):
            members = (wanted == row).all(1)
            patches = tuple(name for name, on in zip(ORDER, row) if on)
            if patches in self.known:
                out[members] = self.known[patches][members]
            else:
                out[members] = self.run(self.pixels[members], patches).argmax(1) == self.labels[members]
        return out

    def gains(self):
        """What each patch wins on the average picture of this condition, in the company of the best set."""
        best = max(SETS, key=lambda patches: (self.right(patches).mean(), -len(patches)))
        with_, without = (lambda p: tuple(n for n in ORDER if n in best or n == p)), (lambda p: tuple(n for n in best if n != p))
        return np.array([self.right(with_(p)).mean() - self.right(without(p)).mean() for p in ORDER], np.float32)


class Probe(nn.Module):
    """Two strided convolutions; means and root mean squares of their channels; one linear layer. It answers with the square
    roots of gains, signed, so that a hundredth counts beside a half."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, CHANNELS[0], 3, stride=2, padding=1)
        self.second = nn.Conv2d(CHANNELS[0], CHANNELS[1], 3, stride=2, padding=1)
        self.head = nn.Linear(2 * sum(CHANNELS), len(ORDER))

    def forward(self, image):
        a = F.relu(self.first(image))
        b = F.relu(self.second(a))
        summary = [s for x in (a, b) for s in (x.mean((2, 3)), (x * x).mean((2, 3)).sqrt())]
        return self.head(torch.cat(summary, 1))


def train(images, labels, run, seed, log):
    """The probe for these pictures under all conditions. A condition's mean gain is what each of its pictures is to tell:
    single answers are too noisy to learn from."""
    pictures, roots, weights = [], [], []
    for name in CONDITIONS:
        answers = Answers(condition(images, name, seed), labels, run)
        gains = torch.from_numpy(answers.gains())
        log(f"{name}: gains {dict(zip(ORDER, gains.numpy().round(3).tolist()))}")
        pictures.append(torch.from_numpy(answers.pixels))
        roots.append((gains.sign() * gains.abs().sqrt()).expand(len(images), -1))
        weights.append(torch.full((len(images),), CLEAN_WEIGHT if name == "clean" else 1.0))
    pictures, roots, weights = torch.cat(pictures), torch.cat(roots), torch.cat(weights)
    return descend(pictures, roots, weights / weights.mean(), log)


def descend(pictures, roots, weights, log):
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    net, rounds = Probe(), len(pictures) // BATCH
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=EPOCHS * rounds)
    for epoch in range(EPOCHS):
        order, total = torch.randperm(len(pictures), generator=generator), 0.0
        for i in range(rounds):
            take = order[i * BATCH : (i + 1) * BATCH]
            loss = (((net(pictures[take]) - roots[take]) ** 2).mean(1) * weights[take]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        if epoch % 8 == 7:
            log(f"probe epoch {epoch + 1}/{EPOCHS}: loss {total / rounds:.4f}")
    return {name: value.detach().numpy() for name, value in net.state_dict().items()}


def selector(patch):
    """Stitch it where the probe expects it to win."""
    return {"requires": [], "gain": {"intercept": -MARGIN, "weights": {f"probe.{patch}": 1.0}}}
