"""Retrieval between any modalities, as in section 3.3 of the ISMIR 2024 paper.

An item is the Fréchet mean of samples of its distribution; a query of several modalities is the Fréchet mean of the samples of all; the
score is the cosine, or minus the distance of a learned metric. A hit is the item itself or any other with the same caption.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from transphere import chordal_mean, frechet_mean, mahalanobis_cost, vmf_sample

from .batch import Batch
from .heads import Embedding, location
from .metrics import retrieval_metrics
from .model import Model
from .seeding import derive

CHUNK = 128  # items whose samples are in memory at a time
MEANS = {"frechet": functools.partial(frechet_mean, max_iter=1000), "chordal": chordal_mean}  # so many where classes spread widely
Points = dict[tuple[str, ...], torch.Tensor]  # set of modalities, in the batch's order -> (N, d)


@dataclass(frozen=True)
class Direction:
    """Which modalities ask, and which one answers."""

    query: tuple[str, ...]
    target: str

    def __str__(self) -> str:
        return f"{'+'.join(self.query)}->{self.target}"


def directions(modalities: Iterable[str], most: int = 2) -> list[Direction]:
    """Every direction whose query has 1 to `most` modalities and not the target: nine for three modalities, two for two."""
    names = list(modalities)
    single = [Direction((a,), b) for pair in itertools.combinations(names, 2) for a, b in (pair, pair[::-1])]
    sizes = range(2, min(most, len(names) - 1) + 1)
    return single + [Direction(q, b) for size in sizes for q in itertools.combinations(names, size) for b in names if b not in q]


def gallery_set(direction: Direction, modalities: Iterable[str], enrich: bool = False) -> tuple[str, ...]:
    """What a gallery item is the mean of: the target alone, or with all modalities that the query does not have."""
    return tuple(m for m in modalities if m == direction.target or enrich and m not in direction.query)


def sets_of(asked: Iterable[Direction], modalities: Iterable[str], enrich: bool = False) -> list[tuple[str, ...]]:
    """The sets of modalities whose points some directions need, each once."""
    names = list(modalities)
    return list(dict.fromkeys(s for direction in asked for s in (direction.query, gallery_set(direction, names, enrich))))


@torch.no_grad()
def embed(
    model: Model, batch: Batch, n_samples: int, seed: int, *, mean: str = "frechet", sets: Sequence[tuple[str, ...]] | None = None
) -> Points:
    """Points on the sphere for sets of modalities: {("image",): (N, d), ..., ("image", "text"): (N, d), ...}.

    A point is the mean of the samples of those modalities of the set that the item has; rows of items that have none hold something
    arbitrary. The samples depend on `seed` and an item's place only. sets: those of `directions` by default. mean: a key of MEANS.
    """
    training = model.training
    model.eval()
    try:
        names = batch.modalities
        return _embed(model, batch, n_samples, seed, mean, sets_of(directions(names), names) if sets is None else sets)
    finally:
        model.train(training)


def _embed(model: Model, batch: Batch, n_samples: int, seed: int, mean: str, sets: Sequence[tuple[str, ...]]) -> Points:
    parts: dict[tuple[str, ...], list[torch.Tensor]] = {names: [] for names in sets}
    places = [list(range(start, min(start + CHUNK, len(batch)))) for start in range(0, len(batch), CHUNK)]
    for (start, *_), part in zip(places, batch.stream(places), strict=True):
        laws = model(part.inputs)
        samples = {name: draw(law, n_samples, derive(seed, "embed", name, start)) for name, law in laws.items()}  # (B, L, d)
        for names in sets:
            parts[names].append(joint_mean([samples[n] for n in names], [part.present[n] for n in names], mean))  # (B, d)
    return {names: torch.cat(chunks) for names, chunks in parts.items()}


def draw(law: Embedding, n_samples: int, seed: int) -> torch.Tensor:
    """(B, L, d) samples of each item's distribution; of a point, or with n_samples = 0, its mean direction, L = 1."""
    if n_samples == 0 or isinstance(law, torch.Tensor):
        return location(law)[:, None]
    return vmf_sample(law.loc, law.concentration, n_samples, seed=seed)


def joint_mean(samples: Sequence[torch.Tensor], present: Sequence[torch.Tensor], mean: str = "frechet") -> torch.Tensor:
    """(B, d): each item's mean over the samples (B, L, d) of the modalities that it has, present (B,) bool a modality."""
    z = torch.cat(list(samples), dim=1)  # (B, sum of L, d)
    if z.shape[1] == 1:
        return z[:, 0]
    if len(samples) == 1:
        return MEANS[mean](z)
    there = torch.cat([p[:, None].expand(s.shape[:2]) for s, p in zip(samples, present, strict=True)], dim=1)  # (B, sum of L)
    return MEANS[mean](z, (there | ~there.any(1, keepdim=True)).to(z.dtype))


def caption_keys(batch: Batch) -> torch.Tensor:
    """(N,) whole numbers, equal for items of one (normalised) caption; an item without one has a number of its own."""
    numbers: dict[object, int] = {}
    return torch.tensor([numbers.setdefault(item.caption or (item.id,), len(numbers)) for item in batch.items])


def same_caption(batch: Batch) -> torch.Tensor:
    """(N, N) bool: is item j a right answer for item i? Itself, or the same caption."""
    keys = caption_keys(batch)
    return keys[:, None] == keys


def can_ask(batch: Batch) -> bool:
    """Has some item, with those of its caption, two modalities, so that one can ask for the other?"""
    present = torch.stack([there.cpu() for there in batch.present.values()]).int()  # (M, N)
    keys = caption_keys(batch)
    return bool((present.new_zeros(len(present), len(batch)).index_add(1, keys, present) > 0).sum(0).max() > 1)


@dataclass(frozen=True)
class Ranking:
    """The scores of one direction, restricted to the items that have its modalities."""

    scores: torch.Tensor  # (Q, G), higher is better
    positives: torch.Tensor  # (Q, G) bool, at least one in every row
    queries: list[int]  # (Q,) places in the batch
    gallery: list[int]  # (G,)


def rank_direction(
    direction: Direction, points: Points, batch: Batch, *, enrich: bool = False, metric: torch.Tensor | None = None
) -> Ranking:
    """Score every query that has all its modalities, and a right answer in the gallery, against every item that has the target.

    enrich: a gallery item is the mean of all its modalities but the query's. metric: M of a Mahalanobis distance (d, d), or its diagonal.
    """
    asked = torch.stack([batch.present[name] for name in direction.query]).all(0).cpu()  # (N,)
    gallery = batch.present[direction.target].cpu()  # (N,)
    same = same_caption(batch)[:, gallery]  # (N, G)
    queries = asked & same.any(1)
    x = points[direction.query]
    y = points[gallery_set(direction, batch.modalities, enrich)]
    scores = score(x[queries.to(x.device)], y[gallery.to(y.device)], metric)
    return Ranking(scores.cpu(), same[queries], queries.nonzero().flatten().tolist(), gallery.nonzero().flatten().tolist())


def score(x: torch.Tensor, y: torch.Tensor, metric: torch.Tensor | None = None) -> torch.Tensor:
    """(Q, G) float32 of x (Q, d) and y (G, d), higher is better: the cosine, or minus the distance of a learned metric."""
    if metric is None:
        return (x @ y.T).float()
    return -mahalanobis_cost(x, y, metric.detach().to(x)).float()


def evaluate(
    model: Model,
    batch: Batch,
    n_samples: int,
    seed: int,
    *,
    mean: str = "frechet",
    enrich: bool = False,
    query_size: int = 2,
    metric: torch.Tensor | None = None,
) -> dict[str, dict[str, float]]:
    """{"image->text": metrics, ...} over every direction with up to `query_size` modalities that some item of the batch can ask."""
    asked = directions(batch.modalities, query_size)
    points = embed(model, batch, n_samples, seed, mean=mean, sets=sets_of(asked, batch.modalities, enrich))
    results = {}
    for direction in asked:
        ranking = rank_direction(direction, points, batch, enrich=enrich, metric=metric)
        if ranking.queries:
            results[str(direction)] = retrieval_metrics(ranking.scores, ranking.positives)
    return results


def mean_mrr(results: dict[str, dict[str, float]]) -> float:
    """The number that chooses the epoch: MRR averaged over the directions."""
    return sum(metrics["MRR"] for metrics in results.values()) / len(results)
