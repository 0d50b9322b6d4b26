"""Wasserstein distance on the circle."""

from numbers import Real

import torch
from torch import Tensor

from .._checks import check_floating, check_min_dim, compute_dtype, shares
from .._library import define, op
from ..reference.circular_wasserstein import circular_wasserstein as _reference
from .circular_wasserstein_power import backward, fake, setup_context

MAX_ORDER = 32  # up to there float64 holds the powers of all distances above 1e-10


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
        p: the order, a number in [1, 32].
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
    u, v = u.to(compute_dtype(dtype)), v.to(compute_dtype(dtype))
    weights = both_shares(name, u, v, u_weights=u_weights, v_weights=v_weights)
    return wasserstein(name, u, v, *weights, p=p, backend=backend)[..., 0].to(dtype)


def batch_shape(function: str, u: torch.Size, v: torch.Size) -> torch.Size:
    try:
        return torch.broadcast_shapes(u, v)
    except RuntimeError:
        raise ValueError(f"{function}: expected batch dimensions that broadcast, got {tuple(u)} and {tuple(v)}") from None


def both_shares(function: str, u: Tensor, v: Tensor, **weights: Tensor | None) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Of the weights of u (..., n, P) and of v (..., m, P), by the names of their arguments: both or, where neither is given, neither."""
    if all(w is None for w in weights.values()):
        return None, None
    a, b = (shares(function, name, w, points) for (name, w), points in zip(weights.items(), (u, v), strict=True))
    return a, b


def wasserstein(function: str, u: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None, *, p: float, backend: str | None) -> Tensor:
    """W_p (..., P) of angles u (..., n, P), v (..., m, P) of one batch shape, with `both_shares` a (..., n), b (..., m), which the P
    circles share."""
    check_order(function, p)
    *batch, n, P = u.shape
    m = v.shape[-2]
    if n == 0 or m == 0:
        raise ValueError(f"{function}: expected at least one point in each set, got {n} and {m}")
    if a is not None:
        a, b = a.reshape(-1, n), b.reshape(-1, m)
    arguments = u.reshape(-1, n, P), v.reshape(-1, m, P), a, b
    if p == 1:
        distance, *_ = op("circular_wasserstein", backend, u)(*arguments)
    else:
        distance, *_ = op("circular_wasserstein_power", backend, u)(*arguments, float(p))
    return distance.reshape(*batch, P)


def check_order(function: str, p: float) -> None:
    if isinstance(p, bool) or not isinstance(p, Real) or not 1 <= p <= MAX_ORDER:
        raise ValueError(f"{function}: p: expected a number >= 1 and <= {MAX_ORDER}, got {p!r}")


define(
    "circular_wasserstein(Tensor u, Tensor v, Tensor? u_weights, Tensor? v_weights)"
    " -> (Tensor cost, Tensor u_slope, Tensor v_slope, Tensor u_potential, Tensor v_potential)",
    reference=_reference,
    fake=fake,
    backward=backward,
    setup_context=setup_context,
)
