"""Wasserstein-p on the circle, p > 1, in plain PyTorch: the definition that the kernels are tested against;
csrc/circular_wasserstein_power.h has the arrays and the formulas."""

import math

import torch
from torch import Tensor

WEIGHT_UNIT = 1 << 60  # weighted levels are whole multiples of its inverse


def circular_wasserstein_power(
    u: Tensor, v: Tensor, u_weights: Tensor | None, v_weights: Tensor | None, p: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    (B, n, P), m = u.shape, v.shape[1]
    turn = math.lcm(n, m) if u_weights is None else WEIGHT_UNIT
    x, by_x, bad_x = _sorted(u)                                                              # (B, P, n)
    y, by_y, bad_y = _sorted(v)                                                              # (B, P, m)
    X, bad_a = _levels(u_weights, by_x, turn)                                                # X_i, where the mass of point i ends
    Y, bad_b = _levels(v_weights, by_y, turn)
    bad = bad_x + bad_y + bad_a + bad_b                                                      # (B, P), 0 or NaN

    def c(d: Tensor) -> Tensor:
        return d.abs() ** p

    def slope(cut: Tensor) -> Tensor:
        """Of the cost, to the right of a cut (B, P): what changes hands where y's levels pass x's points."""
        x_there = _at(x, X, Y + cut[..., None], turn, right=True)
        y_next = torch.cat([y[..., 1:], 1 + y[..., :1]], -1)
        return (c(x_there - y) - c(x_there - y_next)).sum(-1)

    low, high = torch.full((2, B, P), turn, device=u.device).unbind()
    low = -low
    for _ in range((2 * turn).bit_length()):  # the least cut from which the cost no longer falls
        middle = (low + high) >> 1
        rises = slope(middle) >= 0
        low, high = torch.where(rises | (low == high), low, middle + 1), torch.where(rises, middle, high)
    cut = high[..., None]

    # Between two neighbouring levels of either set lies one piece, a stretch of mass that goes from one x to one y.
    ends = torch.cat([X, (Y + cut) % turn], -1).sort(-1).values                              # (B, P, n + m)
    length = torch.diff(ends, dim=-1, prepend=torch.zeros_like(cut)).double() / turn
    d = _at(x, X, ends, turn, right=False) - _at(y, Y, ends - cut, turn, right=False)
    distance = (length * c(d)).sum(-1) ** (1 / p)
    scale = torch.where(distance > 0, distance ** (1 - p), 0.0)[..., None]                   # d distance / d cost, times p
    flow = torch.nn.functional.pad((length * d.abs() ** (p - 1) * d.sign()).cumsum(-1), (1, 0))

    def upto(level: Tensor) -> Tensor:
        wraps = torch.div(level, turn, rounding_mode="floor")
        return flow.gather(-1, torch.searchsorted(ends, level - wraps * turn, right=True)) + wraps * flow[..., -1:]

    x_slope = torch.diff(upto(X), dim=-1, prepend=torch.zeros_like(distance)[..., None]) * scale
    y_slope = -torch.diff(upto(Y + cut), dim=-1, prepend=upto(cut)) * scale
    bad = bad[..., None]

    def unsort(values: Tensor, order: Tensor) -> Tensor:
        return torch.empty_like(values).scatter_(-1, order, values + bad).mT.to(u.dtype).contiguous()

    slopes = unsort(x_slope, by_x), unsort(y_slope, by_y)
    distance = (distance + bad[..., 0]).to(u.dtype)
    if u_weights is None:
        return distance, *slopes, u.new_empty(0), u.new_empty(0)

    # Potentials climb from point to point by the cost's change towards the partner. They close around the circle for no cut beside the
    # best one, but for that mixture of its two neighbours in which the cost neither rises nor falls.
    before, after = slope(cut[..., 0] - 1), slope(cut[..., 0])
    share = torch.where(after > before, -before / (after - before), 0.5)[..., None]          # of the cut itself; the rest is that before it

    def climb(z: Tensor, partner: Tensor) -> Tensor:
        return c(z[..., 1:] - partner[..., :-1]) - c(z[..., :-1] - partner[..., :-1])

    x_climb, y_climb = 0.0, 0.0
    for k, part in ((cut, share), (cut - 1, 1 - share)):
        x_climb += part * climb(x, _at(y, Y, X - k, turn, right=False))
        y_climb += part * climb(y, _at(x, X, Y + k, turn, right=True))
    potentials = (torch.nn.functional.pad(climb.cumsum(-1), (1, 0)) * scale / p for climb in (x_climb, y_climb))
    x_potential, y_potential = potentials
    return distance, *slopes, unsort(x_potential, by_x), unsort(y_potential, by_y)


def _sorted(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, n, P) to positions in turns (B, P, n), ascending, their indices, and 0, or NaN where one is not finite (B, P)."""
    t = z.mT.double()
    t = t - t.floor()
    bad = (t - t).sum(-1)
    return *torch.where(t < 1, t, 0.0).sort(dim=-1, stable=True), bad


def _levels(weights: Tensor | None, order: Tensor, turn: int) -> tuple[Tensor, Tensor]:
    """Whole numbers (B, P, n): the mass up to and with each point, of `turn`; and 0, or NaN where a weight is none (B, 1)."""
    n = order.shape[-1]
    if weights is None:
        steps = torch.full_like(order, turn // n)
        return steps.cumsum(-1), torch.zeros(1, 1, device=order.device)
    w = torch.where(weights >= 0, weights, math.nan).double()
    total = w.sum(-1, keepdim=True)
    w = w / total
    bad = (w - w).sum(-1, keepdim=True) + (total - total)                                    # of inf, too
    steps = (torch.where(w == w, w, 0.0) * turn).long()[:, None].expand(order.shape).gather(-1, order)
    level = steps.cumsum(-1)
    return torch.where(level == level[..., -1:], turn, level), bad                           # rounding's rest goes to the last weight


def _at(z: Tensor, Z: Tensor, level: Tensor, turn: int, right: bool) -> Tensor:
    """The point of z whose mass holds the level, on its right or its left side; from turn to turn they repeat, moved by one."""
    wraps = torch.div(level if right else level - 1, turn, rounding_mode="floor")
    index = torch.searchsorted(Z, level - wraps * turn, right=right)
    return z.gather(-1, index) + wraps
