"""Every metric from its definition, one query and one gallery item at a time, in Python's float64: what `check metrics` compares with.

Slow on purpose, and with nothing of `metrics.py` or `geometry.py` in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

KS = (1, 5, 10)


def retrieval(scores: Sequence[Sequence[float]], positives: Sequence[Sequence[bool]]) -> dict[str, float]:
    """The metrics of one direction. scores (Q, N), higher is better; positives (Q, N), at least one in every row."""
    gallery = len(scores[0])
    columns: dict[str, list[float]] = {}
    for row, right in zip(scores, positives, strict=True):
        for name, value in _query(row, right).items():
            columns.setdefault(name, []).append(value)
    result = {name: math.fsum(values) / len(values) for name, values in columns.items() if name != "rank"}
    tied = result["tied"] > 0
    if not tied:
        result = {name: value for name, value in result.items() if not name.endswith(("_min", "_max"))}
    ranks = sorted(columns["rank"])
    middle = len(ranks) // 2
    median = ranks[middle] if len(ranks) % 2 else (ranks[middle - 1] + ranks[middle]) / 2
    return {"queries": len(scores), "gallery": gallery, **result, "median_rank": median, "mean_rank": math.fsum(ranks) / len(ranks)}


def _query(row: Sequence[float], right: Sequence[bool]) -> dict[str, float]:
    mine = sorted((s for s, r in zip(row, right, strict=True) if r), reverse=True)
    others = [s for s, r in zip(row, right, strict=True) if not r]
    places = []
    for i, s in enumerate(mine, start=1):
        above = sum(o > s for o in others)
        equal = sum(o == s for o in others)
        places.append(i + above + equal / 2)
    low = 1 + sum(o > mine[0] for o in others)  # optimistic
    high = low + sum(o == mine[0] for o in others)  # pessimistic
    precisions = [i / place for i, place in enumerate(places, start=1)]
    result = {
        "rank": places[0],
        "MRR": 1 / places[0],
        "MRR_min": 1 / high,
        "MRR_max": 1 / low,
        "mAP": math.fsum(precisions) / len(mine),
        "mAP@10": math.fsum(p for p, place in zip(precisions, places, strict=True) if place <= 10) / len(mine),
        "R-precision": sum(place <= len(mine) for place in places) / len(mine),
        "tied": float(low != high),
    }
    for k in KS:
        result[f"R@{k}"] = float(places[0] <= k)
        result[f"R@{k}_min"] = float(high <= k)
        result[f"R@{k}_max"] = float(low <= k)
        result[f"recall@{k}"] = sum(place <= k for place in places) / len(mine)
        # Of all ways to fill the first k places, those without a positive miss.
        drawn = min(k, len(row))
        result[f"chance_R@{k}"] = 1 - math.comb(len(others), drawn) / math.comb(len(row), drawn)
    return result


def equal_error_rate(scores: Sequence[float], same: Sequence[bool]) -> float:
    """Where the share of the others that is accepted meets that of the matching pairs that is refused, from high thresholds to low."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    matching, others = sum(same), len(same) - sum(same)
    accepted, refused = 0.0, 1.0
    hits = wrong = i = 0
    while i < len(order):
        before = accepted, refused
        threshold = scores[order[i]]
        while i < len(order) and scores[order[i]] == threshold:
            hits, wrong, i = hits + same[order[i]], wrong + (not same[order[i]]), i + 1
        accepted, refused = wrong / others, 1 - hits / matching
        if accepted >= refused:
            t = (before[1] - before[0]) / ((accepted - before[0]) + (before[1] - refused))
            return before[0] + t * (accepted - before[0])
    return 0.0


def classification(scores: Sequence[Sequence[float]], truth: Sequence[int]) -> dict[str, float]:
    """accuracy, and T1, its mean over the classes that occur; an item that ties is shared out among its best classes."""
    right = [(max(row) == row[c]) / sum(s == max(row) for s in row) for row, c in zip(scores, truth, strict=True)]
    classes = sorted(set(truth))
    shares = [[r for r, c in zip(right, truth, strict=True) if c == k] for k in classes]
    return {"accuracy": math.fsum(right) / len(right), "T1": math.fsum(math.fsum(s) / len(s) for s in shares) / len(classes)}


def gap(x: Sequence[Sequence[float]], y: Sequence[Sequence[float]]) -> dict[str, float]:
    """gap, positive_cosine and centred_cosine of `geometry.modality_gap`."""
    means = [[math.fsum(column) / len(z) for column in zip(*z, strict=True)] for z in (x, y)]
    centred = [[[v - m for v, m in zip(row, mean, strict=True)] for row in z] for z, mean in zip((x, y), means, strict=True)]
    return {
        "gap": math.dist(*means),
        "positive_cosine": math.fsum(_cosine(a, b) for a, b in zip(x, y, strict=True)) / len(x),
        "centred_cosine": math.fsum(_cosine(a, b) for a, b in zip(*centred, strict=True)) / len(x),
    }


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    size = math.sqrt(dot(a, a) * dot(b, b))
    return dot(a, b) / max(size, 1e-24)


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    """The inner product."""
    return math.fsum(p * q for p, q in zip(a, b, strict=True))
