"""`transphere check metrics`: every number of an evaluation once more by plain loops (brute_force.py), and where they differ."""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from . import brute_force, checkpoint
from .arguments import command
from .data.groups import SHARES
from .metrics import retrieval_metrics

if TYPE_CHECKING:
    from .evaluation import Scored

TOLERANCE = 1e-9  # relative, of metrics from the very same scores; they differ in the order of their sums alone
ROUNDING = 1e-5  # absolute, of float32 scores against float64 products of the same float32 points


@dataclass(frozen=True)
class Compared:
    """One number, twice."""

    what: str
    here: float  # as transphere computes it
    there: float  # as the loops, or a file, have it
    tolerance: float

    @property
    def agrees(self) -> bool:
        return abs(self.here - self.there) <= self.tolerance * max(1.0, abs(self.there))  # NaN does not


def check_scores(where: str, scores: torch.Tensor, positives: torch.Tensor) -> Iterator[Compared]:
    """Every metric of one direction, scores (Q, N) and positives (Q, N) bool."""
    fast, slow = retrieval_metrics(scores, positives), brute_force.retrieval(scores.tolist(), positives.tolist())
    for name in sorted({*fast, *slow}):
        yield Compared(f"{where} {name}", fast.get(name, float("nan")), slow.get(name, float("nan")), TOLERANCE)


def check_run(scored: Scored) -> Iterator[Compared]:
    """Every metric of every direction, its scores and equal error rate, gaps, classification, and the report in the run's folder."""
    from .evaluation import report_path
    from .separation import error_rates, gaps
    from .zero_shot import all_labels, trials

    stored = checkpoint.read_json(report_path(scored))
    if stored is not None and (stored.get("run") or {}).get("digest") != scored.run.facts["digest"]:
        stored = None  # of an earlier run in this folder
    rates = error_rates(scored)
    for (name, ranking), direction in zip(scored.rankings(), _asked(scored), strict=True):
        yield from check_scores(name, ranking.scores, ranking.positives)
        if scored.run.metric is None:
            yield Compared(f"{name} largest error of a score", _largest_error(scored, direction, ranking), 0.0, ROUNDING)
        if name in rates:
            rate = brute_force.equal_error_rate(ranking.scores.flatten().tolist(), ranking.positives.flatten().tolist())
            yield Compared(f"{name} EER", rates[name]["EER"], rate, TOLERANCE)
        if stored is not None:
            fresh = retrieval_metrics(ranking.scores, ranking.positives)
            for metric, value in stored["directions"].get(name, {}).items():
                yield Compared(f"{name} {metric} in {report_path(scored).name}", fresh.get(metric, float("nan")), value, TOLERANCE)
    batch = scored.batch
    for pair, fast in gaps(scored).items():
        a, b = next((a, b) for a, b in itertools.combinations(batch.modalities, 2) if f"{a}, {b}" == pair)
        both = batch.present[a] & batch.present[b]
        slow = brute_force.gap(*(scored.points[(m,)][both].tolist() for m in (a, b)))
        for metric, value in slow.items():
            yield Compared(f"{pair} {metric}", fast[metric], value, 1e-6)  # means of float32 vectors
    for name, form, scores, truth in trials(scored) if len(all_labels(scored.run)) > 1 else ():
        yield from check_classes(f"{name} by {form}", scores, truth)


def check_classes(where: str, scores: torch.Tensor, truth: torch.Tensor) -> Iterator[Compared]:
    """Accuracy and T1 of scores (n, C) and classes (n,)."""
    from .geometry import zero_shot  # with sklearn, a second to import

    fast = zero_shot(scores, truth)
    for metric, value in brute_force.classification(scores.tolist(), truth.tolist()).items():
        yield Compared(f"{where} {metric}", fast[metric], value, TOLERANCE)


def _asked(scored: Scored) -> list:
    names = [name for name, _ in scored.rankings()]
    return [direction for direction in scored.asked if str(direction) in names]


def _largest_error(scored: Scored, direction: object, ranking: object, most: int = 2000) -> float:
    """Of a float32 score, against the float64 product of its two points; of `most` pairs drawn at random where there are more."""
    from .evaluator import gallery_set

    x = scored.points[direction.query].tolist()
    y = scored.points[gallery_set(direction, scored.batch.modalities, scored.enrich)].tolist()
    pairs = list(itertools.product(range(len(ranking.queries)), range(len(ranking.gallery))))
    pairs = random.Random(0).sample(pairs, min(most, len(pairs)))
    return max(abs(float(ranking.scores[i, j]) - brute_force.dot(x[ranking.queries[i]], y[ranking.gallery[j]])) for i, j in pairs)


def made_up() -> Iterator[Compared]:
    """Scores with what goes wrong elsewhere: ties within and across, several positives, all equal, one query, one item."""
    generator = torch.Generator().manual_seed(0)
    for queries, gallery, levels in ((1, 1, 1), (1, 7, 3), (9, 1, 2), (12, 30, 1), (20, 40, 4), (40, 25, 10**6)):
        scores = torch.randint(levels, (queries, gallery), generator=generator).float() / levels - 0.5
        positives = torch.rand(queries, gallery, generator=generator) < 0.15
        positives[torch.arange(queries), torch.randint(gallery, (queries,), generator=generator)] = True
        where = f"{queries} queries, {gallery} items, {levels} levels:"
        yield from check_scores(where, scores, positives)
        yield from check_classes(where, scores, torch.randint(gallery, (queries,), generator=generator))


def add_arguments(commands: Any) -> None:
    """Join the command to `transphere check`."""
    text = "compute every metric of a run again by plain loops in float64, and say where they differ"
    parser = command(commands, "metrics", run_check_metrics, text)
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="the folder of a run; without one, made-up scores with ties")
    parser.add_argument("--split", choices=tuple(SHARES), default="test", help="which items (default: test)")
    parser.add_argument("--data", metavar="MANIFEST", help="the manifest, if it has moved since the run was trained")


def run_check_metrics(arguments: argparse.Namespace) -> int:
    """The command: 0 where all agree, 1 where some differ."""
    from .evaluation import score_run
    from .run import open_run

    if arguments.run is None:
        compared = list(made_up())
    else:
        compared = list(check_run(score_run(open_run(arguments.run, arguments.data), arguments.split)))
    wrong = [c for c in compared if not c.agrees]
    for c in wrong:
        print(f"differs: {c.what}: {c.here!r}, expected {c.there!r}")
    worst = max((abs(c.here - c.there) for c in compared if c.agrees), default=0.0)
    print(f"{len(compared) - len(wrong)} of {len(compared)} numbers agree with plain loops in float64 (largest difference {worst:.1e})")
    return 1 if wrong else 0
