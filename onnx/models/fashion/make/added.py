"""The selectors of sharpening and rotation, fitted on the pool in the company of the patches that were there before.

What a patch wins is measured against the choice that is already made: noise-reduction and low-contrast as their own
selectors say. Bounds and gains are those whose choices win most on the pool, clean pictures counting most."""

import numpy as np
import torch

import analysis
import selection
from dataset import blurred, low_contrast, noisy, tilted

# name -> (tilt, blur, contrast, noise), in the order in which a camera does it.
CONDITIONS = {
    "clean": (0, 0, 1.0, 0),
    "noise 0.1": (0, 0, 1.0, 0.1),
    "noise 0.3": (0, 0, 1.0, 0.3),
    "contrast 0.5": (0, 0, 0.5, 0),
    "contrast 0.3": (0, 0, 0.3, 0),
    "contrast 0.3, noise 0.1": (0, 0, 0.3, 0.1),
    "blur 0.7": (0, 0.7, 1.0, 0),
    "blur 1": (0, 1.0, 1.0, 0),
    "blur 1.5": (0, 1.5, 1.0, 0),
    "blur 2": (0, 2.0, 1.0, 0),
    "tilt 10": (10, 0, 1.0, 0),
    "tilt 15": (15, 0, 1.0, 0),
    "tilt 25": (25, 0, 1.0, 0),
    "tilt -25": (-25, 0, 1.0, 0),
    "tilt 35": (35, 0, 1.0, 0),
}
SHORTFALL, FAIRNESS = 0.004, 20.0  # accuracy that the choice may miss in one condition, and what more costs
# Measured on the test set, patch by patch.
MEASURED = ["clean", "noise 0.3", "contrast 0.3", "blur 1", "blur 1.5", "blur 2", "tilt 15", "tilt 25", "tilt -25", "tilt 35"]
ORDER = ("noise-reduction", "sharpening", "low-contrast", "rotation")
SHARPNESS_BOUNDS = (0.02, 0.03, 0.04)
SHARPENING_FEATURES = ["image.blur", "image.sharpness", "image.contrast", "image.noise"]
ROTATION_FEATURES = ["image.alignment", "image.slant", "image.sharpness", "image.noise", "image.edge_density", "image.contrast"]


def condition(images, name, seed):
    tilt, blur, contrast, noise = CONDITIONS[name]
    if tilt:
        images = tilted(images, float(tilt))
    if blur:
        images = torch.cat([blurred(part, blur) for part in images.split(1000)])
    if contrast != 1.0:
        images = low_contrast(images, contrast)
    return noisy(images, noise, seed) if noise else images


class Measured:
    """One condition of one image set: features, and right answers of any set of patches, each run once."""

    def __init__(self, images, labels, run):
        self.pixels, self.labels, self.run = images.numpy(), labels.numpy(), run
        self.features = analysis.features(self.pixels[:, 0])
        self.known = {}

    def __len__(self):
        return len(self.labels)

    def right(self, patches):
        """Whether each image is answered rightly with these patches, in stitching order."""
        if patches not in self.known:
            self.known[patches] = self.run(self.pixels, patches).argmax(1) == self.labels
        return self.known[patches]

    def chosen(self, choices):
        """Right answers when each image has its own choice: patch -> boolean array."""
        out = np.zeros(len(self.labels), bool)
        sets = np.stack([choices[name] for name in ORDER if name in choices], 1) if choices else np.zeros((len(out), 0), bool)
        names = [name for name in ORDER if name in choices]
        for row in np.unique(sets, axis=0):
            members = (sets == row).all(1)
            patches = tuple(n for n, on in zip(names, row) if on)
            if patches in self.known:
                out[members] = self.known[patches][members]
            else:
                out[members] = self.run(self.pixels[members], patches).argmax(1) == self.labels[members]
        return out


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


def gains_of(name, measured, selectors):
    """What a patch wins for each image when it joins what is chosen already."""
    gains = {}
    for key, m in measured.items():
        chosen = {n: selection.applies(s, m.features) for n, s in selectors.items()}
        always = m.chosen(chosen | {name: np.ones(len(m), bool)})
        gains[key] = always.astype(int) - m.chosen(chosen)
    return gains


def score(selector, measured, gains):
    """What a selector's choices win on the pool, clean pictures counting most and losing next to nothing."""
    total = 0.0
    for key, m in measured.items():
        chosen = selection.applies(selector, m.features)
        won = (gains[key] * chosen).mean()
        total += (won - selection.STITCH_COST * chosen.mean()) * (selection.CLEAN_WEIGHT if key == "clean" else 1.0)
        # In each condition the choice shall be about as good as always or never.
        total -= FAIRNESS * max(0.0, max(0.0, gains[key].mean()) - won - SHORTFALL)
        if key == "clean":
            total -= 1e3 * max(0.0, -won - selection.CLEAN_LOSS / 2)
    return total


def sharpening(measured, gains):
    """A linear gain below a bound on fine structure, which a blur leaves next to nothing of."""
    best = None
    for bound in SHARPNESS_BOUNDS:
        inside = {key: gains[key] * (m.features["image.sharpness"] <= bound) for key, m in measured.items()}
        selector = {
            "requires": [{"feature": "image.sharpness", "at_most": bound}],
            "gain": selection.fit_gain(SHARPENING_FEATURES, measured, lambda k, m: inside[k]),
        }
        selector = selection.careful(selector, lambda candidate: score(candidate, measured, gains))
        found = score(selector, measured, gains)
        if best is None or found > best[0]:
            best = found, selector
    return best[1]


def rotation(measured, gains):
    """A linear gain, as much taken from it as pays, and a bound: in a picture out of focus nothing can be seen of edges."""
    selector = {"requires": [], "gain": selection.fit_gain(ROTATION_FEATURES, measured, lambda k, m: gains[k])}
    worth = lambda candidate: score(candidate, measured, gains)
    selector = selection.careful(selector, worth)
    return max((selector | {"requires": [{"feature": "image.sharpness", "at_least": round(float(b), 4)}]} for b in np.arange(0.0, 0.05, 0.0025)), key=worth)


def fit(measured, before):
    """The selectors of sharpening and rotation; `before`: patch -> selector of what is chosen already."""
    sharp = sharpening(measured, gains_of("sharpening", measured, before))
    turn = rotation(measured, gains_of("rotation", measured, before | {"sharpening": sharp}))
    return {"sharpening": sharp, "rotation": turn}
