"""How a client reads a selector: `requires` and a linear expected `gain`."""

import numpy as np


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
