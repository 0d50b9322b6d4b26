"""Spherical sliced Wasserstein distances: points are projected on great circles, where the distance is exact."""

import math
from collections.abc import Sequence
from functools import partial
from operator import index
from typing import Any

import torch
from torch import Tensor

from .._checks import check_floating, check_min_dim, shares
from .._library import define, op
from .._linalg import matmul
from .._seed import take_or_draw
from ..reference.sliced_wasserstein import sliced_wasserstein as _reference
from ..reference.sliced_wasserstein import sliced_wasserstein_backward as _reference_backward
from . import circular_projection  # noqa: F401  defines the op
from .circular_uniform import check_uniform_order, wasserstein_to_uniform
from .circular_wasserstein import batch_shape, both_shares, check_order, wasserstein
from .great_circles import great_circles, orthonormal_frames

MAX_FUSED = 128  # points a set that go from coordinates to distances in one kernel


def sliced_wasserstein_sphere(
    x: Tensor,
    y: Tensor,
    n_projections: int = 100,
    *,
    p: float = 1,
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    projections: Tensor | None = None,
    max_grad: float | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Spherical sliced Wasserstein distance, :math:`SSW_p=(E_U W_p^p(P^U x, P^U y))^{1/p}` over random great circles U (Bonet et al.,
    ICLR 2023).

    One matrix product projects all points, each circle's distance is exact (`circular_wasserstein`), and every pair of sets sees the
    same circles.

    The angle of a projected point turns by :math:`1/(2\pi|U'x|)` a unit of length. :math:`E|U'x|^{-2}` is infinite, and so is the
    variance of the gradient in a point, which is nonetheless unbiased. `max_grad` bounds the factor, at the price of a bias: at
    :math:`c\sqrt d` it touches a share of about :math:`1/(8\pi^2c^2)` of the projections (1.3% at c = 1), those nearest to 0.

    Args:
        x, y: unit vectors (..., n, d) and (..., m, d); the batch dimensions broadcast.
        n_projections: number of circles, when `projections` is not given.
        p: the order, a number in [1, 32].
        x_weights, y_weights: nonnegative, broadcastable to (..., n) and (..., m); each row is divided by its sum. Default uniform.
        projections: (P, d, 2), planes to use instead of random ones; only their span counts. No gradient flows to them.
        max_grad: bound on the derivative of a point's angle, in turns per unit of length, in the backward pass alone. Default none.
        generator: source of the circles, on the device of x; default torch's own for the device.
        seed: fixes the circles, the same on every device and for every dtype; they are drawn on the CPU and copied, which neither a CUDA
            graph nor torch.compile(fullgraph=True) can capture: they take `projections`.
        backend: None for the fastest, or "reference", "cpu", "cuda", "triton".

    Returns:
        Distances (...), in turns; at most 1/2. Differentiable once in points and weights. With given circles the result is the same alone
        or in a batch, to the rounding of the matrix product.

    Raises:
        ValueError: on wrong shapes, dtypes, devices, p, max_grad, and as `circular_wasserstein` on weights.
        RuntimeError: if the backend was not built.
    """
    name = "sliced_wasserstein_sphere"
    dtype = check_floating(name, x=x, y=y, x_weights=x_weights, y_weights=y_weights)
    check_min_dim(name, x=(x, 2), y=(y, 2))
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"{name}: y: expected vectors of dimension {x.shape[-1]} as x, got shape {tuple(y.shape)}")
    batch = batch_shape(name, x.shape[:-2], y.shape[:-2])
    frames = _frames(name, n_projections, x, projections, generator, seed)
    check_max_grad(name, max_grad)
    if p == 1 and x_weights is y_weights is None and x.shape[-2] == y.shape[-2] and 0 < x.shape[-2] <= MAX_FUSED:
        u, v = (coordinates(z, frames).expand(*batch, -1, -1) for z in (x, y))               # (..., n, 2P)
        return fused(u, v, max_grad, backend).mean(-1).to(dtype)
    u, v = (angles(name, z, frames, max_grad, backend) for z in (x, y))                      # (..., n, P), (..., m, P)
    u, v = (t.expand(*batch, *t.shape[-2:]) for t in (u, v))
    weights = both_shares(name, u, v, x_weights=x_weights, y_weights=y_weights)
    return power_mean(wasserstein(name, u, v, *weights, p=p, backend=backend), p).to(dtype)


def sliced_wasserstein_sphere_pairs(
    sets: Tensor,
    pairs: Sequence[tuple[int, int]],
    n_projections: int = 100,
    *,
    p: float = 1,
    weights: Tensor | None = None,
    projections: Tensor | None = None,
    max_grad: float | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""`sliced_wasserstein_sphere` between pairs of several sets; every set is projected once, however many pairs it is in.

    Args:
        sets: unit vectors (S, ..., n, d).
        pairs: index pairs (i, j) into the first dimension.
        weights: nonnegative, broadcastable to (S, ..., n); each row is divided by its sum. Default uniform.
        n_projections, p, projections, max_grad, generator, seed, backend: as in `sliced_wasserstein_sphere`.

    Returns:
        (len(pairs), ...): row k holds the distances between sets[i] and sets[j], pairs[k] = (i, j).

    Raises:
        ValueError: on wrong shapes, dtypes, p, max_grad, weights, or an index out of range.
    """
    name = "sliced_wasserstein_sphere_pairs"
    dtype = check_floating(name, sets=sets, weights=weights)
    check_min_dim(name, sets=(sets, 3))
    check_order(name, p)
    S = sets.shape[0]
    try:
        pairs = [(index(i), index(j)) for i, j in pairs]
    except (TypeError, ValueError):
        raise ValueError(f"{name}: pairs: expected pairs of indices below {S}, got {pairs!r}") from None
    for pair in pairs:
        if not all(-S <= i < S for i in pair):
            raise ValueError(f"{name}: pairs: expected pairs of indices below {S}, got {pair!r}")
    if not pairs:
        return sets.new_empty(0, *sets.shape[1:-2])
    frames = _frames(name, n_projections, sets, projections, generator, seed)
    check_max_grad(name, max_grad)
    one_pass = p == 1 and weights is None and 0 < sets.shape[-2] <= MAX_FUSED
    projected = coordinates(sets, frames) if one_pass else angles(name, sets, frames, max_grad, backend)
    w = None if weights is None else shares(name, "weights", weights, projected).unbind()    # S of (..., n)
    projected = projected.unbind()                                                           # S of (..., n, 2P) or (..., n, P)
    # As many pairs at a time as take no more memory than the projected points themselves.
    chunk, distances = max(1, S // 2), []
    for start in range(0, len(pairs), chunk):
        ends = list(zip(*pairs[start : start + chunk], strict=True))
        u, v = (_stack([projected[i] for i in end]) for end in ends)                         # (chunk, ..., n, P or 2P)
        if one_pass:
            distances.append(fused(u, v, max_grad, backend).mean(-1))
            continue
        a, b = (None if w is None else _stack([w[i] for i in end]) for end in ends)
        distances.append(power_mean(wasserstein(name, u, v, a, b, p=p, backend=backend), p))
    return torch.cat(distances).to(dtype)


def _stack(tensors: list[Tensor]) -> Tensor:
    """torch.stack, without a copy where there is one."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)


def sliced_wasserstein_sphere_uniform(
    x: Tensor,
    n_projections: int = 100,
    *,
    p: float = 2,
    x_weights: Tensor | None = None,
    projections: Tensor | None = None,
    max_grad: float | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""`sliced_wasserstein_sphere` between points and the uniform law of the sphere, whose projections are uniform on the circles, in
    closed form (Bonet et al., ICLR 2023): one sort a circle.

    With sorted angles :math:`t_i`, weights :math:`a_i` and :math:`r_i=t_i-\sum_{j<i}a_j-a_i/2`, the displacement of point i from the
    middle of its mass, :math:`W_2^2=\mathrm{Var}_a(r)+\sum a_i^3/12`, and :math:`W_1=\sum_i\int_{r_i-a_i/2}^{r_i+a_i/2}|t-M|dt` with M
    the median of these intervals.

    Args:
        x: unit vectors (..., n, d).
        p: 2 or 1; other orders have no closed form.
        x_weights: nonnegative, broadcastable to (..., n); each row is divided by its sum. Default uniform.
        n_projections, projections, max_grad, generator, seed, backend: as in `sliced_wasserstein_sphere`; the backend is that of the
            projection.

    Returns:
        Distances (...), in turns. Differentiable once in points and weights.

    Raises:
        ValueError: on wrong shapes, dtypes, devices, p, max_grad, and as `circular_wasserstein` on weights.
        RuntimeError: if the backend was not built.
    """
    name = "sliced_wasserstein_sphere_uniform"
    dtype = check_floating(name, x=x, x_weights=x_weights)
    check_min_dim(name, x=(x, 2))
    check_uniform_order(name, p)
    frames = _frames(name, n_projections, x, projections, generator, seed)
    u = angles(name, x, frames, max_grad, backend)                                           # (..., n, P)
    return power_mean(wasserstein_to_uniform(name, u, x_weights, p), p).to(dtype)


def power_mean(distances: Tensor, p: float) -> Tensor:
    """(mean of d^p)^(1/p) over the last dimension; gradient 0 where it is 0. In float64: d^p leaves float32's range."""
    if p == 1:
        return distances.mean(-1)
    return (torch.linalg.vector_norm(distances.double(), p, -1) / distances.shape[-1] ** (1 / p)).to(distances.dtype)


def check_max_grad(function: str, max_grad: float | None) -> None:
    if max_grad is not None and (isinstance(max_grad, bool) or not isinstance(max_grad, (int, float)) or not max_grad > 0):
        raise ValueError(f"{function}: max_grad: expected a positive number or None, got {max_grad!r}")


def coordinates(x: Tensor, frames: Tensor) -> Tensor:
    """(..., n, 2P): the points (..., n, d) projected on the planes (d, 2P), first axes first."""
    return matmul(x.to(frames.dtype).reshape(-1, x.shape[-1]), frames).reshape(*x.shape[:-1], frames.shape[1])


def fused(u: Tensor, v: Tensor, max_grad: float | None, backend: str | None) -> Tensor:
    """W_1 (..., P) of coordinates u, v (..., n, 2P), n <= MAX_FUSED, with uniform weights."""
    flat = (z.reshape(-1, *z.shape[-2:]) for z in (u, v))
    cost, _ = op("sliced_wasserstein", backend, u)(*flat, math.inf if max_grad is None else float(max_grad))
    return cost.reshape(*u.shape[:-2], u.shape[-1] // 2)


def angles(function: str, x: Tensor, frames: Tensor, max_grad: float | None, backend: str | None) -> Tensor:
    """Angles in turns, (..., n, P), of the points (..., n, d) projected on the planes (d, 2P), first axes first."""
    check_max_grad(function, max_grad)
    xy = coordinates(x, frames).reshape(-1, frames.shape[1]).contiguous()                    # (R, 2P)
    theta = op("circular_projection", backend, x)(xy)
    if max_grad is not None and torch.is_grad_enabled():
        fixed, radius = theta.detach(), torch.hypot(*xy.detach().chunk(2, -1))
        theta = fixed + (theta - fixed) * (2 * math.pi * max_grad * radius).clamp(max=1)     # the same value, less gradient
    return theta.reshape(*x.shape[:-1], frames.shape[1] // 2)


def _frames(
    function: str, n: int, like: Tensor, projections: Tensor | None, generator: torch.Generator | None, seed: int | None
) -> Tensor:
    """(d, 2P): the first axes of all planes, then the second ones."""
    d = like.shape[-1]
    if d < 2:
        raise ValueError(f"{function}: expected vectors of dimension >= 2, got {d}")
    frames = take_or_draw(function, n, like, (d, 2), projections, generator, seed, partial(great_circles, d=d))
    if projections is not None:
        frames = orthonormal_frames(frames)
    return frames.permute(1, 2, 0).reshape(d, -1)


def _setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    u, v, ctx.max_grad = inputs
    ctx.save_for_backward(*output, u, v)
    ctx.mark_non_differentiable(output[1])


def _backward(op: Any, ctx: Any, grad_cost: Tensor, _: Tensor) -> tuple:
    return *op("sliced_wasserstein_backward")(grad_cost, *ctx.saved_tensors, ctx.max_grad), None


define(
    "sliced_wasserstein_backward(Tensor grad_cost, Tensor cost, Tensor rises, Tensor u, Tensor v, float max_grad)"
    " -> (Tensor grad_u, Tensor grad_v)",
    reference=_reference_backward,
    fake=lambda grad_cost, cost, rises, u, v, max_grad: (u.new_empty(u.shape), v.new_empty(v.shape)),
)
define(
    "sliced_wasserstein(Tensor u, Tensor v, float max_grad) -> (Tensor cost, Tensor rises)",
    reference=_reference,
    fake=lambda u, v, max_grad: (
        u.new_empty(u.shape[0], u.shape[2] // 2),
        u.new_empty(u.shape[0], (2 * u.shape[1] + 7) // 8, u.shape[2] // 2, dtype=torch.uint8),
    ),
    backward=_backward,
    setup_context=_setup_context,
)
