"""Spherical sliced Wasserstein distances: points are projected on great circles, where the distance is exact."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._checks import check_floating, check_min_dim, compute_dtype
from .._library import op
from . import circular_projection  # noqa: F401  defines the op
from .circular_wasserstein import batch_shape, wasserstein
from .great_circles import great_circles, orthonormal_frames


def sliced_wasserstein_sphere(
    x: Tensor,
    y: Tensor,
    n_projections: int = 100,
    *,
    p: float = 1,
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    projections: Tensor | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Spherical sliced Wasserstein distance, :math:`SSW_p=(E_U W_p^p(P^U x, P^U y))^{1/p}` over random great circles U (Bonet et al.,
    ICLR 2023).

    One matrix product projects all points, each circle's distance is exact (`circular_wasserstein`), and every pair of sets sees the same
    circles. The gradient
    in a point holds :math:`1/|U'x|^2`, whose mean over U is infinite: it is unbiased but heavy-tailed.

    Args:
        x, y: unit vectors (..., n, d) and (..., m, d); the batch dimensions broadcast.
        n_projections: number of circles, when `projections` is not given.
        p: 1, the only order in this version.
        x_weights, y_weights: nonnegative, broadcastable to (..., n) and (..., m); each row is divided by its sum. Default uniform.
        projections: (P, d, 2), planes to use instead of random ones; only their span counts. No gradient flows to them.
        generator: source of the circles; default torch's own for the device.
        seed: fixes the circles, the same on every device and for every dtype.
        backend: None for the fastest, or "reference", "cpu", "cuda", "triton".

    Returns:
        Distances (...), in turns; at most 1/2. Differentiable once in points and weights.

    Raises:
        ValueError: on wrong shapes, dtypes, devices, p, and as `circular_wasserstein` on weights.
        RuntimeError: if the backend was not built.
    """
    name = "sliced_wasserstein_sphere"
    dtype = check_floating(name, x=x, y=y, x_weights=x_weights, y_weights=y_weights)
    check_min_dim(name, x=(x, 2), y=(y, 2))
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"{name}: y: expected vectors of dimension {x.shape[-1]} as x, got shape {tuple(y.shape)}")
    batch = batch_shape(name, x.shape[:-2], y.shape[:-2])
    frames = _frames(name, n_projections, x, projections, generator, seed)
    u, v = (angles(z, frames, backend) for z in (x, y))                                      # (..., n, P), (..., m, P)
    u, v = (t.expand(*batch, *t.shape[-2:]) for t in (u, v))
    return wasserstein(name, u, v, x_weights, y_weights, p=p, backend=backend).mean(-1).to(dtype)


def sliced_wasserstein_sphere_pairs(
    sets: Tensor,
    pairs: Sequence[tuple[int, int]],
    n_projections: int = 100,
    *,
    p: float = 1,
    projections: Tensor | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""`sliced_wasserstein_sphere` between pairs of several sets; every set is projected once, however many pairs it is in.

    Args:
        sets: unit vectors (S, ..., n, d).
        pairs: index pairs (i, j) into the first dimension.
        n_projections, p, projections, generator, seed, backend: as in `sliced_wasserstein_sphere`.

    Returns:
        (len(pairs), ...): row k holds the distances between sets[i] and sets[j], pairs[k] = (i, j).

    Raises:
        ValueError: on wrong shapes, dtypes, p, or an index out of range.
    """
    name = "sliced_wasserstein_sphere_pairs"
    dtype = check_floating(name, sets=sets)
    check_min_dim(name, sets=(sets, 3))
    S = sets.shape[0]
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(i, int) and -S <= i < S for i in pair):
            raise ValueError(f"{name}: pairs: expected pairs of indices below {S}, got {pair!r}")
    if not pairs:
        return sets.new_empty(0, *sets.shape[1:-2])
    frames = _frames(name, n_projections, sets, projections, generator, seed)
    theta = angles(sets, frames, backend).unbind()                                           # S of (..., n, P)
    distances = [wasserstein(name, theta[i], theta[j], None, None, p=p, backend=backend).mean(-1) for i, j in pairs]
    return torch.stack(distances).to(dtype)


def angles(x: Tensor, frames: Tensor, backend: str | None) -> Tensor:
    """Angles in turns, (..., n, P), of the points (..., n, d) projected on the planes (d, 2P), first axes first."""
    xy = (x.to(frames.dtype).reshape(-1, x.shape[-1]) @ frames).contiguous()                 # (R, 2P)
    return op("circular_projection", backend, x)(xy).reshape(*x.shape[:-1], frames.shape[1] // 2)


def _frames(
    function: str, n: int, like: Tensor, projections: Tensor | None, generator: torch.Generator | None, seed: int | None
) -> Tensor:
    """(d, 2P): the first axes of all planes, then the second ones."""
    d, dtype = like.shape[-1], compute_dtype(like.dtype)
    if sum(source is not None for source in (projections, generator, seed)) > 1:
        raise ValueError(f"{function}: expected at most one of projections, generator and seed")
    if projections is None:
        if d < 2:
            raise ValueError(f"{function}: expected vectors of dimension >= 2, got {d}")
        device = like.device
        if seed is not None:  # on the CPU, so that every device gets the same circles
            generator, device = torch.Generator().manual_seed(seed), torch.device("cpu")
        frames = great_circles(n, d, generator=generator, device=device, dtype=dtype).to(like.device)
    else:
        if projections.dim() != 3 or tuple(projections.shape[1:]) != (d, 2) or not projections.shape[0]:
            raise ValueError(f"{function}: projections: expected shape (P, {d}, 2), got {tuple(projections.shape)}")
        if projections.device != like.device:
            raise ValueError(f"{function}: projections: expected device {like.device}, got {projections.device}")
        frames = orthonormal_frames(projections.detach().to(dtype))
    return frames.permute(1, 2, 0).reshape(d, -1)
