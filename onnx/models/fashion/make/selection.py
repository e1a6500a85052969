"""When to stitch an image patch: `requires` and a linear expected `gain`, fitted on the pool, never on the test set."""

import numpy as np
import torch

import analysis
from dataset import low_contrast, noisy

# name -> (contrast, sigma): the scene loses contrast first, then the camera adds noise.
CONDITIONS = {
    "clean": (1.0, 0.0),
    "noise 0.05": (1.0, 0.05),
    "noise 0.1": (1.0, 0.1),
    "noise 0.2": (1.0, 0.2),
    "noise 0.3": (1.0, 0.3),
    "noise 0.4": (1.0, 0.4),
    "contrast 0.7": (0.7, 0.0),
    "contrast 0.5": (0.5, 0.0),
    "contrast 0.3": (0.3, 0.0),
    "contrast 0.2": (0.2, 0.0),
    "contrast 0.3, noise 0.05": (0.3, 0.05),
    "contrast 0.3, noise 0.1": (0.3, 0.1),
    "contrast 0.5, noise 0.2": (0.5, 0.2),
}
# The clean condition counts more in the fit: most pictures are good, and a patch must not spoil them.
CLEAN_WEIGHT = 40.0
NOISE_FEATURES = ["image.noise", "image.contrast", "image.edge_density", "image.sharpness"]
CONTRAST_FEATURES = ["image.contrast", "image.brightness", "image.noise"]
STITCH_COST = 0.005  # accuracy that a patch must bring to be worth its time; else a patch that changes nothing may be stitched
CLEAN_LOSS = 0.001  # the accuracy that the choice may cost on clean pool images
SHARPNESS = 5.0
FIT_STEPS = 400


def condition(images, name, seed):
    contrast, sigma = CONDITIONS[name]
    if contrast != 1.0:
        images = low_contrast(images, contrast)
    return noisy(images, sigma, seed) if sigma else images


class Measured:
    """One condition of one image set: features, and whether each choice of patches answers rightly."""

    CHOICES = ("none", "noise-reduction", "low-contrast", "both")

    def __init__(self, images, labels, primary, noise_patch, contrast_patch):
        x, labels = images.numpy(), labels.numpy()
        self.features = analysis.features(x[:, 0])
        quiet = noise_patch(x=x)
        right = lambda pixels: primary(image=pixels).argmax(1) == labels
        self.right = {
            "none": right(x),
            "noise-reduction": right(quiet),
            "low-contrast": right(contrast_patch(x=x)),
            "both": right(contrast_patch(x=quiet)),
        }

    def __len__(self):
        return len(self.right["none"])

    def chosen(self, noise, contrast):
        """Right answers when each image has its own choice (boolean arrays)."""
        r = self.right
        return np.where(noise, np.where(contrast, r["both"], r["noise-reduction"]), np.where(contrast, r["low-contrast"], r["none"]))


def applies(selector, features):
    ok = gain(selector, features) > 0
    for rule in selector["requires"]:
        value = features[rule["feature"]]
        ok &= value >= rule.get("at_least", -np.inf)
        ok &= value <= rule.get("at_most", np.inf)
    return ok


def gain(selector, features):
    total = np.full(len(next(iter(features.values()))), selector["gain"]["intercept"])
    for name, weight in selector["gain"]["weights"].items():
        total = total + weight * features[name]
    return total


def automatic(measured, noise_selector, contrast_selector):
    return measured.chosen(applies(noise_selector, measured.features), applies(contrast_selector, measured.features))


def fit_gain(names, measured, gains):
    """A linear gain. Its direction maximises the accuracy of the choice that it makes (the step made smooth, so that
    gradient ascent works); its scale and so its meaning, the expected gain, comes from least squares on the gains (-1, 0, 1)."""
    rows = np.concatenate([np.stack([m.features[n] for n in names] + [np.ones(len(m))], 1) for m in measured.values()])
    target = np.concatenate([gains(k, m) - STITCH_COST for k, m in measured.items()])
    weight = np.concatenate([np.full(len(m), CLEAN_WEIGHT if k == "clean" else 1.0) for k, m in measured.items()])
    deviation = rows.std(0) + (rows.std(0) == 0)
    x, y = torch.from_numpy(rows / deviation), torch.from_numpy(target * weight / weight.sum())
    start = np.linalg.lstsq(rows / deviation * weight[:, None] ** 0.5, target * weight**0.5, rcond=None)[0]
    theta = torch.from_numpy(start / np.linalg.norm(start) * 4.0).requires_grad_(True)
    optimiser = torch.optim.Adam([theta], lr=0.05)
    for _ in range(FIT_STEPS):
        optimiser.zero_grad()
        (-(torch.sigmoid(SHARPNESS * (x @ theta)) * y).sum()).backward()
        optimiser.step()
    direction = theta.detach().numpy() / deviation
    along = rows @ direction
    direction = direction * max((along * target).sum() / (along * along).sum(), 1e-3)
    return {"intercept": round(float(direction[-1]), 5), "weights": {n: round(float(v), 5) for n, v in zip(names, direction)}}


def best_bound(selector, feature, side, score, grid):
    """The bound of one requirement, from `grid`, with the best `score` on the pool; the first of equals."""
    candidates = [{"requires": [{"feature": feature, side: round(float(bound), 4)}], "gain": selector["gain"]} for bound in grid]
    return max(candidates, key=score)


def careful(selector, score):
    """The same selector with as much taken from the intercept as is best for `score`."""
    less = lambda by: selector | {"gain": selector["gain"] | {"intercept": round(selector["gain"]["intercept"] - by, 5)}}
    return max((less(by) for by in np.arange(0.0, 0.3, 0.005)), key=score)


def fit(measured):
    """The selectors of both patches. The gain of noise-reduction is taken in the company of low-contrast as each condition
    likes it best; the gain of low-contrast after the choice of noise-reduction."""

    def best(m, with_noise, with_contrast):
        names = {(False, False): "none", (True, False): "noise-reduction", (False, True): "low-contrast", (True, True): "both"}
        options = [m.right[names[n, c]] for n in with_noise for c in with_contrast]
        return max(options, key=np.mean).astype(int)

    any_ = (False, True)
    noise = {"gain": fit_gain(NOISE_FEATURES, measured, lambda k, m: best(m, [True], any_) - best(m, [False], any_))}
    noise["requires"] = []

    def gain_of_contrast(k, m):
        stitched = applies(noise, m.features)
        return m.chosen(stitched, True).astype(int) - m.chosen(stitched, False)

    contrast = {"gain": fit_gain(CONTRAST_FEATURES, measured, gain_of_contrast)}

    def score(noise_selector, contrast_selector):
        total = 0.0
        for key, m in measured.items():
            chosen = [applies(s, m.features) for s in (noise_selector, contrast_selector)]
            accuracy = m.chosen(*chosen).mean()
            total += (accuracy - STITCH_COST * sum(c.mean() for c in chosen)) * (CLEAN_WEIGHT if key == "clean" else 1.0)
            if key == "clean":
                total -= 1e3 * max(0.0, m.right["none"].mean() - accuracy - CLEAN_LOSS)
        return total

    contrast["requires"] = []
    noise = careful(noise, lambda s: score(s, contrast))
    noise = best_bound(noise, "image.noise", "at_least", lambda s: score(s, contrast), np.arange(0.0, 0.12, 0.0025))
    contrast = best_bound(contrast, "image.contrast", "at_most", lambda s: score(noise, s), np.arange(0.4, 0.1, -0.01))
    return noise, contrast
