"""Retrieval between any modalities, as in section 3.3 of the ISMIR 2024 paper.

An item is the Fréchet mean of samples of its distribution; a query of two modalities is the Fréchet mean of the samples of both; the score
is the cosine. A hit is the item itself or any other with the same caption.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from transphere import frechet_mean, vmf_sample

from .batch import Batch
from .heads import Embedding, location
from .metrics import retrieval_metrics
from .model import Model
from .seeding import derive

CHUNK = 128  # items whose samples are in memory at a time


@dataclass(frozen=True)
class Direction:
    """Which modalities ask, and which one answers."""

    query: tuple[str, ...]
    target: str

    def __str__(self) -> str:
        return f"{'+'.join(self.query)}->{self.target}"


def directions(modalities: Iterable[str]) -> list[Direction]:
    """Every one-to-one and two-to-one direction: nine for three modalities, two for two."""
    names = list(modalities)
    single = [Direction((a,), b) for pair in itertools.combinations(names, 2) for a, b in (pair, pair[::-1])]
    double = [Direction(pair, b) for pair in itertools.combinations(names, 2) for b in names if b not in pair]
    return single + double


@torch.no_grad()
def embed(model: Model, batch: Batch, n_samples: int, seed: int) -> dict[tuple[str, ...], torch.Tensor]:
    """Points on the sphere for every modality and every pair of them: {("image",): (N, d), ..., ("image", "text"): (N, d), ...}.

    Rows of items that lack a modality hold something arbitrary. The samples depend on `seed` and an item's place only.
    """
    training = model.training
    model.eval()
    try:
        return _embed(model, batch, n_samples, seed)
    finally:
        model.train(training)


def _embed(model: Model, batch: Batch, n_samples: int, seed: int) -> dict[tuple[str, ...], torch.Tensor]:
    names = list(batch.inputs)
    subsets = [(name,) for name in names] + (list(itertools.combinations(names, 2)) if len(names) > 2 else [])
    parts: dict[tuple[str, ...], list[torch.Tensor]] = {subset: [] for subset in subsets}
    places = [list(range(start, min(start + CHUNK, len(batch)))) for start in range(0, len(batch), CHUNK)]
    for (start, *_), part in zip(places, batch.stream(places), strict=True):
        laws = model(part.inputs)
        samples = {name: _samples(law, n_samples, derive(seed, "embed", name, start)) for name, law in laws.items()}  # (B, L, d)
        for subset in subsets:
            parts[subset].append(frechet_mean(torch.cat([samples[name] for name in subset], dim=1)))  # (B, d)
    return {subset: torch.cat(chunks) for subset, chunks in parts.items()}


def _samples(law: Embedding, n_samples: int, seed: int) -> torch.Tensor:
    if n_samples == 0 or isinstance(law, torch.Tensor):
        return location(law)[:, None]
    return vmf_sample(law.loc, law.concentration, n_samples, seed=seed)


def caption_keys(batch: Batch) -> torch.Tensor:
    """(N,) whole numbers, equal for items of one (normalised) caption; an item without one has a number of its own."""
    numbers: dict[object, int] = {}
    return torch.tensor([numbers.setdefault(item.caption or (item.id,), len(numbers)) for item in batch.items])


def same_caption(batch: Batch) -> torch.Tensor:
    """(N, N) bool: is item j a right answer for item i? Itself, or the same caption."""
    keys = caption_keys(batch)
    return keys[:, None] == keys


@dataclass(frozen=True)
class Ranking:
    """The scores of one direction, restricted to the items that have its modalities."""

    scores: torch.Tensor  # (Q, G) cosine
    positives: torch.Tensor  # (Q, G) bool, at least one in every row
    queries: list[int]  # (Q,) places in the batch
    gallery: list[int]  # (G,)


def rank_direction(direction: Direction, points: dict[tuple[str, ...], torch.Tensor], batch: Batch) -> Ranking:
    """Score every query that has all its modalities, and a right answer in the gallery, against every item that has the target."""
    asked = torch.stack([batch.present[name] for name in direction.query]).all(0).cpu()  # (N,)
    gallery = batch.present[direction.target].cpu()  # (N,)
    same = same_caption(batch)[:, gallery]  # (N, G)
    queries = asked & same.any(1)
    scores = points[direction.query][queries.to(points[direction.query].device)] @ points[(direction.target,)][gallery].T  # (Q, G)
    return Ranking(scores.float().cpu(), same[queries], queries.nonzero().flatten().tolist(), gallery.nonzero().flatten().tolist())


def evaluate(model: Model, batch: Batch, n_samples: int, seed: int) -> dict[str, dict[str, float]]:
    """{"image->text": metrics, ...} over every direction that some item of the batch can ask."""
    points = embed(model, batch, n_samples, seed)
    results = {}
    for direction in directions(batch.inputs):
        ranking = rank_direction(direction, points, batch)
        if ranking.queries:
            results[str(direction)] = retrieval_metrics(ranking.scores, ranking.positives)
    return results


def mean_mrr(results: dict[str, dict[str, float]]) -> float:
    """The number that chooses the epoch: MRR averaged over the directions."""
    return sum(metrics["MRR"] for metrics in results.values()) / len(results)
