"""Easy data augmentation of text (Wei and Zou, EMNLP 2019): synonyms, insertions, swaps and deletions."""

from __future__ import annotations

import functools
from collections import defaultdict

import numpy as np

from ..data.packages import fetch
from ..data.pins import Package

WORDNET = Package(
    "debian",
    "wordnet-base",
    "1:3.0-37",
    "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    6467132,
    ("*/wordnet/data.*", "*/copyright"),
)


def eda(text: str, generator: np.random.Generator, share: float = 0.1) -> str:
    """One of the four changes, each as likely, to `share` of the words and at least one; a text of one word is only ever replaced."""
    words = text.split()
    if not words:
        return text
    count = max(1, int(share * len(words)))
    change = generator.integers(4) if len(words) > 1 else 0
    if change == 0:
        for at in _replaceable(words, generator)[:count]:
            words[at] = _synonym(words[at], generator)
    elif change == 1:
        for word in [words[at] for at in _replaceable(words, generator)[:count]]:
            words.insert(int(generator.integers(len(words) + 1)), _synonym(word, generator))
    elif change == 2:
        for _ in range(count):
            i, j = generator.choice(len(words), 2, replace=False)
            words[i], words[j] = words[j], words[i]
    else:
        words = [word for word in words if generator.random() >= share] or [words[int(generator.integers(len(words)))]]
    return " ".join(words)


def _replaceable(words: list[str], generator: np.random.Generator) -> list[int]:
    """The places, in a random order, of words that have synonyms."""
    return [int(at) for at in generator.permutation(len(words)) if _bare(words[at]) in synonyms()]


def _synonym(word: str, generator: np.random.Generator) -> str:
    options = synonyms()[_bare(word)]
    return options[int(generator.integers(len(options)))]


def _bare(word: str) -> str:
    return word.strip(".,!?;:\"'()").lower()


@functools.cache
def synonyms() -> dict[str, list[str]]:
    """word -> the other words of its WordNet synsets, sorted; none for stop words. Fetched at first use."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((fetch(WORDNET) / "usr" / "share" / "wordnet").glob("data.*")):
        for line in path.read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):  # the licence
                continue
            fields = line.split(" ")
            # wndb(5): offset, file, type, count of words in hexadecimal, then each word and a number; an adjective may end in (p)
            words = [word.split("(")[0].replace("_", " ").lower() for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]
            for word in words:
                found[word].update(other for other in words if other != word)
    return {word: sorted(others) for word, others in found.items() if others and word not in ENGLISH_STOP_WORDS}
