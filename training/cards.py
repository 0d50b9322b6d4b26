"""What a contact sheet shows: rows of a query and its first answers, each item a card with a picture, a sound or a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from .batch import Batch
from .data.manifest import Item
from .evaluator import Direction, Points, Ranking, directions, rank_direction
from .metrics import rank
from .report import arrows
from .seeding import derive

ANSWERS = 5
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
SOUNDS = {".ogg": "audio/ogg", ".oga": "audio/ogg", ".opus": "audio/ogg", ".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac"}


@dataclass(frozen=True)
class Card:
    """One modality of an item: a file where it has one, and words that stand for it or say what a recording says."""

    text: str
    path: Path | None = None
    id: str = ""  # of the item; a query that is none has none

    @property
    def is_picture(self) -> bool:
        return self.path is not None and self.path.suffix.lower() in PICTURES

    @property
    def is_sound(self) -> bool:
        return self.path is not None and self.path.suffix.lower() in SOUNDS


@dataclass(frozen=True)
class Row:
    """A query, one card a modality, and the items that came first."""

    title: str  # "image + text → speech"
    notes: list[str]
    query: list[Card]
    answers: list[Card]
    right: list[bool]  # (answers,) all False where nobody knows
    captions: list[str]  # (answers,) a few words under each: the score


def card(item: Item, modality: str, root: Path) -> Card:
    """One modality of an item; `root` is the folder that its paths are relative to."""
    entry = item.modalities.get(modality) or {}
    if "path" in entry:
        return Card(entry.get("text") or item.caption or item.id, root / entry["path"], item.id)
    return Card(entry["texts"][0] if "texts" in entry else item.caption or item.id, None, item.id)


def random_rows(
    points: Points, batch: Batch, root: Path, seed: int = 0, *, enrich: bool = False, metric: torch.Tensor | None = None
) -> list[Row]:
    """One query a direction, drawn at random, and each item at most once as long as there are enough."""
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(derive(seed, "contact sheet"))).tolist()
    used: set[int] = set()
    rows = []
    for direction in directions(batch.modalities, most=max(map(len, points))):
        if direction.query not in points:
            continue
        ranking = rank_direction(direction, points, batch, enrich=enrich, metric=metric)
        if ranking.queries:
            allowed = set(ranking.queries)
            query = next((i for i in order if i in allowed and i not in used), ranking.queries[0])
            used.add(query)
            rows.append(_row(direction, ranking, query, batch, root))
    return rows


def _row(direction: Direction, ranking: Ranking, query: int, batch: Batch, root: Path) -> Row:
    at = ranking.queries.index(query)
    first = ranking.scores[at].argsort(descending=True, stable=True)[:ANSWERS].tolist()
    answers = [card(batch.items[ranking.gallery[j]], direction.target, root) for j in first]
    ranks = rank(ranking.scores, ranking.positives).pessimistic  # (Q,)
    recall = float((ranks <= ANSWERS).mean())  # share of this direction's queries with a right answer among the first
    notes = [f"right: rank {int(ranks[at])}", f"R@{ANSWERS}: {100 * recall:.0f} %"]
    cards = [card(batch.items[query], modality, root) for modality in direction.query]
    right = ranking.positives[at][first].tolist()
    return Row(arrows(str(direction)), notes, cards, answers, right, [f"{ranking.scores[at][j]:.2f}" for j in first])
