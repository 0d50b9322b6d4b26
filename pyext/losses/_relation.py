"""Which items of a batch answer which: what absent modalities and duplicates do to a (batch, batch) matrix of similarities."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ._embeddings import Embeddings, Present, both_present

DUPLICATES = ("ignore", "positive")


@dataclass(frozen=True)
class Relation:
    """Of one ordered pair of modalities; rows are items of the first, columns of the second. None stands for the plain case."""

    positive: Tensor | None  # (batch, batch) bool, symmetric: right answers; None: the diagonal
    keep: Tensor | None  # (batch, batch) bool: entries that count, the diagonal always among them; None: all
    items: Tensor | None  # (batch,) bool: items with both modalities; None: all


def check_duplicates(loss: str, duplicates: str) -> str:
    if duplicates not in DUPLICATES:
        raise ValueError(f"{loss}: duplicates: expected one of {DUPLICATES}, got {duplicates!r}")
    return duplicates


def check_groups(loss: str, groups: Tensor | None, batch: int) -> None:
    if groups is not None:
        check_whole_numbers(loss, "groups", groups, batch)


def check_whole_numbers(loss: str, name: str, t: Tensor, batch: int) -> None:
    if not isinstance(t, Tensor) or t.is_floating_point() or t.shape != (batch,):
        got = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
        raise ValueError(f"{loss}: {name}: expected whole numbers of shape ({batch},), got {got}")


def relate(embeddings: Embeddings, present: Present, groups: Tensor | None, duplicates: str, i: int, j: int) -> Relation:
    """The relation of modalities i and j. Items of one group are answers to each other ("positive") or, but for an item itself, left
    out ("ignore"). A row without modality i and a column without modality j are left out."""
    items = both_present(embeddings, present, i, j)
    if items is None and groups is None:
        return Relation(None, None, None)
    names = list(embeddings)
    first = next(iter(embeddings.values()))
    batch, device = len(first if isinstance(first, Tensor) else first.loc), (items if items is not None else groups).device
    everyone = torch.ones(batch, dtype=torch.bool, device=device)
    both = everyone if items is None else items
    has_i, has_j = ((present or {}).get(names[k], everyone) for k in (i, j))
    keep, own = has_i[:, None] & has_j, torch.eye(batch, dtype=torch.bool, device=device)
    positive = None
    if groups is not None:
        same = groups[:, None] == groups
        if duplicates == "positive":
            positive = (same & both & both[:, None]) | own
        else:
            keep = keep & ~same
    # A row that keeps nothing would have no logarithm to take; rows and columns of absent items leave the mean anyway.
    return Relation(positive, keep | own, items)


def of_positives(values: Tensor, relation: Relation) -> Tensor:
    """Mean of (..., batch, batch) over the right answers of each row, (..., batch)."""
    if relation.positive is None:
        return values.diagonal(dim1=-2, dim2=-1)
    return torch.where(relation.positive, values, 0.0).sum(-1) / relation.positive.sum(-1)


def mean_over_items(each: Tensor, relation: Relation) -> Tensor:
    """Mean of (batch,) over the items with both modalities; 0 where they are fewer than two. Without a host read."""
    if relation.items is None:
        return each.mean()
    count = relation.items.sum()
    return torch.where(relation.items, each, 0.0).sum() / count.clamp(min=1) * (count >= 2)


def symmetric_cross_entropy(logits: Tensor, relation: Relation) -> Tensor:
    """Mean cross-entropy of the rows and of the columns of (batch, batch) against their right answers."""
    if relation.keep is None:
        target = torch.arange(logits.shape[0], device=logits.device)
        return 0.5 * (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.mT, target))
    hit = 0.5 * (of_positives(logits, relation) + of_positives(logits.mT, relation))
    logits = logits.masked_fill(~relation.keep, -torch.inf)
    return mean_over_items(0.5 * (logits.logsumexp(0) + logits.logsumexp(1)) - hit, relation)
