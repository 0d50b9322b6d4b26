"""What the losses share: reading the embeddings, drawing from them, and averaging over the items that are present."""

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from ..distributions import VonMisesFisher
from ..ops.vmf_sample import vmf_sample

Embeddings = Mapping[str, Tensor | VonMisesFisher]
Present = Mapping[str, Tensor] | None


def check_embeddings(loss: str, embeddings: Embeddings, present: Present) -> None:
    """At least two modalities of one batch size and dimension; masks of shape (batch,).

    Raises:
        ValueError: naming the modality, what was expected and what came.
    """
    if len(embeddings) < 2:
        raise ValueError(f"{loss}: embeddings: expected at least two modalities, got {list(embeddings)}")
    shapes = {name: tuple(e.loc.shape if isinstance(e, VonMisesFisher) else e.shape) for name, e in embeddings.items()}
    first_name, first = next(iter(shapes.items()))
    for name, shape in shapes.items():
        if len(shape) != 2:
            raise ValueError(f"{loss}: {name}: expected embeddings of shape (batch, d), got {shape}")
        if shape != first:
            raise ValueError(f"{loss}: {name}: expected shape {first} as {first_name}, got {shape}")
    for name, mask in (present or {}).items():
        if name not in embeddings:
            raise ValueError(f"{loss}: present: expected modalities among {list(embeddings)}, got {name!r}")
        if mask.dtype != torch.bool or mask.shape != first[:1]:
            raise ValueError(f"{loss}: present[{name!r}]: expected bool of shape {first[:1]}, got {mask.dtype} {tuple(mask.shape)}")


def draw(embeddings: Embeddings, n_samples: int) -> Tensor:
    """(S, batch, n_samples, d) draws, in at least float32; a plain tensor is normalised and counts as the point mass there."""
    laws = list(embeddings.values())
    if all(isinstance(law, VonMisesFisher) for law in laws):
        loc = torch.stack([_direction(law.loc) for law in laws])
        kappa = torch.stack([_at_least_float32(law.concentration) for law in laws])
        return vmf_sample(loc, kappa, n_samples)
    return torch.stack([_draw_one(law, n_samples) for law in laws])


def points(embeddings: Embeddings) -> Tensor:
    """(S, batch, d) unit vectors, in at least float32: a tensor is normalised, a distribution counts as its mean direction."""
    return torch.stack([_direction(e.loc) if isinstance(e, VonMisesFisher) else _unit(e) for e in embeddings.values()])


def _draw_one(law: Tensor | VonMisesFisher, n_samples: int) -> Tensor:
    if isinstance(law, VonMisesFisher):
        return vmf_sample(_direction(law.loc), _at_least_float32(law.concentration), n_samples)
    return _unit(law)[:, None].expand(-1, n_samples, -1)


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(_at_least_float32(x), dim=-1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _direction(loc: Tensor) -> Tensor:
    """A half vector is unit only to three digits."""
    return loc if loc.dtype in (torch.float32, torch.float64) else torch.nn.functional.normalize(loc.float(), dim=-1)


def index_pairs(embeddings: Embeddings) -> list[tuple[int, int]]:
    return list(combinations(range(len(embeddings)), 2))


def both_present(embeddings: Embeddings, present: Present, i: int, j: int) -> Tensor | None:
    """Items (batch,) that have modalities i and j; None for all."""
    names = list(embeddings)
    masks = [present[names[k]] for k in (i, j) if present and names[k] in present]
    return torch.stack(masks).all(0) if masks else None


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (batch,) over the mask; 0 where it is empty. Without a host read."""
    if mask is None:
        return values.mean()
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
