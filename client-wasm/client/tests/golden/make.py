"""Writes the golden features: what independent, published implementations say of the same inputs.

    pip install numpy scipy ruptures vaderSentiment==3.3.2 emoji scikit-image opencv-python-headless
    python make.py vaderSentiment-3.3.2.tar.gz        # the sdist, for its rated sentences

series.json   scipy.signal (periodogram, detrend), numpy (least squares, autocorrelation), ruptures (PELT)
text.json     vaderSentiment (mood) on every 300th rated sentence, emoji (pictographs), re and str (counts)
image.json    scikit-image (blur effect, HSV), OpenCV (Laplacian, Sobel, luma), numpy
"""

import io
import json
import re
import sys
import tarfile
from pathlib import Path

import cv2
import emoji
import numpy as np
import ruptures
import scipy.signal
import skimage.color
import skimage.measure
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

HERE = Path(__file__).parent


def series_cases():
    rng = np.random.default_rng(1)
    t = lambda n, rate: np.arange(n) / rate
    yield "tone", 50.0, np.sin(2 * np.pi * 4.3 * t(256, 50))[None]
    yield "two tones and noise", 100.0, (
        np.sin(2 * np.pi * 7 * t(500, 100)) + 0.4 * np.sin(2 * np.pi * 21 * t(500, 100)) + 0.2 * rng.normal(size=500)
    )[None]
    yield "white noise", 1.0, rng.normal(2, 3, size=333)[None]
    yield "line", 10.0, (np.linspace(-2, 5, 120) + 0.05 * rng.normal(size=120))[None]
    yield "steps", 1.0, np.repeat([0.0, 4.0, 1.0, 6.0], [40, 55, 70, 35])[None] + 0.5 * rng.normal(size=(1, 200))
    yield "three axes", 50.0, np.stack(
        [np.sin(2 * np.pi * 2 * t(128, 50)), 30 * np.cos(2 * np.pi * 2 * t(128, 50)), rng.normal(size=128)]
    )
    yield "random walk", 1.0, np.cumsum(rng.normal(size=300))[None]
    yield "flat", 1.0, np.full((1, 64), 3.25)
    yield "short", 1.0, np.array([[1.0, 2.0, 4.0]])
    yield "one", 1.0, np.array([[5.0]])
    gaps = np.sin(2 * np.pi * 3 * t(200, 50)) + 0.1 * rng.normal(size=200)
    gaps[[0, 1, 50, 51, 52, 120, 199]] = np.nan
    gaps[80] = np.inf
    yield "gaps", 50.0, gaps[None]
    yield "nothing", 1.0, np.full((2, 10), np.nan)


def series_features(rate, rows):
    rows = np.asarray(rows, np.float32).astype(np.float64)
    n = rows.shape[1]
    bad = ~np.isfinite(rows)
    filled = rows.copy()
    for row, hole in zip(filled, bad):
        row[hole] = np.interp(np.flatnonzero(hole), np.flatnonzero(~hole), row[~hole]) if not hole.all() else 0
    mean, std = filled.mean(1), filled.std(1)
    residuals = [np.convolve(r, [0.5, -1, 0.5], "valid") if n > 2 else r[:0] for r in np.where(bad, np.nan, rows)]
    residuals = [np.abs(r[np.isfinite(r)]) * np.sqrt(2 / 3) for r in residuals]
    noise = np.array([np.median(r) / 0.6744897501960817 if len(r) else 0 for r in residuals])
    x = np.arange(n)
    fits = [np.polyfit(x, r, 1) if n > 1 else (0.0, r[0]) for r in filled]
    line = np.array([np.polyval(f, x) for f in fits])
    flat = filled - line
    residual, total = (flat**2).sum(1), ((filled - mean[:, None]) ** 2).sum(1)
    # A channel that is flat but for rounding has neither spectrum nor trend.
    live = total > 1e-20
    strength = np.where(live, 1 - residual / np.where(live, total, 1), 0)
    entropy = dominant = seasonality = period = 0.0
    if live.any() and n > 2:
        power = np.zeros(n // 2 + 1)
        correlation = np.zeros(n)
        for row in filled[live]:
            energy = (scipy.signal.detrend(row) ** 2).sum()
            f, p = scipy.signal.periodogram(row, rate, "hann", detrend="linear", scaling="spectrum")
            power += p / energy
            d = scipy.signal.detrend(row)
            correlation += np.correlate(d, d, "full")[n - 1 :] / energy * n / (n - np.arange(n))
        k = 1 + np.argmax(power[1:])
        left, top, right = power[k - 1], power[k], power[k + 1] if k + 1 < len(power) else 0
        shift = np.clip(0.5 * (left - right) / (left - 2 * top + right), -0.5, 0.5)
        dominant = min(k + shift, len(power) - 1) * rate / n
        share = power[1:] / power[1:].sum()
        share = share[share > 0]
        entropy = -(share * np.log(share)).sum() / np.log(n // 2) if n // 2 > 1 else 0
        negative = np.flatnonzero(correlation[: n // 2 + 1] < 0)
        if len(negative):
            after = range(negative[0] + 1, n // 2 + 1)
            peaks = [
                i for i in after
                if correlation[i] >= correlation[i - 1] and (i + 1 >= n or correlation[i] >= correlation[i + 1])
            ]
            high = max((correlation[i] for i in peaks), default=0)
            if high > 0:
                i = next(i for i in peaks if correlation[i] >= 0.9 * high)
                seasonality, period = min(correlation[i] / len(rows), 1), i / rate
    changes = 0
    if live.any() and n >= 4:
        z = np.where(live[:, None], (filled - mean[:, None]) / np.where(live, std, 1)[:, None], 0).T
        algorithm = ruptures.Pelt(model="l2", min_size=2, jump=1).fit(z)
        changes = len(algorithm.predict(pen=3 * len(rows) * np.log(n))) - 1
    return {
        "series.length": n, "series.missing_share": bad.mean(), "series.level": mean.mean(),
        "series.spread": std.mean(), "series.noise": noise.mean(),
        "series.noise_share": np.minimum(np.where(live, noise / np.where(live, std, 1), 0), 1).mean(),
        "series.trend": np.mean([f[0] * (n - 1) for f in fits]), "series.trend_strength": strength.mean(),
        "series.dominant_frequency": dominant, "series.spectral_entropy": entropy,
        "series.seasonality": seasonality, "series.period": period, "series.change_points": changes,
    }


HAND = [
    "", "   ", "The film was great!", "It wasn't that great, but the battery is AWESOME!!!",
    "Der Hund ist nicht im Haus, und die Katze auch nicht.", "Le chat est dans la maison et le chien ne dort pas.",
    "El perro no está en la casa, pero los gatos sí.", "lol @bob check http://x.yz #fun 😂😂 👍🏽 ❤ 👩‍👩‍👧",
    "Call 555-1234 at 12:30?", "don’t", "'quoted' words'n'all", "ÜBER STRAẞE naïve",
]


def text_cases(archive):
    outer = tarfile.open(archive)
    name = next(m for m in outer.getnames() if m.endswith("hutto_ICWSM_2014.tar.gz"))
    inner = tarfile.open(fileobj=io.BytesIO(outer.extractfile(name).read()))
    yield from HAND
    for part in ["movieReviewSnippets", "nytEditorialSnippets", "amazonReviewSnippets", "tweets"]:
        raw = inner.extractfile(f"hutto_ICWSM_2014/{part}_GroundTruth.txt").read().decode("utf-8", "replace")
        for line in raw.splitlines()[::300]:
            yield line.split("\t", 2)[2]


def text_features(text, analyser):
    visible = [c for c in text if not c.isspace()]
    letters = [c for c in text if c.isalpha()]
    words = [w.strip("'") for w in re.findall(r"[^\W_']+(?:[^\W_]|')*|'+[^\W_]+(?:[^\W_]|')*", text.lower().replace("’", "'"))]
    words = [w for w in words if w]
    share = lambda part, whole: part / whole if whole else 0
    return {
        "text.length": len(text), "text.words": len(words),
        "text.word_length": share(sum(map(len, words)), len(words)),
        "text.punctuation_share": share(len(re.findall(r"[!-/:-@\[-`{-~]", text)), len(visible)),
        "text.exclamations": text.count("!"), "text.questions": text.count("?"),
        "text.uppercase_share": share(sum(c.isupper() for c in letters), len(letters)),
        "text.digit_share": share(sum(c.isnumeric() for c in visible), len(visible)),
        "text.emoji": emoji.emoji_count(text),
        "text.mentions": len(re.findall(r"(?<!\S)(?:@|#|http)", text)),
        "text.sentiment": analyser.polarity_scores(text)["compound"],
    }


def image_cases():
    rng = np.random.default_rng(2)
    y, x = np.mgrid[0:40, 0:56] / 40
    smooth = np.stack([0.5 + 0.4 * np.sin(5 * x), 0.4 + 0.3 * np.cos(4 * y), 0.2 + 0.5 * x / x.max()], -1)
    yield "smooth", smooth
    yield "noisy", smooth + 0.08 * rng.normal(size=smooth.shape)
    yield "blurred", cv2.GaussianBlur(rng.random((40, 56, 3)), (0, 0), 2)
    yield "red and blue", np.where((x + 0.3 * y)[..., None] < 0.9, [0.8, 0.1, 0.1], [0.1, 0.2, 0.9])
    yield "grey", np.repeat((0.6 * y + 0.3 * np.sin(3 * x) ** 2)[..., None], 3, -1)


def image_features(pixels):
    rgb = pixels.astype(np.float64) / 255
    grey = rgb @ [0.299, 0.587, 0.114]
    inner = (slice(1, -1), slice(1, -1))
    laplacian = cv2.Laplacian(grey, cv2.CV_64F, ksize=1)[inner]
    gx, gy = (cv2.Sobel(grey, cv2.CV_64F, *d, ksize=3)[inner] for d in [(1, 0), (0, 1)])
    immerkaer = cv2.filter2D(grey, cv2.CV_64F, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1.0]]))[inner]
    # The gradient as a complex number; its fourth power turns by 360 degrees where the picture turns by 90.
    gradient = (gx + 1j * gy)[np.hypot(gx, gy) > 0]
    fourfold = (gradient**4 / np.abs(gradient) ** 2).sum() / (np.abs(gradient) ** 2).sum()
    hsv = skimage.color.rgb2hsv(rgb)
    red_green, yellow_blue = rgb[..., 0] - rgb[..., 1], 0.5 * (rgb[..., 0] + rgb[..., 1]) - rgb[..., 2]
    bins = np.minimum((rgb * 4).astype(int), 3) @ [16, 4, 1]
    count = np.bincount(bins.ravel(), minlength=64)
    order = np.lexsort((np.arange(64), -count))[:2]
    out = {
        "image.noise": np.sqrt(np.pi / 2) / 6 * np.abs(immerkaer).mean(),
        "image.contrast": grey.std(), "image.brightness": grey.mean(), "image.sharpness": laplacian.var(),
        "image.blur": skimage.measure.blur_effect(grey, h_size=11),
        "image.edge_density": (np.hypot(gx, gy) / 4 > 0.1).mean(),
        "image.orientation": np.degrees(0.5 * np.arctan2(2 * (gx * gy).sum(), (gx**2 - gy**2).sum())),
        "image.alignment": fourfold.real, "image.slant": abs(fourfold.imag),
        "image.saturation": hsv[..., 1].mean(),
        "image.colourfulness": np.hypot(red_green.std(), yellow_blue.std())
        + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()),
    }
    for name, index in zip(["dominant", "second"], order):
        inside = bins == index
        mean = rgb[inside].mean(0) if inside.any() else np.zeros(3)
        out |= {f"image.{name}_{c}": v for c, v in zip(["red", "green", "blue"], mean)}
        out[f"image.{name}_share"] = inside.mean()
    return out


def write(name, cases):
    def plain(value):
        return value.item() if isinstance(value, np.generic) else value

    for case in cases:
        case["features"] = {k: round(float(plain(v)), 9) for k, v in case["features"].items()}
    (HERE / name).write_text("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n", "utf-8")
    print(f"{name}: {len(cases)} cases")


def main(archive):
    finite = lambda row: [None if not np.isfinite(v) else float(np.float32(v)) for v in row]
    write("series.json", [
        {"name": name, "rate_hz": rate, "rows": [finite(r) for r in rows], "features": series_features(rate, rows)}
        for name, rate, rows in series_cases()
    ])
    analyser = SentimentIntensityAnalyzer()
    write("text.json", [{"text": t, "features": text_features(t, analyser)} for t in text_cases(archive)])
    cases = []
    for name, picture in image_cases():
        pixels = np.clip(np.round(picture * 255), 0, 255).astype(np.uint8)
        cases.append({"name": name, "width": pixels.shape[1], "height": pixels.shape[0],
                      "rgb": pixels.tobytes().hex(), "features": image_features(pixels)})
    write("image.json", cases)


main(sys.argv[1])
