"""The text features of the client that the selectors use, as `docs/FEATURES.md` defines them."""

import re
from pathlib import Path

import numpy as np

LEXICON = Path(__file__).resolve().parents[4] / "client-wasm/client/lexicon"
NAMES = [
    "text.words",
    "text.word_length",
    "text.rare_share",
    "text.punctuation_share",
    "text.uppercase_share",
    "text.digit_share",
    "text.exclamations",
    "text.mentions",
    "text.domain_film",
    "text.domain_news",
    "text.domain_product",
    "text.domain_social",
]

FREQUENT = set((LEXICON / "frequent.txt").read_text().split("\n"))
DOMAIN = dict(line.split("\t") for line in (LEXICON / "domains.txt").read_text().splitlines())


def features(text):
    """Values in the order of NAMES."""
    visible = [c for c in text if not c.isspace()]
    letters = [c for c in text if c.isalpha()]
    parts = re.split(r"[^\w']|_", text.lower().replace("\u2019", "'"))
    words = [word for word in (part.strip("'") for part in parts) if word]
    share = lambda part, whole: part / whole if whole else 0.0
    marked = [DOMAIN.get(word) for word in words]
    return [
        len(words),
        share(sum(map(len, words)), len(words)),
        share(sum(word not in FREQUENT for word in words), len(words)),
        share(len(re.findall(r"[!-/:-@\[-`{-~]", text)), len(visible)),
        share(sum(c.isupper() for c in letters), len(letters)),
        share(sum(c.isnumeric() for c in visible), len(visible)),
        text.count("!"),
        len(re.findall(r"(?<!\S)(?:@|#|http)", text)),
        *(share(marked.count(name), len(words)) for name in ("film", "news", "product", "social")),
    ]


def table(texts):
    return np.array([features(text) for text in texts])
