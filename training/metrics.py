"""Ranking metrics for retrieval with any number of positives per query.

For query i with scores s_ij over a gallery of N items, positives P_i and best positive score s* = max_{j in P_i} s_ij:

    rank_i = 1 + #{j not in P_i : s_ij > s*} + half of #{j not in P_i : s_ij = s*}

the expected rank: a tie is neither won nor lost. Counting no tied negative gives the optimistic rank, counting all of them the pessimistic
one. A score that is not finite is refused: NaN > NaN is false, and a strict comparison alone would call it a perfect answer. The i-th best
positive has the place i + #{negatives above it} + half of #{negatives that tie with it}: positives do not push each other down beyond their
own order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

KS = (1, 5, 10)


@dataclass(frozen=True)
class Ranks:
    """1-based rank of the first positive of every query."""

    expected: np.ndarray  # (Q,) float64
    optimistic: np.ndarray  # (Q,) int64
    pessimistic: np.ndarray  # (Q,) int64


def rank(scores: torch.Tensor, positives: torch.Tensor) -> Ranks:
    """Rank the first positive of every query.

    scores: (Q, N), higher is better; positives: (Q, N) bool, at least one in every row.
    Raises ValueError for shapes that differ, no query or item, scores that are not finite, and a query without a positive.
    """
    _check(scores, positives)
    best = scores.masked_fill(~positives, -torch.inf).amax(1, keepdim=True)  # (Q, 1)
    better = ((scores > best) & ~positives).sum(1).cpu().numpy()  # (Q,)
    tied = ((scores == best) & ~positives).sum(1).cpu().numpy()  # (Q,)
    return Ranks(expected=1 + better + tied / 2, optimistic=1 + better, pessimistic=1 + better + tied)


def _check(scores: torch.Tensor, positives: torch.Tensor) -> None:
    if scores.ndim != 2 or positives.shape != scores.shape or positives.dtype != torch.bool:
        raise ValueError(
            "rank: expected scores (Q, N) and bool positives of the same shape, "
            f"got {tuple(scores.shape)} and {positives.dtype} {tuple(positives.shape)}"
        )
    if not scores.numel():
        raise ValueError(f"rank: expected at least one query and one gallery item, got scores of shape {tuple(scores.shape)}")
    bad = ~torch.isfinite(scores).all(1)  # (Q,)
    if bad.any():
        raise ValueError(f"rank: expected finite scores, got NaN or infinity for {int(bad.sum())} of {len(scores)} queries")
    none = ~positives.any(1)  # (Q,)
    if none.any():
        raise ValueError(f"rank: expected a positive for every query, got none for query {int(none.nonzero()[0])}")


def places(scores: torch.Tensor, positives: torch.Tensor) -> np.ndarray:
    """(Q, K) float64: the expected places of the positives of every query, best first, padded with infinity to the most that one has.

    Takes what `rank` takes, of which it is the first column; raises the same.
    """
    count = positives.sum(1)  # (Q,)
    K = int(count.max()) if len(count) else 0
    if K <= 1:  # nothing to sort
        return rank(scores, positives).expected[:, None]
    _check(scores, positives)
    own = scores.masked_fill(~positives, -torch.inf).topk(K, dim=1).values.cpu()  # (Q, K), best first
    # numpy sorts without an order of indices to carry, several times faster than torch on a CPU
    negatives = torch.from_numpy(np.sort(scores.masked_fill(positives, -torch.inf).cpu().numpy()))  # (Q, N), worst first
    N = scores.shape[1]
    above = N - torch.searchsorted(negatives, own, right=True)
    tied = N - torch.searchsorted(negatives, own) - above
    order = torch.arange(1, K + 1)
    return torch.where(order <= count.cpu()[:, None], (order + above + tied / 2).double(), torch.inf).numpy()


def per_query(scores: torch.Tensor, positives: torch.Tensor, ks: tuple[int, ...] = KS) -> dict[str, np.ndarray]:
    """{metric: (Q,) float64} of every query, as `retrieval_metrics` averages them; the inputs are those of `rank`."""
    place = places(scores, positives)  # (Q, K)
    count = np.isfinite(place).sum(1)  # (Q,)
    precision = np.arange(1, place.shape[1] + 1) / place  # (Q, K) at each positive; 0 in the padding
    return {
        **{f"R@{k}": (place[:, 0] <= k).astype(float) for k in ks},
        **{f"recall@{k}": (place <= k).sum(1) / count for k in ks},
        "rank": place[:, 0],
        "MRR": 1 / place[:, 0],
        "mAP": precision.sum(1) / count,
        "mAP@10": (precision * (place <= 10)).sum(1) / count,
        "R-precision": (place <= count[:, None]).sum(1) / count,
    }


def retrieval_metrics(scores: torch.Tensor, positives: torch.Tensor, ks: tuple[int, ...] = KS) -> dict[str, float]:
    """All metrics of one direction, as fractions: what `rank` takes -> a flat dict.

    R@k: share of the queries with a positive among the first k (often called hit rate). recall@k: share of a query's positives among the
    first k. MRR: mean of 1 / rank, no cut-off. median_rank and mean_rank: of 1-based ranks, an even number of queries takes the middle
    two's mean. mAP: mean over a query's positives of the precision at each; mAP@10 counts those within the first 10, and divides by all.
    R-precision: share of positives among the first R, R being their number. tied: share of the queries whose first positive ties with a
    negative; where it is not 0, R@k_min and R@k_max bound R@k over all ways to break the ties. chance_R@k: see `chance_recall`.
    """
    each = per_query(scores, positives, ks)
    ranks = rank(scores, positives)
    n_positives = positives.sum(1).cpu().numpy()  # (Q,)
    queries, gallery = scores.shape
    place = each.pop("rank")
    result = {
        "queries": queries,
        "gallery": gallery,
        **{name: float(values.mean()) for name, values in each.items()},
        "median_rank": float(np.median(place)),
        "mean_rank": float(place.mean()),
        "tied": float((ranks.optimistic != ranks.pessimistic).mean()),
        **{f"chance_R@{k}": chance_recall(n_positives, gallery, k) for k in ks},
    }
    if result["tied"]:
        for k in ks:
            result[f"R@{k}_min"] = float((ranks.pessimistic <= k).mean())
            result[f"R@{k}_max"] = float((ranks.optimistic <= k).mean())
        result["MRR_min"] = float((1 / ranks.pessimistic).mean())
        result["MRR_max"] = float((1 / ranks.optimistic).mean())
    return result


def search(
    queries: torch.Tensor,
    gallery: torch.Tensor,
    query_keys: torch.Tensor,
    gallery_keys: torch.Tensor,
    ks: tuple[int, ...] = KS,
    chunk: int = 1024,
) -> dict[str, np.ndarray]:
    """`per_query` of inner products, exact, with `chunk` rows of scores in memory at a time.

    queries: (Q, d); gallery: (N, d); keys: whole numbers (Q,) and (N,), equal for what answers what: five captions of a clip share its key.
    """
    parts = [
        per_query(queries[start : start + chunk] @ gallery.T, query_keys[start : start + chunk, None] == gallery_keys, ks)
        for start in range(0, len(queries), chunk)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def chance_recall(n_positives: np.ndarray, gallery: int, k: int) -> float:
    """R@k of a ranking drawn at random, exactly: the mean over queries of 1 - C(N - p, k) / C(N, k) for p positives among N items.

    n_positives: (Q,) int, each between 1 and `gallery`.
    """
    n_positives = np.asarray(n_positives)
    if not n_positives.size or n_positives.min() < 1 or n_positives.max() > gallery:
        raise ValueError(f"chance_recall: expected between 1 and {gallery} positives for every query, got {n_positives}")
    misses = np.ones(n_positives.shape)  # (Q,): the chance that none of the first k places holds a positive
    for place in range(min(k, gallery)):
        misses *= np.maximum(gallery - n_positives - place, 0) / (gallery - place)
    return float((1 - misses).mean())
