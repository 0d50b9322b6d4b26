"""Wasserstein-1 on the circle; csrc/circular_wasserstein.h has the arrays and the formulas.

Everything that decides is a whole number. A point is one int64, its position in turns above its index, so that a sort of plain keys
carries the index along; levels are multiples of 1/(n m), or of 2^-60 with weights, so that bisection finds the median exactly.

With L_0 = 0 and no need for a point's neighbours, summation by parts turns sums over the gaps into sums over the points:
  sum_k d_k f(L_k) = f(L_N) + sum_k t_k (f(L_{k-1}) - f(L_k)),   L_{k-1} = L_k - (the weight of point k).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, launch

MAX_POINTS = 4096  # what one program sorts in registers
WEIGHT_UNIT = tl.constexpr(1 << 60)


@triton.jit
def _exchange(key, ascending, ROWS: tl.constexpr, BITS: tl.constexpr, STRIDE: tl.constexpr):
    """Orders the pairs of keys that lie STRIDE apart; of whole numbers, a pair's sum less one is the other."""
    pairs = tl.reshape(key, [(ROWS << BITS) // (2 * STRIDE), 2, STRIDE])
    other = tl.reshape(tl.sum(pairs, 1, keep_dims=True) - pairs, key.shape)
    wants_less = ((tl.arange(0, 1 << BITS) & STRIDE) == 0)[None, :] == ascending
    return tl.where(wants_less == (key < other), key, other)


@triton.jit
def _sort(key, ROWS: tl.constexpr, BITS: tl.constexpr):
    """Ascending along the rows [R, 2^BITS], by the bitonic network."""
    lane = tl.arange(0, 1 << BITS)[None, :]
    for stage in tl.static_range(1, BITS + 1):
        for step in tl.static_range(stage):
            key = _exchange(key, (lane & (1 << stage)) == 0, ROWS, BITS, 1 << (stage - 1 - step))
    return key


@triton.jit
def _length_up_to(level, position, before, after, last, TURN: tl.constexpr):
    """How much of the circle has a level of at most `level`; a turn is TURN."""
    change = (before <= level[:, None]).to(tl.int64) - (after <= level[:, None]).to(tl.int64)
    return tl.where(last <= level, TURN, 0).to(tl.int64) + tl.sum(position * change, 1)


@triton.jit
def _sign(level, median, own):
    """Of level - median; `own` where they are equal."""
    return tl.where(level > median, 1.0, tl.where(level < median, -1.0, own))


@triton.jit(do_not_specialize=["n", "m", "P", "steps"])
def _forward(
    u_ptr, v_ptr, u_weights_ptr, v_weights_ptr, cost_ptr, u_slope_ptr, v_slope_ptr, u_potential_ptr, v_potential_ptr,
    problems, n, m, P, steps, WEIGHTED: tl.constexpr, INDEX_BITS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """ROWS problems a program."""
    T: tl.constexpr = u_ptr.dtype.element_ty
    BLOCK: tl.constexpr = 1 << INDEX_BITS
    POSITION_BITS: tl.constexpr = 63 - INDEX_BITS
    TURN: tl.constexpr = 1 << POSITION_BITS
    problem = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)                      # [R]
    live = (problem < problems)[:, None]                                                     # [R, 1]
    b, p = (problem // P)[:, None], (problem % P)[:, None]
    i = tl.arange(0, BLOCK)[None, :]                                                         # [1, K]
    at_u, at_v = (b * n + i) * P + p, (b * m + (i - n)) * P + p                              # [R, K]
    x = tl.load(u_ptr + at_u, mask=live & (i < n), other=0.0).to(tl.float64)
    x += tl.load(v_ptr + at_v, mask=live & (i >= n) & (i < n + m), other=0.0).to(tl.float64)
    bad = tl.sum(x - x, 1)                                                                   # NaN where a point is no number
    t = x - tl.floor(x)
    t = tl.where(t < 1.0, t, 0.0)                                                            # also for NaN
    key = ((t * TURN).to(tl.int64) << INDEX_BITS) | i
    key = _sort(tl.where(i < n + m, key, 0x7FFFFFFFFFFFFFFF), ROWS, INDEX_BITS)

    first = i == 0
    i = (key & (BLOCK - 1)).to(tl.int32)                                                     # the sorted points' indices
    position = key >> INDEX_BITS                                                             # in units of 1 / TURN
    from_u, from_v = live & (i < n), live & (i >= n) & (i < n + m)
    if WEIGHTED:
        weight = tl.load(u_weights_ptr + b * n + i, mask=from_u, other=0.0).to(tl.float64)
        weight -= tl.load(v_weights_ptr + b * m + (i - n), mask=from_v, other=0.0).to(tl.float64)
        bad += tl.sum(weight - weight, 1)
        signed = (tl.where(weight - weight == 0.0, weight, 0.0) * WEIGHT_UNIT).to(tl.int64)
        unit = 1.0 / WEIGHT_UNIT
        high = tl.zeros([ROWS], tl.int64) + 2 * WEIGHT_UNIT
    else:
        signed = tl.where(from_u, m, tl.where(from_v, -n, 0)).to(tl.int64)
        unit = 1.0 / (n.to(tl.float64) * m.to(tl.float64))
        high = tl.zeros([ROWS], tl.int64) + n.to(tl.int64) * m
    low = -high
    after = tl.cumsum(signed, 1)                                                             # L_k
    last = tl.sum(signed, 1)                                                                 # L_N: 0, to rounding of the weights
    before = tl.where(first, last[:, None], after - signed)                                  # L_{k-1}

    # The median: the smallest level with at least half the circle at or below it.
    for _ in range(steps):
        middle = low + ((high - low) >> 1)
        half = _length_up_to(middle, position, before, after, last, TURN) >= TURN // 2
        low, high = tl.where(half, low, middle + 1), tl.where(half, middle, high)
    median = low[:, None]

    t = position.to(tl.float64) * (1.0 / TURN)
    slope = (tl.abs(before - median) - tl.abs(after - median)).to(tl.float64) * unit
    cost = tl.abs(last - low).to(tl.float64) * unit + tl.sum(t * slope, 1)
    tl.store(cost_ptr + problem, (cost + bad).to(T), mask=problem < problems)
    at_u, at_v = (b * n + i) * P + p, (b * m + (i - n)) * P + p
    slope = (slope + bad[:, None]).to(T)
    tl.store(u_slope_ptr + at_u, slope, mask=from_u)
    tl.store(v_slope_ptr + at_v, slope, mask=from_v)

    if WEIGHTED:
        # The sign at the median's own gaps is the one with which all gaps times their signs sum to 0.
        below = _length_up_to(low - 1, position, before, after, last, TURN)
        up_to = _length_up_to(low, position, before, after, last, TURN)
        own = ((below - (TURN - up_to)).to(tl.float64) / (up_to - below).to(tl.float64))[:, None]
        sign = _sign(after, median, own)
        change = tl.where(first, 0.0, _sign(before, median, own)) - sign
        rise = bad[:, None] - (tl.cumsum(t * change, 1) + t * sign)                          # over the gaps at or after t_k
        tl.store(u_potential_ptr + at_u, rise.to(T), mask=from_u)
        tl.store(v_potential_ptr + at_v, (-rise).to(T), mask=from_v)


def serves(u: Tensor, v: Tensor, *_: Tensor | None) -> bool:
    """Whether the op's default may come here."""
    return u.shape[1] + v.shape[1] <= MAX_POINTS


def circular_wasserstein(
    u: Tensor, v: Tensor, u_weights: Tensor | None, v_weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    name = "circular_wasserstein"
    check(u.dim() == v.dim() == 3 and u.shape[::2] == v.shape[::2], f"{name}: expected u (B, n, P) and v (B, m, P)")
    check(u.dtype == v.dtype, f"{name}: expected u and v of one dtype")
    check((u_weights is None) == (v_weights is None), f"{name}: expected both weights or neither")
    (B, n, P), m, weighted = u.shape, v.shape[1], u_weights is not None
    check(n > 0 and m > 0, f"{name}: expected at least one point in each set")
    check(serves(u, v), f"{name}: Triton sorts up to {MAX_POINTS} points of both sets, got {n + m}: pass backend='reference'")
    u, v = u.contiguous(), v.contiguous()
    cost, u_slope, v_slope = u.new_empty(B, P), torch.empty_like(u), torch.empty_like(v)
    if weighted:
        check(u_weights.shape == (B, n) and v_weights.shape == (B, m), f"{name}: expected weights of shapes (B, n) and (B, m)")
        check(u_weights.dtype == v_weights.dtype == u.dtype, f"{name}: expected points and weights of one dtype")
        weights, potentials = (u_weights.contiguous(), v_weights.contiguous()), (torch.empty_like(u), torch.empty_like(v))
    else:
        weights, potentials = (u, v), (u.new_empty(0), v.new_empty(0))
    index_bits = (n + m - 1).bit_length()
    rows = max(1, 512 >> index_bits)  # of the points alone, so that a problem's result does not depend on its neighbours
    steps = (4 * WEIGHT_UNIT.value if weighted else 2 * n * m).bit_length()
    launch(
        _forward, triton.cdiv(B * P, rows), u, v, *weights, cost, u_slope, v_slope, *potentials, B * P, n, m, P, steps,
        WEIGHTED=weighted, INDEX_BITS=index_bits, ROWS=rows, num_warps=min(16, max(4, (1 << index_bits) >> 7)),
    )  # fmt: skip
    return cost, u_slope, v_slope, *potentials
