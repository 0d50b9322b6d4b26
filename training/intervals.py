"""How sure a mean over queries is: bootstrap over items, and two runs compared on the same ones.

Queries of one item (the five captions of a clip) are not independent, so whole items are drawn with replacement, never single queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean over queries and the percentile interval of its bootstrap."""

    mean: float
    low: float
    high: float
    items: int  # how many were drawn from

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(values: np.ndarray, items: np.ndarray, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """The mean of `values` and its interval.

    values: (Q,), one a query; items: (Q,), equal for queries of one item, of any type that numpy sorts; level: in (0, 1).
    Raises ValueError for shapes that differ, no query, values that are not finite, a level out of range.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or np.shape(items) != values.shape or not values.size:
        raise ValueError(f"bootstrap: expected values and items of one shape (Q,), Q >= 1, got {values.shape} and {np.shape(items)}")
    if not np.isfinite(values).all():
        raise ValueError(f"bootstrap: expected finite values, got {(~np.isfinite(values)).sum()} that are not")
    if not 0 < level < 1:
        raise ValueError(f"bootstrap: level: expected a number between 0 and 1, got {level!r}")
    _, place = np.unique(items, return_inverse=True)
    count = np.bincount(place)  # (I,) queries of an item
    total = np.bincount(place, weights=values)
    drawn = np.random.default_rng(seed).multinomial(len(count), np.full(len(count), 1 / len(count)), size=draws)  # (draws, I)
    low, high = np.quantile(drawn @ total / (drawn @ count), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(count))


def compare(first: np.ndarray, second: np.ndarray, items: np.ndarray, **options: float) -> Interval:
    """How much higher `second` is than `first` on the same queries, as a paired difference; options as in `bootstrap`."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"compare: expected the same queries in both runs, got {first.shape} and {second.shape}")
    return bootstrap(second - first, items, **options)
