"""Bootstrap intervals of a run's metrics, and two runs compared on the same queries.

Groups of items are drawn, not items: a manifest's group holds what belongs together (equal captions, copies of a picture), and its members
are not independent.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from .errors import UserError
from .intervals import Interval, bootstrap, compare
from .metrics import per_query

if TYPE_CHECKING:
    from .evaluation import Scored

METRICS = ("R@1", "R@5", "R@10", "MRR", "mAP", "R-precision")
POOLED = "all queries"
LEVEL = 0.95


def intervals(scored: Scored) -> dict:
    """{"directions": {direction: {metric: Interval as a dict}}}, with the queries of all directions pooled as the last entry."""
    values, ids = _queries(scored)
    groups = _groups(scored)
    results = {}
    for name, each in values.items():
        drawn = np.array([groups[i] for i in ids[name]])
        results[name] = {metric: _plain(bootstrap(each[metric], drawn, level=LEVEL)) for metric in METRICS}
    return {"level": LEVEL, "drawn": "groups of items", "directions": results}


def against(scored: Scored, other: Scored) -> dict:
    """How much higher `scored` is than `other`, per direction and metric, paired by query; both must have been asked the same.

    Raises UserError where the two runs do not rank the same items in the same directions.
    """
    mine, ids = _queries(scored)
    theirs, their_ids = _queries(other)
    if ids != their_ids:
        both = [name for name in ids if ids[name] != their_ids.get(name)] + [name for name in their_ids if name not in ids]
        raise UserError(
            f"--against {other.run.path}: expected the same queries of the {scored.split} split as in {scored.run.path}, "
            f"but {', '.join(both[:3])} differ{'s' if len(both) == 1 else ''}: another manifest, split_seed or other modalities"
        )
    galleries = [[tuple(s.batch.items[j].id for j in r.gallery) for _, r in s.rankings()] for s in (scored, other)]
    if galleries[0] != galleries[1]:
        raise UserError(f"--against {other.run.path}: expected the same galleries as in {scored.run.path}")
    groups = _groups(scored)
    results = {}
    for name, each in mine.items():
        drawn = np.array([groups[i] for i in ids[name]])
        results[name] = {
            metric: {
                **_plain(compare(theirs[name][metric], each[metric], drawn, level=LEVEL)),
                "here": float(each[metric].mean()),
                "there": float(theirs[name][metric].mean()),
            }
            for metric in METRICS
        }
    other_facts = {"path": str(other.run.path), "digest": other.run.facts["digest"], "epoch": other.run.epoch}
    return {"level": LEVEL, "drawn": "groups of items", "other": other_facts, "directions": results}


def _queries(scored: Scored) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, list[str]]]:
    """Each direction's metrics query by query, and the queries' ids; the pool of all directions last, where there are several."""
    values, ids = {}, {}
    for name, ranking in scored.rankings():
        values[name] = per_query(ranking.scores, ranking.positives)
        ids[name] = [scored.batch.items[i].id for i in ranking.queries]
    if len(values) > 1:
        pooled = {metric: np.concatenate([each[metric] for each in values.values()]) for metric in METRICS}
        values[POOLED], ids[POOLED] = pooled, [i for names in ids.values() for i in names]
    return values, ids


def _groups(scored: Scored) -> dict[str, str]:
    return {item.id: item.group for item in scored.batch.items}


def _plain(interval: Interval) -> dict[str, float]:
    return asdict(interval)
