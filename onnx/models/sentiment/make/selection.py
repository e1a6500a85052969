"""Which domain a text is of, from the client's text features: one linear gain per patch, the highest is chosen."""

import numpy as np

# What the right patch brings on the tuning sentences, and how much of it a wrong guess keeps, set the scale of gains: an even
# guess among the four is worth GAIN, every unit of log odds STEP more.
GAIN, STEP = 0.02, 0.01


def fit(x, domain, weight, count=4, decay=1e-3, steps=400):
    """Multinomial logistic regression by Newton-free gradient descent on standardised features; raw weights and intercepts."""
    shift, scale = x.mean(0), x.std(0) + 1e-9
    z = np.hstack([(x - shift) / scale, np.ones((len(x), 1))])
    target = np.eye(count)[domain]
    share = weight / weight.sum()
    w, velocity = np.zeros((z.shape[1], count)), np.zeros((z.shape[1], count))
    for _ in range(steps):
        logits = z @ w
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        velocity = 0.9 * velocity - (z.T @ ((p - target) * share[:, None]) + decay * w)
        w += 1.0 * velocity
    raw = w[:-1] / scale[:, None]
    return raw, w[-1] - (shift / scale) @ w[:-1]


def gains(x, raw, intercepts):
    """The gain of each patch for each text, as the manifests say it."""
    return GAIN + STEP * (x @ raw + intercepts)
