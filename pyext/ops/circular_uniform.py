"""Wasserstein distance to the uniform law on the circle, in closed form."""

import torch
from torch import Tensor

from .._checks import shares


def check_uniform_order(function: str, p: float) -> None:
    if p not in (1, 2):
        raise ValueError(f"{function}: p: expected 1 or 2, the orders with a closed form, got {p!r}")


def wasserstein_to_uniform(function: str, u: Tensor, weights: Tensor | None, p: float) -> Tensor:
    """W_p (..., P), p 1 or 2, of angles u (..., n, P); weights broadcast to (..., n) and are shared by the P circles."""
    n = u.shape[-2]
    if n == 0:
        raise ValueError(f"{function}: expected at least one point")
    t, order = u.mT.sort(dim=-1)                                                             # (..., P, n)
    if weights is None:
        a = t.new_full((n,), 1 / n)
        middle = (torch.arange(n, dtype=t.dtype, device=t.device) + 0.5) / n
    else:
        a = shares(function, "x_weights", weights, u)[..., None, :].expand(t.shape).gather(-1, order)
        middle = a.cumsum(-1) - a / 2
    r = t - middle                                                                           # displacement of the middle of each mass
    if p == 2:
        centred = r - (a * r).sum(-1, keepdim=True)
        return ((a * centred * centred).sum(-1) + a.pow(3).sum(-1) / 12).sqrt()
    low, high, M = r - a / 2, r + a / 2, _median(r.detach(), a.detach())
    inside = (high - M).clamp(min=0).square() + (M - low).clamp(min=0).square()
    outside = (low - M).clamp(min=0).square() + (M - high).clamp(min=0).square()
    return (inside - outside).sum(-1) / 2


def _median(r: Tensor, a: Tensor) -> Tensor:
    """Where half the mass of the intervals [r - a/2, r + a/2], of density 1 each, lies below; (..., 1)."""
    ends, order = torch.cat([r - a / 2, r + a / 2], -1).sort(-1)
    n = r.shape[-1]
    cover = torch.where(order < n, 1.0, -1.0).to(r.dtype).cumsum(-1)                          # intervals over what follows an end
    mass = torch.nn.functional.pad((cover[..., :-1] * ends.diff(dim=-1)).cumsum(-1), (1, 0))
    k = (mass <= 0.5).sum(-1, keepdim=True).clamp(min=1, max=2 * n - 1) - 1                   # the last end with at most half below it
    start, below, density = (z.gather(-1, k) for z in (ends, mass, cover))
    return start + (0.5 - below) / density.clamp(min=1)
