"""Wasserstein distance on the circle."""

import math
from typing import Any

import torch
from torch import Tensor

from .._checks import check_floating, check_min_dim, check_values, compute_dtype
from .._library import define, op
from ..reference.circular_wasserstein import circular_wasserstein as _reference
from . import circular_wasserstein_power  # noqa: F401  defines the op


def circular_wasserstein(
    u: Tensor,
    v: Tensor,
    *,
    p: float = 1,
    u_weights: Tensor | None = None,
    v_weights: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Exact :math:`W_p` on the circle :math:`R/Z` between the weighted points `u` and `v`, in units of the circumference: at most 1/2.

    p = 1: :math:`W_1=\sum_k d_k|L_k-M|` over the gaps :math:`d_k` between neighbouring points of both sets, the one that runs over 0
    included, with :math:`L_k` the weight of u minus that of v at or before gap k and M the median of L weighted by d (Rabin, Delon,
    Gousseau 2011; Hundrieser et al. 2022).

    p > 1: :math:`W_p^p=\min_\alpha\int_0^1|F^{-1}(s)-G^{-1}(s-\alpha)|^pds` over the cuts :math:`\alpha` of the circle, the quantile
    functions continued by :math:`F^{-1}(s+1)=F^{-1}(s)+1`. The integral is convex in :math:`\alpha`, and piecewise linear between the
    cuts at which a level of F meets one of G, so that bisection finds the best cut exactly (Delon, Salomon, Sobolevski 2010).

    Args:
        u, v: points in turns, (..., n) and (..., m), n, m >= 1; any real, taken modulo 1. The batch dimensions broadcast.
        p: the order, a number >= 1.
        u_weights, v_weights: nonnegative, broadcastable to `u` and `v`; each row is divided by its sum. Default uniform.
        backend: None for the fastest, or "reference", "cpu", "cuda", "triton".

    Returns:
        Distances (...); a NaN or an infinity makes its own entry NaN. Differentiable once in points and weights; where points coincide
        (p = 1) or the distance is 0 (p > 1, gradient 0) by a subgradient.

    Raises:
        ValueError: on wrong shapes, dtypes, devices, p and, on a CPU, negative or non-finite weights or a row of zeros.
        RuntimeError: if the backend was not built.
    """
    name = "circular_wasserstein"
    dtype = check_floating(name, u=u, v=v, u_weights=u_weights, v_weights=v_weights)
    check_min_dim(name, u=(u, 1), v=(v, 1))
    batch = batch_shape(name, u.shape[:-1], v.shape[:-1])
    u, v = (x.expand(*batch, x.shape[-1])[..., None] for x in (u, v))                        # (..., n, 1)
    weights = (u_weights, v_weights)
    return wasserstein(name, u.to(compute_dtype(dtype)), v.to(compute_dtype(dtype)), *weights, p=p, backend=backend)[..., 0].to(dtype)


def batch_shape(function: str, u: torch.Size, v: torch.Size) -> torch.Size:
    try:
        return torch.broadcast_shapes(u, v)
    except RuntimeError:
        raise ValueError(f"{function}: expected batch dimensions that broadcast, got {tuple(u)} and {tuple(v)}") from None


def wasserstein(
    function: str, u: Tensor, v: Tensor, u_weights: Tensor | None, v_weights: Tensor | None, *, p: float, backend: str | None
) -> Tensor:
    """W_p (..., P) of angles u (..., n, P), v (..., m, P) of one batch shape; weights broadcast to (..., n), (..., m) and are shared by
    the P circles."""
    check_order(function, p)
    *batch, n, P = u.shape
    m = v.shape[-2]
    if n == 0 or m == 0:
        raise ValueError(f"{function}: expected at least one point in each set, got {n} and {m}")
    if u_weights is not None or v_weights is not None:  # the op takes both or neither
        u_weights = normalised(function, "the first set's weights", u_weights, u)
        v_weights = normalised(function, "the second set's weights", v_weights, v)
    arguments = u.reshape(-1, n, P), v.reshape(-1, m, P), u_weights, v_weights
    if p == 1:
        distance, *_ = op("circular_wasserstein", backend, u)(*arguments)
    else:
        distance, *_ = op("circular_wasserstein_power", backend, u)(*arguments, float(p))
    return distance.reshape(*batch, P)


def check_order(function: str, p: float) -> None:
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 1 <= p < math.inf:
        raise ValueError(f"{function}: p: expected a number >= 1, got {p!r}")


def normalised(function: str, name: str, weights: Tensor | None, points: Tensor) -> Tensor:
    """(B, n) with rows of sum 1."""
    *batch, n, _ = points.shape
    if weights is None:
        return points.new_full((1, n), 1 / n).expand(batch_size(batch), n)
    check_values(function, name, weights, lambda w: (w >= 0) & w.isfinite(), "finite values >= 0")
    total = weights.sum(-1, dtype=points.dtype)
    check_values(function, name, total, lambda s: s > 0, "rows with a positive sum")
    check_values(function, name, total, torch.isfinite, "rows with a finite sum")
    try:
        weights = weights.to(points.dtype).expand(*batch, n)
    except RuntimeError:
        raise ValueError(f"{function}: {name}: expected a shape that broadcasts to {(*batch, n)}, got {tuple(weights.shape)}") from None
    return (weights / weights.sum(-1, keepdim=True)).reshape(-1, n)


def batch_size(batch: list[int]) -> int:
    size = 1
    for b in batch:
        size *= b
    return size


def _fake(u: Tensor, v: Tensor, u_weights: Tensor | None, v_weights: Tensor | None) -> tuple[Tensor, ...]:
    potentials = (u.new_empty(0), v.new_empty(0)) if u_weights is None else (u.new_empty(u.shape), v.new_empty(v.shape))
    return u.new_empty(u.shape[0], u.shape[2]), u.new_empty(u.shape), v.new_empty(v.shape), *potentials


def _setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(op: Any, ctx: Any, grad_cost: Tensor, *_: Tensor) -> tuple:
    grad, wanted = grad_cost[:, None], ctx.needs_input_grad                                  # (B, 1, P)
    u_slope, v_slope, u_potential, v_potential = ctx.saved_tensors
    points = (grad * slope if want else None for slope, want in zip((u_slope, v_slope), wanted[:2], strict=True))
    weights = ((grad * p).sum(-1) if want else None for p, want in zip((u_potential, v_potential), wanted[2:], strict=True))
    return *points, *weights


define(
    "circular_wasserstein(Tensor u, Tensor v, Tensor? u_weights, Tensor? v_weights)"
    " -> (Tensor cost, Tensor u_slope, Tensor v_slope, Tensor u_potential, Tensor v_potential)",
    reference=_reference,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
