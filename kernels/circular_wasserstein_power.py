"""Wasserstein-p on the circle, p > 1; csrc/circular_wasserstein_power.h has the arrays and the formulas.

A point is one int64, its position in turns above its index, so that a sort of plain keys carries the index along. What is looked up by
index lies in a workspace. A place on the circle of levels is a pair: whole turns, and the index within one. Pieces come in two kinds, those
that end at a level of x and those that end at a level of y; those of one kind that belong to a point of the other set are neighbours, so
that running sums add them up.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import _circular_power_large as large
from ._circular_power import WEIGHT_UNIT, begin_of, climb_to, holder, point_at, power, power_slope, rise_at
from ._launch import check, launch
from ._sort import sort

MOST_SORTED = 1024  # of a set, in registers; beyond, the library sorts
INDEX_BITS, INDEX = tl.constexpr(10), tl.constexpr((1 << 10) - 1)
POSITION_UNIT = tl.constexpr(1 << 53)  # 63 bits less those of the index


@triton.jit
def _load(points_ptr, base, live, n, P, ROWS: tl.constexpr, BITS: tl.constexpr):
    """Sorted positions [R, K], their indices, and 0, or NaN where a point is no number [R]."""
    i = tl.arange(0, 1 << BITS)[None, :]
    x = tl.load(points_ptr + base + i.to(tl.int64) * P, mask=live & (i < n), other=0.0).to(tl.float64)
    t = x - tl.floor(x)
    t = tl.where(t < 1.0, t, 0.0)                                                            # also for NaN
    key = tl.where(i < n, ((t * POSITION_UNIT).to(tl.int64) << INDEX_BITS) | i, 0x7FFFFFFFFFFFFFFF)
    key = sort(key, i, ROWS, BITS, 1)
    return (key >> INDEX_BITS).to(tl.float64) * (1.0 / POSITION_UNIT), (key & INDEX).to(tl.int32), tl.sum(x - x, 1)


@triton.jit
def _levels(weights_ptr, base, live, order, n, step, WEIGHTED: tl.constexpr, BITS: tl.constexpr):
    """The mass up to and with each sorted point [R, K]; rounding's rest goes to the last weight; 0, or NaN where weights are none [R]."""
    if WEIGHTED:
        inside = live & (tl.arange(0, 1 << BITS)[None, :] < n)
        w = tl.load(weights_ptr + base + order, mask=inside, other=0.0).to(tl.float64)
        total = tl.sum(w, 1)
        bad = tl.sum(tl.where(w >= 0.0, 0.0, float("nan")), 1) + (total - total)
        bad = tl.where(total > 0.0, bad, float("nan"))
        unit = WEIGHT_UNIT / tl.where(total > 0.0, total, 1.0)
        level = tl.cumsum(tl.where(bad[:, None] == 0.0, w * unit[:, None], 0.0).to(tl.int64), 1)
        return tl.where(level == tl.max(level, 1)[:, None], WEIGHT_UNIT, level), bad
    else:
        level = (tl.arange(0, 1 << BITS)[None, :].to(tl.int64) + 1) * step + tl.zeros_like(order)
        return level, tl.sum(tl.zeros_like(order), 1).to(tl.float64)


@triton.jit(do_not_specialize=["problems", "n", "m", "P", "turn", "x_step", "y_step"])
def _forward(
    u_ptr, v_ptr, u_weights_ptr, v_weights_ptr, distance_ptr, u_slope_ptr, v_slope_ptr, u_potential_ptr, v_potential_ptr,
    real_ptr, whole_ptr, problems, n, m, P, turn, x_step, y_step,
    ORDER: tl.constexpr, WEIGHTED: tl.constexpr, U_BITS: tl.constexpr, V_BITS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """ROWS problems a program. The workspace: real (problems, 2 (n + m)), the sorted positions and running sums; whole (problems, n + m),
    the levels."""
    T: tl.constexpr = u_ptr.dtype.element_ty
    problem = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)                      # [R]
    live = (problem < problems)[:, None]                                                     # [R, 1]
    b, p = (problem // P)[:, None], (problem % P)[:, None]
    at_u, at_v = b * n * P + p, b * m * P + p
    turn, x_step, y_step = turn.to(tl.int64), x_step.to(tl.int64), y_step.to(tl.int64)
    i, j = tl.arange(0, 1 << U_BITS)[None, :], tl.arange(0, 1 << V_BITS)[None, :]
    in_x, in_y = live & (i < n), live & (j < m)
    zx_ptr = real_ptr + problem[:, None] * 2 * (n + m)
    zy_ptr, x_upto_ptr, y_upto_ptr = zx_ptr + n, zx_ptr + n + m, zx_ptr + 2 * n + m
    X_ptr = whole_ptr + problem[:, None] * (n + m)
    Y_ptr = X_ptr + n

    zx, x_order, bad = _load(u_ptr, at_u, live, n, P, ROWS, U_BITS)
    zy, y_order, bad_y = _load(v_ptr, at_v, live, m, P, ROWS, V_BITS)
    X, bad_a = _levels(u_weights_ptr, b * n, live, x_order, n, x_step, WEIGHTED, U_BITS)
    Y, bad_b = _levels(v_weights_ptr, b * m, live, y_order, m, y_step, WEIGHTED, V_BITS)
    bad += bad_y + bad_a + bad_b
    tl.store(zx_ptr + i, zx, mask=in_x)
    tl.store(zy_ptr + j, zy, mask=in_y)
    tl.store(X_ptr + i, X, mask=in_x)
    tl.store(Y_ptr + j, Y, mask=in_y)
    tl.debug_barrier()

    y_next = tl.load(zy_ptr + (j + 1) % m, mask=in_y, other=0.0) + tl.where(j + 1 < m, 0.0, 1.0)
    low = tl.zeros([ROWS], tl.int64) - turn
    high = tl.zeros([ROWS], tl.int64) + turn
    while tl.max(high - low, 0) > 0:
        middle = low + ((high - low) >> 1)
        rise, left, right = rise_at(zx_ptr, X_ptr, zy, y_next, Y + middle[:, None], live, in_y, turn, n, x_step, WEIGHTED, U_BITS, ORDER)
        open = low < high
        low, high = (
            tl.where(open & ~(rise >= 0.0), middle + right, low),
            tl.where(open & (rise >= 0.0), tl.maximum(middle - left, low), high),
        )
    cut = high[:, None]

    t = Y + cut
    x_begin = tl.load(X_ptr + i - 1, mask=in_x & (i > 0), other=0)
    t_begin = tl.load(Y_ptr + j - 1, mask=in_y & (j > 0), other=0) + cut
    j_turns, j_index = holder(Y_ptr, X - cut - 1, live, turn, m, y_step, WEIGHTED, V_BITS)  # y's partners at the levels of x
    i_turns, i_index = holder(X_ptr, t, live, turn, n, x_step, WEIGHTED, U_BITS)            # x's at those of y
    unit = 1.0 / turn.to(tl.float64)
    x_mass = (X - tl.maximum(x_begin, begin_of(Y_ptr, j_turns, j_index, live, turn) + cut)).to(tl.float64) * unit
    y_mass = (t - tl.maximum(t_begin, begin_of(X_ptr, i_turns, i_index, live, turn))).to(tl.float64) * unit
    dx, dy = zx - point_at(zy_ptr, j_turns, j_index, live), point_at(zx_ptr, i_turns, i_index, live) - zy
    cost = tl.sum(tl.where(in_x, x_mass * power(dx, ORDER), 0.0), 1) + tl.sum(tl.where(in_y, y_mass * power(dy, ORDER), 0.0), 1)
    if ORDER == 2.0:
        distance = tl.sqrt(cost)
    else:
        distance = power(cost, 1.0 / ORDER)
    scale = tl.where(distance > 0.0, 1.0 / power(tl.where(distance > 0.0, distance, 1.0), ORDER - 1.0), 0.0)[:, None]
    tl.store(distance_ptr + problem, (distance + bad).to(T), mask=problem < problems)

    x_flow = tl.where(in_x, x_mass * power_slope(dx, ORDER), 0.0)
    y_flow = tl.where(in_y, y_mass * power_slope(dy, ORDER), 0.0)
    tl.store(x_upto_ptr + i, tl.cumsum(x_flow, 1) - x_flow, mask=in_x)
    tl.store(y_upto_ptr + j, tl.cumsum(y_flow, 1) - y_flow, mask=in_y)
    tl.debug_barrier()
    y_upto = tl.load(y_upto_ptr + j_index, mask=live, other=0.0) + j_turns.to(tl.float64) * tl.sum(y_flow, 1)[:, None]
    x_upto = tl.load(x_upto_ptr + i_index, mask=live, other=0.0) + i_turns.to(tl.float64) * tl.sum(x_flow, 1)[:, None]
    tl.debug_barrier()
    tl.store(x_upto_ptr + i, y_upto, mask=in_x)
    tl.store(y_upto_ptr + j, x_upto, mask=in_y)
    tl.debug_barrier()
    y_before = tl.load(x_upto_ptr + (i + n - 1) % n, mask=in_x, other=0.0) - tl.where(i > 0, 0.0, tl.sum(y_flow, 1)[:, None])
    x_before = tl.load(y_upto_ptr + (j + m - 1) % m, mask=in_y, other=0.0) - tl.where(j > 0, 0.0, tl.sum(x_flow, 1)[:, None])
    u_at, v_at = at_u + x_order.to(tl.int64) * P, at_v + y_order.to(tl.int64) * P
    tl.store(u_slope_ptr + u_at, ((x_flow + y_upto - y_before) * scale + bad[:, None]).to(T), mask=in_x)
    tl.store(v_slope_ptr + v_at, (bad[:, None] - (y_flow + x_upto - x_before) * scale).to(T), mask=in_y)

    if WEIGHTED:
        after, left, right = rise_at(zx_ptr, X_ptr, zy, y_next, t, live, in_y, turn, n, x_step, WEIGHTED, U_BITS, ORDER)
        before, left, right = rise_at(zx_ptr, X_ptr, zy, y_next, t - 1, live, in_y, turn, n, x_step, WEIGHTED, U_BITS, ORDER)
        share = tl.where(after > before, -before / tl.where(after > before, after - before, 1.0), 0.5)[:, None]
        here = tl.load(zx_ptr + i - 1, mask=in_x & (i > 0), other=0.0)
        climb = climb_to(zx, here, zy_ptr, Y_ptr, x_begin - cut - 1, live, share, turn, m, y_step, 1, WEIGHTED, V_BITS, ORDER)
        climb = tl.cumsum(tl.where(i > 0, climb, 0.0), 1) * (scale * (1.0 / ORDER))
        tl.store(u_potential_ptr + u_at, (climb + bad[:, None]).to(T), mask=in_x)
        here = tl.load(zy_ptr + j - 1, mask=in_y & (j > 0), other=0.0)
        climb = climb_to(zy, here, zx_ptr, X_ptr, t_begin, live, share, turn, n, x_step, -1, WEIGHTED, U_BITS, ORDER)
        climb = tl.cumsum(tl.where(j > 0, climb, 0.0), 1) * (scale * (1.0 / ORDER))
        tl.store(v_potential_ptr + v_at, (climb + bad[:, None]).to(T), mask=in_y)


def circular_wasserstein_power(
    u: Tensor, v: Tensor, u_weights: Tensor | None, v_weights: Tensor | None, p: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    name = "circular_wasserstein_power"
    check(u.dim() == v.dim() == 3 and u.shape[::2] == v.shape[::2], f"{name}: expected u (B, n, P) and v (B, m, P)")
    check(u.dtype == v.dtype, f"{name}: expected u and v of one dtype")
    check((u_weights is None) == (v_weights is None), f"{name}: expected both weights or neither")
    check(1 < p < math.inf, f"{name}: expected a finite p > 1, got {p}")
    (B, n, P), m, weighted = u.shape, v.shape[1], u_weights is not None
    check(n > 0 and m > 0, f"{name}: expected at least one point in each set")
    u, v = u.contiguous(), v.contiguous()
    distance, u_slope, v_slope = u.new_empty(B, P), torch.empty_like(u), torch.empty_like(v)
    if weighted:
        check(u_weights.shape == (B, n) and v_weights.shape == (B, m), f"{name}: expected weights of shapes (B, n) and (B, m)")
        check(u_weights.dtype == v_weights.dtype == u.dtype, f"{name}: expected points and weights of one dtype")
        weights, potentials = (u_weights.contiguous(), v_weights.contiguous()), (torch.empty_like(u), torch.empty_like(v))
    else:
        weights, potentials = (u, v), (u.new_empty(0), v.new_empty(0))
    turn = WEIGHT_UNIT.value if weighted else math.lcm(n, m)
    results = distance, u_slope, v_slope, *potentials
    if max(n, m) > MOST_SORTED:
        large.solve(u, v, weights, weighted, results, turn, float(p))
        return results
    u_bits, v_bits = max(1, (n - 1).bit_length()), max(1, (m - 1).bit_length())
    most = max(u_bits, v_bits)
    rows = max(1, 256 >> most)  # of the points alone, so that a problem's result does not depend on its neighbours
    workspace = u.new_empty(B * P, 2 * (n + m), dtype=torch.float64), u.new_empty(B * P, n + m, dtype=torch.int64)
    launch(
        _forward, triton.cdiv(B * P, rows), u, v, *weights, *results, *workspace,
        B * P, n, m, P, turn, turn // n, turn // m,
        ORDER=float(p), WEIGHTED=weighted, U_BITS=u_bits, V_BITS=v_bits, ROWS=rows, num_warps=max(4, (1 << most) >> 7),
    )  # fmt: skip
    return results
