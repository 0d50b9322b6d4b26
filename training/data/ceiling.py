"""The R@1 that no system can exceed, because items have contents in common."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from math import fsum
from typing import Any

from .groups import SHARES
from .manifest import Item


def ceiling(queries: Sequence[tuple[Hashable, int]], gallery: Sequence[tuple[Hashable, int]]) -> float:
    """The best R@1 of any system that sees contents alone.

    ``queries`` and ``gallery`` are (content, item): one text, file or vector each; an item may have several, and any of its own in the
    gallery is right for it. To equal queries a system gives one answer, and equal answers are tied, of which any is equally likely to
    come first (`metrics`, expected ties). With m_ib the number of times that item i has content b in the gallery, M_b its sum over i,

        R@1 <= 1 / |queries| * sum over contents a of max over b of (sum over queries (a, i) of m_ib) / M_b,

    and a system that knows the items attains it. Where k items share a query's content and nothing else they have 1 / k each.
    Raises ValueError without queries.
    """
    if not queries:
        raise ValueError("queries: expected one or more, got none")
    total = Counter(content for content, _ in gallery)  # M_b
    own: dict[int, list[Hashable]] = defaultdict(list)  # b, m_ib times
    for content, item in gallery:
        own[item].append(content)
    asked: dict[Hashable, list[int]] = defaultdict(list)
    for content, item in queries:
        asked[content].append(item)

    def best(items: Sequence[int]) -> float:
        hits = Counter(content for item in items for content in own.get(item, ()))
        return max((count / total[content] for content, count in hits.items()), default=0.0)

    alone = {item: best([item]) for item in {item for _, item in queries}}
    hits = (len(items) * alone[items[0]] if len(set(items)) == 1 else best(items) for items in asked.values())
    return fsum(hits) / len(queries)


def ceilings(items: Sequence[Item], bytes_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every split and direction, one modality asking and another answering, in which items share contents; test first.

    Texts and vectors are equal if every character and number is, files if ``bytes_of``, path -> what tells its bytes from all others',
    says so; files that it lacks are passed over. Each text of an item is a query, or an answer, of its own. A report gives split and
    direction, the ceiling where only the item itself is right, and where items of equal caption are as well (as `transphere eval`
    counts), the number of queries, and for query and target how many items share what they hold.
    """
    found = []
    for split in reversed(SHARES):
        chosen = [item for item in items if item.split == split]
        numbers: dict[Hashable, int] = {}
        key_of = [numbers.setdefault(item.caption or (item.id,), len(numbers)) for item in chosen]
        names = dict.fromkeys(name for item in chosen for name in item.modalities)
        contents = {name: _numbered(chosen, name, bytes_of) for name in names}
        for query in names:
            for target in names:
                answers = contents[target]
                there = {i for _, i in answers}
                asked = [(content, i) for content, i in contents[query] if i in there]
                shared = {"query": _shared(asked), "target": _shared(answers)}
                if query == target or not asked or not any(shared.values()):
                    continue
                best = counted = ceiling(asked, answers)
                if len(numbers) < len(chosen):
                    counted = ceiling([(content, key_of[i]) for content, i in asked], [(content, key_of[i]) for content, i in answers])
                about = {"split": split, "query": query, "target": target, "ceiling": best, "equal_captions": counted}
                found.append({**about, "queries": len(asked), "shared": shared})
    return found


def _numbered(items: Sequence[Item], name: str, bytes_of: Mapping[str, str]) -> list[tuple[int, int]]:
    """(content, item) of one modality, each content as a number, since to hash a long vector again and again takes its time."""
    number: dict[Hashable, int] = {}
    return [(number.setdefault(content, len(number)), i) for i, item in enumerate(items) for content in _contents(item, name, bytes_of)]


def _contents(item: Item, name: str, bytes_of: Mapping[str, str]) -> list[Hashable]:
    entry = item.modalities.get(name)
    if not entry:
        return []
    if "path" in entry:
        return [bytes_of[entry["path"]]] if entry["path"] in bytes_of else []
    return list(entry["texts"]) if "texts" in entry else [tuple(entry["vector"])]


def _shared(contents: Sequence[tuple[Hashable, int]]) -> int:
    """How many items have a content that another item has as well."""
    items_of: dict[Hashable, set[int]] = defaultdict(set)
    for content, item in contents:
        items_of[content].add(item)
    return len({item for owners in items_of.values() if len(owners) > 1 for item in owners})

