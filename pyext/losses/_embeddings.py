"""What the losses share: reading the embeddings, drawing from them, and averaging over the items that are present."""

from collections.abc import Callable, Mapping
from itertools import combinations

import torch
from torch import Tensor

from ..distributions import VonMisesFisher
from ..ops.vmf_sample import vmf_sample

Embeddings = Mapping[str, Tensor | VonMisesFisher]
Present = Mapping[str, Tensor] | None
Sampler = Callable[..., Tensor]  # as vmf_sample: (loc, kappa, n_samples, seed=, offset=) -> (..., n_samples, d)


def check_embeddings(loss: str, embeddings: Embeddings, present: Present) -> Embeddings:
    """At least two modalities of one batch size and dimension; masks of shape (batch,). Returns the embeddings with absent items replaced
    by a constant: what is there must not reach a gradient, and 0 times a NaN is a NaN.

    Raises:
        ValueError: naming the modality, what was expected and what came.
    """
    check_kinds(loss, embeddings)
    if len(embeddings) < 2:
        raise ValueError(f"{loss}: embeddings: expected at least two modalities, got {list(embeddings)}")
    shapes = {name: tuple(e.loc.shape if isinstance(e, VonMisesFisher) else e.shape) for name, e in embeddings.items()}
    first_name, first = next(iter(shapes.items()))
    for name, shape in shapes.items():
        if len(shape) != 2 or not shape[0]:
            raise ValueError(f"{loss}: {name}: expected embeddings of shape (batch, d), batch >= 1, got {shape}")
        if shape != first:
            raise ValueError(f"{loss}: {name}: expected shape {first} as {first_name}, got {shape}")
    check_present(loss, list(embeddings), present, first[0])
    return {name: e if name not in (present or {}) else _without_absent(e, present[name]) for name, e in embeddings.items()}


def check_kinds(loss: str, embeddings: Embeddings) -> None:
    if not isinstance(embeddings, Mapping):
        raise ValueError(f"{loss}: embeddings: expected a mapping from the names of modalities, got {type(embeddings).__name__}")
    for name, e in embeddings.items():
        if not isinstance(e, VonMisesFisher) and not (isinstance(e, Tensor) and e.is_floating_point()):
            got = f"a tensor of {e.dtype}" if isinstance(e, Tensor) else type(e).__name__
            raise ValueError(f"{loss}: {name}: expected a tensor of a floating dtype or a VonMisesFisher, got {got}")


def check_present(loss: str, names: list[str], present: Present, batch: int) -> None:
    for name, mask in (present or {}).items():
        if name not in names:
            raise ValueError(f"{loss}: present: expected modalities among {names}, got {name!r}")
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (batch,):
            got = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"{loss}: present[{name!r}]: expected bool of shape ({batch},), got {got}")


def _without_absent(e: Tensor | VonMisesFisher, mask: Tensor) -> Tensor | VonMisesFisher:
    if isinstance(e, Tensor):
        return torch.where(mask[:, None], e, 1.0)
    loc, kappa = torch.where(mask[:, None], e.loc, e.dim**-0.5), torch.where(mask, e.concentration, 1.0)
    return VonMisesFisher(loc, kappa, validate_args=False)


def draw(embeddings: Embeddings, n_samples: int, seed: int | None = None, turn: int = 0, sampler: Sampler = vmf_sample) -> Tensor:
    """(S, batch, n_samples, d) draws, in at least float32; a plain tensor is normalised and counts as the point mass there.

    With a `seed` a draw depends on it, `turn`, and its place (modality, item, number) alone; without, on torch's own generator.
    """
    laws = list(embeddings.values())
    batch = len(laws[0] if isinstance(laws[0], Tensor) else laws[0].loc)
    first = 0 if seed is None else turn * len(laws) * batch * n_samples
    if all(isinstance(law, VonMisesFisher) for law in laws):
        loc = torch.stack([_direction(law.loc) for law in laws])
        kappa = torch.stack([at_least_float32(law.concentration) for law in laws])
        return sampler(loc, kappa, n_samples, seed=seed, offset=first)
    step = 0 if seed is None else batch * n_samples
    return torch.stack([_draw_one(law, n_samples, seed, first + s * step, sampler) for s, law in enumerate(laws)])


def circle_generator(seed: int | None, device: torch.device) -> torch.Generator | None:
    """The source of the great circles that go with a seed of the draws; not the same words, which on a GPU may be the same stream."""
    return None if seed is None else torch.Generator(device).manual_seed((int(seed) ^ 0x9E3779B97F4A7C15) % 2**63)


def points(embeddings: Embeddings) -> Tensor:
    """(S, batch, d) unit vectors, in at least float32: a tensor is normalised, a distribution counts as its mean direction."""
    return torch.stack([_direction(e.loc) if isinstance(e, VonMisesFisher) else _unit(e) for e in embeddings.values()])


def _draw_one(law: Tensor | VonMisesFisher, n_samples: int, seed: int | None, offset: int, sampler: Sampler) -> Tensor:
    if isinstance(law, VonMisesFisher):
        return sampler(_direction(law.loc), at_least_float32(law.concentration), n_samples, seed=seed, offset=offset)
    return _unit(law)[:, None].expand(-1, n_samples, -1)


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(at_least_float32(x), dim=-1)


def at_least_float32(x: Tensor) -> Tensor:
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
