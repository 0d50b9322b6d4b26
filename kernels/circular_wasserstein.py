"""Wasserstein-1 on the circle; csrc/circular_wasserstein.h has the arrays and the formulas.

Everything that decides is a whole number. A point is its position in turns above its index, so that a sort of plain keys carries the index
along and equal points have an order; levels are multiples of 1 / lcm(n, m), or of 2^-60 with weights, so that bisection finds the median
exactly.

With L_0 = 0 and no need for a point's neighbours, summation by parts turns sums over the gaps into sums over the points:
  sum_k d_k f(L_k) = f(L_N) + sum_k t_k (f(L_{k-1}) - f(L_k)),   L_{k-1} = L_k - (the weight of point k),
so that up to MOST_COUNTED points with uniform weights nothing is sorted: a point's level is counted, by comparing it with every other one.
Tiles are [K, R], K >= n + m points of each of R problems, which are neighbours in memory.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import _circular_large as large
from ._circular_large import WEIGHT_UNIT, sign
from ._launch import check, launch
from ._sort import sort
from .elementary import angle_turns

MOST_SORTED = 4096  # in registers; beyond, the library sorts
MOST_COUNTED = 64  # beyond, sorting takes less
ROWS = 8  # problems a program: 32 bytes of neighbours, whatever the batch, so that a result does not depend on it


@triton.jit
def _position(x, BITS: tl.constexpr):
    """x modulo 1 in units of 2^-BITS, rounded down; 0 where x is no number."""
    t = x - tl.floor(x)
    t = tl.where(t < 1.0, t, 0.0)
    return (t * (1 << BITS)).to(tl.uint32 if BITS < 32 else tl.int64)


@triton.jit
def _length_up_to(level, position, before, after, last, TURN: tl.constexpr):
    """How much of each circle has a level of at most `level` [R]; a turn is TURN."""
    change = (before <= level[None, :]).to(position.dtype) - (after <= level[None, :]).to(position.dtype)
    return tl.where(last <= level, TURN, 0).to(position.dtype) + tl.sum(position * change, 0)


@triton.jit
def _median(position, before, after, last, most, steps, TURN: tl.constexpr):
    """The smallest level with at least half the circle at or below it [R]; no level is larger in magnitude than `most` [R]."""
    low, high = -most, most
    for _ in range(steps):
        middle = low + ((high - low) >> 1)
        half = _length_up_to(middle, position, before, after, last, TURN) >= TURN // 2
        low, high = tl.where(half, low, middle + 1), tl.where(half, middle, high)
    return low


@triton.jit
def _points(ptr, P, mask, COORDINATES: tl.constexpr):
    """Points in turns, or the angles of points whose second coordinates lie P behind the first."""
    x = tl.load(ptr, mask=mask, other=0.0)
    if COORDINATES:
        x = angle_turns(x, tl.load(ptr + P, mask=mask, other=0.0))
    return x


@triton.jit(do_not_specialize=["problems", "n", "m", "P", "up", "down", "steps"])
def _count(
    u_ptr, v_ptr, cost_ptr, u_slope_ptr, v_slope_ptr, rises_ptr, problems, n, m, P, up, down, steps,
    COORDINATES: tl.constexpr, INDEX_BITS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Uniform weights: `up` for a point of u, -`down` for one of v. Keys have 32 bits, or 63 in float64; two turns are an int32.
    COORDINATES: sliced_wasserstein, with bits in the place of slopes."""
    T: tl.constexpr = u_ptr.dtype.element_ty
    BITS: tl.constexpr = 63 - INDEX_BITS if T == tl.float64 else 32 - INDEX_BITS if INDEX_BITS > 5 else 27
    TURN: tl.constexpr = 1 << BITS
    problem = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)                      # [R]
    live = problem < problems
    b, p = problem // P, problem % P
    pitch = 2 * P if COORDINATES else P
    u, v = b * n * pitch + p, b * m * pitch + p                                              # the problems' first points
    i = tl.arange(0, 1 << INDEX_BITS)[:, None]                                               # [K, 1]
    from_u, from_v = live[None, :] & (i < n), live[None, :] & (i >= n) & (i < n + m)         # [K, R]
    at_u, at_v = u[None, :] + i.to(tl.int64) * pitch, v[None, :] + (i - n).to(tl.int64) * pitch
    x = _points(u_ptr + at_u, P, from_u, COORDINATES) + _points(v_ptr + at_v, P, from_v, COORDINATES)
    bad = tl.sum(x - x, 0)                                                                   # NaN where a point is no number
    position = _position(x, BITS)
    key = (position << INDEX_BITS) | i.to(position.dtype)

    after = tl.zeros([1 << INDEX_BITS, ROWS], tl.int32)                                      # L_k, at each point's own place
    u_point, v_point = u_ptr + u, v_ptr + v
    for j in range(n):
        other = _position(_points(u_point, P, live, COORDINATES), BITS) << INDEX_BITS
        after += tl.where((other | j)[None, :] <= key, up, 0)
        u_point += pitch
    for j in range(m):
        other = _position(_points(v_point, P, live, COORDINATES), BITS) << INDEX_BITS
        after -= tl.where((other | (n + j))[None, :] <= key, down, 0)
        v_point += pitch
    before = after - tl.where(i < n, up, tl.where(i < n + m, -down, 0))                      # L_{k-1}

    position = position.to(tl.int64 if T == tl.float64 else tl.int32)
    M = _median(position, before, after, tl.zeros([ROWS], tl.int32), tl.zeros([ROWS], tl.int32) + up * n, steps, TURN)
    rise = tl.abs(before - M[None, :]) - tl.abs(after - M[None, :])
    unit = 1.0 / (up * n).to(T)
    if T == tl.float64:
        total = tl.abs(M) + tl.sum(position.to(T) * (1.0 / TURN) * rise, 0)
    else:  # whole numbers to the end
        total = (tl.abs(M).to(tl.int64) * TURN + tl.sum(position.to(tl.int64) * rise, 0)).to(T) * (1.0 / TURN)
    tl.store(cost_ptr + problem, total * unit + bad, mask=live)
    if COORDINATES:
        bits = tl.sum(tl.reshape((rise > 0).to(tl.int32) << (i & 7), [(1 << INDEX_BITS) // 8, 8, ROWS]), 1)
        byte = tl.arange(0, (1 << INDEX_BITS) // 8)[:, None]                                 # [K / 8, 1]
        bytes = (n + m + 7) // 8
        at = (b * bytes)[None, :] * P + byte * P + p[None, :]
        tl.store(rises_ptr + at, bits.to(tl.uint8), mask=live[None, :] & (byte < bytes))
    else:
        slope = rise.to(T) * unit + bad[None, :]
        tl.store(u_slope_ptr + at_u, slope, mask=from_u)
        tl.store(v_slope_ptr + at_v, slope, mask=from_v)


@triton.jit(do_not_specialize=["problems", "n", "m", "P", "up", "down", "steps"])
def _forward(
    u_ptr, v_ptr, u_weights_ptr, v_weights_ptr, cost_ptr, u_slope_ptr, v_slope_ptr, u_potential_ptr, v_potential_ptr,
    problems, n, m, P, up, down, steps, WEIGHTED: tl.constexpr, INDEX_BITS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Any weights, by sorting. What is written goes back where the points came from, in sorted order, so the stores are not coalesced."""
    T: tl.constexpr = u_ptr.dtype.element_ty
    K: tl.constexpr = 1 << INDEX_BITS
    POSITION_BITS: tl.constexpr = 63 - INDEX_BITS
    TURN: tl.constexpr = 1 << POSITION_BITS
    problem = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)                      # [R]
    live = (problem < problems)[None, :]                                                     # [1, R]
    b, p = (problem // P)[None, :], (problem % P)[None, :]
    i = tl.arange(0, K)[:, None]                                                             # [K, 1]
    at_u, at_v = (b * n + i) * P + p, (b * m + (i - n)) * P + p                              # [K, R]
    x = tl.load(u_ptr + at_u, mask=live & (i < n), other=0.0).to(tl.float64)
    x += tl.load(v_ptr + at_v, mask=live & (i >= n) & (i < n + m), other=0.0).to(tl.float64)
    bad = tl.sum(x - x, 0)                                                                   # NaN where a point is no number
    key = (_position(x, POSITION_BITS) << INDEX_BITS) | i
    key = sort(tl.where(i < n + m, key, 0x7FFFFFFFFFFFFFFF), i, 1, INDEX_BITS, ROWS)

    first = i == 0
    i = (key & (K - 1)).to(tl.int32)                                                         # the sorted points' indices
    position = key >> INDEX_BITS
    from_u, from_v = live & (i < n), live & (i >= n) & (i < n + m)
    if WEIGHTED:
        weight = tl.load(u_weights_ptr + b * n + i, mask=from_u, other=0.0).to(tl.float64)
        weight -= tl.load(v_weights_ptr + b * m + (i - n), mask=from_v, other=0.0).to(tl.float64)
        bad += tl.sum(weight - weight, 0)
        signed = (tl.where(weight - weight == 0.0, weight, 0.0) * WEIGHT_UNIT).to(tl.int64)
        unit = 1.0 / WEIGHT_UNIT
        most = tl.zeros([ROWS], tl.int64) + 2 * WEIGHT_UNIT                                  # sums pass 1 by rounding
    else:
        signed = tl.where(from_u, up, tl.where(from_v, -down, 0))
        unit = 1.0 / (up * n).to(tl.float64)
        most = tl.zeros([ROWS], tl.int32) + up * n
    after = tl.cumsum(signed, 0)                                                             # L_k
    last = tl.sum(signed, 0)                                                                 # L_N: 0, to rounding of the weights
    before = tl.where(first, last[None, :], after - signed)                                  # L_{k-1}
    M = _median(position, before, after, last, most, steps, TURN)
    median = M[None, :]

    t = position.to(tl.float64) * (1.0 / TURN)
    slope = (tl.abs(before - median) - tl.abs(after - median)).to(tl.float64) * unit
    cost = tl.abs(last - M).to(tl.float64) * unit + tl.sum(t * slope, 0)
    tl.store(cost_ptr + problem, (cost + bad).to(T), mask=problem < problems)
    at_u, at_v = (b * n + i) * P + p, (b * m + (i - n)) * P + p
    slope = (slope + bad[None, :]).to(T)
    tl.store(u_slope_ptr + at_u, slope, mask=from_u)
    tl.store(v_slope_ptr + at_v, slope, mask=from_v)

    if WEIGHTED:
        # The sign at the median's own gaps is the one with which all gaps times their signs sum to 0.
        below = _length_up_to(M - 1, position, before, after, last, TURN)
        up_to = _length_up_to(M, position, before, after, last, TURN)
        own = ((below - (TURN - up_to)).to(tl.float64) / (up_to - below).to(tl.float64))[None, :]
        up_to_t = sign(after, median, own)
        change = tl.where(first, 0.0, sign(before, median, own)) - up_to_t
        rise = bad[None, :] - (tl.cumsum(t * change, 0) + t * up_to_t)                        # over the gaps at or after t_k
        tl.store(u_potential_ptr + at_u, rise.to(T), mask=from_u)
        tl.store(v_potential_ptr + at_v, (-rise).to(T), mask=from_v)


def circular_wasserstein(
    u: Tensor, v: Tensor, u_weights: Tensor | None, v_weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    name = "circular_wasserstein"
    check(u.dim() == v.dim() == 3 and u.shape[::2] == v.shape[::2], f"{name}: expected u (B, n, P) and v (B, m, P)")
    check(u.dtype == v.dtype, f"{name}: expected u and v of one dtype")
    check((u_weights is None) == (v_weights is None), f"{name}: expected both weights or neither")
    (B, n, P), m, weighted = u.shape, v.shape[1], u_weights is not None
    check(n > 0 and m > 0, f"{name}: expected at least one point in each set")
    u, v = u.contiguous(), v.contiguous()
    cost, u_slope, v_slope = u.new_empty(B, P), torch.empty_like(u), torch.empty_like(v)
    if weighted:
        check(u_weights.shape == (B, n) and v_weights.shape == (B, m), f"{name}: expected weights of shapes (B, n) and (B, m)")
        check(u_weights.dtype == v_weights.dtype == u.dtype, f"{name}: expected points and weights of one dtype")
        weights, potentials = (u_weights.contiguous(), v_weights.contiguous()), (torch.empty_like(u), torch.empty_like(v))
    else:
        weights, potentials = (u, v), (u.new_empty(0), v.new_empty(0))
    index_bits = (n + m - 1).bit_length()
    up, down = m // math.gcd(n, m), n // math.gcd(n, m)
    if not weighted and n + m <= MOST_COUNTED:
        launch(
            _count, triton.cdiv(B * P, ROWS), u, v, cost, u_slope, v_slope, u, B * P, n, m, P, up, down, (2 * up * n).bit_length(),
            COORDINATES=False, INDEX_BITS=index_bits, ROWS=ROWS, num_warps=1,
        )  # fmt: skip
        return cost, u_slope, v_slope, *potentials
    if n + m > MOST_SORTED:
        large.solve(u, v, weights, weighted, (cost, u_slope, v_slope, *potentials), up, down)
        return cost, u_slope, v_slope, *potentials
    rows = max(1, min(ROWS, 2048 >> index_bits))
    launch(
        _forward, triton.cdiv(B * P, rows), u, v, *weights, cost, u_slope, v_slope, *potentials, B * P, n, m, P, up, down,
        (4 * WEIGHT_UNIT.value if weighted else 2 * up * n).bit_length(),
        WEIGHTED=weighted, INDEX_BITS=index_bits, ROWS=rows, num_warps=max(1, min(16, (rows << index_bits) >> 7)),
    )  # fmt: skip
    return cost, u_slope, v_slope, *potentials
