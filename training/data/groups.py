"""Leak-free groups: what must not be torn apart between training and test, and the split that keeps it together."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
_ARTICLES = re.compile(r"^(?:a|an|the|some)\s+")
_NOT_A_WORD = re.compile(r"[^\w\s]|_")


def normalise_caption(text: str) -> str:
    """The key by which captions are equal: case, leading article, punctuation and surplus space removed.

    Captions made of punctuation alone keep it, so that "?" and "!" do not become the same empty key.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().strip()
    words = " ".join(_NOT_A_WORD.sub(" ", folded.replace("'", "").replace("\u2019", "")).split())
    return _ARTICLES.sub("", words) or folded


def connected(keys_of: Mapping[str, Iterable[Hashable]]) -> dict[str, str]:
    """Groups of ids that share a key, directly or through others (union-find).

    ``keys_of`` maps each id to its keys. Returns id -> group. A group is named after the smallest id in it, not after a
    running number: when an item is skipped, the names of all other groups, and with them their splits, stay as they were.
    """
    parent = {item: item for item in keys_of}

    def root(item: str) -> str:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    first: dict[Hashable, str] = {}
    for item, keys in keys_of.items():
        for key in keys:
            one, other = root(first.setdefault(key, item)), root(item)
            parent[max(one, other)] = min(one, other)
    return {item: "g" + hashlib.sha256(root(item).encode()).hexdigest()[:10] for item in keys_of}


def assign(groups: Sequence[str], seed: int = 0, shares: Mapping[str, float] = SHARES) -> list[str]:
    """The split of each group by sha256 of "seed:group", so that it depends on nothing else: 70 % train, 10 % val, 20 % test."""
    return [_split(f"{seed}:{group}", shares) for group in groups]


def _split(key: str, shares: Mapping[str, float]) -> str:
    position = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    for name, share in shares.items():
        position -= share
        if position < 0:
            return name
    return name  # rounding of the shares' sum: the last one
