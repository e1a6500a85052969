"""Writes the word lists that text analysis uses, from vaderSentiment 3.3.2 (MIT, see NOTICE): its valence lexicon, and
its 23,702 rated sentences from four domains.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    python make.py vaderSentiment-3.3.2.tar.gz

sentiment.txt   word, tab, valence in tenths: the lexicon, without entries that no rated sentence uses
frequent.txt    the 2,000 most frequent words of the sentences, each domain weighted alike
domains.txt     per domain the 150 words that mark it most, by the log-odds ratio with an informative Dirichlet prior
                (Monroe, Colaresi, Quinn 2008, Fightin' Words, eq. 22)
"""

import io
import math
import re
import sys
import tarfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
DOMAINS = {
    "film": "movieReviewSnippets",
    "news": "nytEditorialSnippets",
    "product": "amazonReviewSnippets",
    "social": "tweets",
}
FREQUENT, MARKERS, LEAST_COUNT = 2000, 150, 8
WORD = re.compile(r"[a-z][a-z']*[a-z]|[a-z]")


def read(archive):
    outer = tarfile.open(archive)
    member = lambda end: outer.extractfile(next(m for m in outer.getnames() if m.endswith(end))).read()
    inner = tarfile.open(fileobj=io.BytesIO(member("hutto_ICWSM_2014.tar.gz")))
    sentences = {}
    for domain, name in DOMAINS.items():
        path = f"hutto_ICWSM_2014/{name}_GroundTruth.txt"
        lines = inner.extractfile(path).read().decode("utf-8", "replace").splitlines()
        sentences[domain] = [line.split("\t", 2)[2] for line in lines if line.count("\t") >= 2]
    lexicon = {}
    for line in member("vaderSentiment/vader_lexicon.txt").decode().splitlines():
        if "\t" in line:
            word, valence = line.split("\t")[:2]
            lexicon[word] = float(valence)
    return sentences, lexicon


def tokens(sentence):
    """As the reference splits: at white space, outer punctuation off where more than two characters are left."""
    for token in sentence.lower().split():
        bare = token.strip("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
        yield bare if len(bare) > 2 else token


def main(archive):
    sentences, lexicon = read(archive)
    used = {t for lines in sentences.values() for s in lines for t in tokens(s)}
    kept = sorted((w, round(10 * v)) for w, v in lexicon.items() if w in used and round(10 * v) != 0)
    write("sentiment.txt", [f"{word}\t{valence}" for word, valence in kept])

    counts = {d: Counter(w for s in lines for w in WORD.findall(s.lower())) for d, lines in sentences.items()}
    totals = {d: c.total() for d, c in counts.items()}
    share = Counter()
    for domain, count in counts.items():
        for word, n in count.items():
            share[word] += n / totals[domain]
    frequent = sorted(share, key=lambda w: (-share[w], w))[:FREQUENT]
    write("frequent.txt", sorted(frequent))

    everything = sum(counts.values(), Counter())
    grand = everything.total()

    def score(domain, word):
        prior, here, total = everything[word], counts[domain][word], totals[domain]
        odds = lambda n, of: math.log((n + prior) / (of + grand - n - prior))
        variance = 1 / (here + prior) + 1 / (2 * prior - here)
        return (odds(here, total) - odds(prior - here, grand - total)) / math.sqrt(variance)

    # A word can mark one domain only: that for which it scores highest.
    ranked = {domain: [] for domain in counts}
    for word, n in everything.items():
        domain = max(sorted(counts), key=lambda d: score(d, word))
        if counts[domain][word] >= LEAST_COUNT and len(word) > 2:
            ranked[domain].append((-score(domain, word), word))
    lines = [f"{word}\t{domain}" for domain, words in ranked.items() for _, word in sorted(words)[:MARKERS]]
    write("domains.txt", lines)


def write(name, lines):
    (HERE / name).write_text("\n".join(sorted(lines, key=lambda l: l.split("\t")[0].encode())) + "\n", "utf-8")
    print(f"{name}: {len(lines)} lines")


main(sys.argv[1])
