"""Wasserstein-1 on the circle with more points than one program sorts; csrc/circular_wasserstein.h has the arrays and the formulas.

The library sorts each problem's positions, a row of whole numbers. Then all goes tile by tile: levels by sums within and over tiles,
the levels' median digit by digit from the length of the circle that each digit has, the cost, and what goes back to the points. Lengths are
whole numbers, so that the atomics that add them up leave nothing to chance.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import launch
from ._tiles import TILE, WARPS, parts, place, positions, sum_of_tiles, tiles_of

WEIGHT_UNIT = tl.constexpr(1 << 60)
DIGIT_BITS = tl.constexpr(8)
DIGITS = tl.constexpr(1 << 8)


@triton.jit
def _gaps(position_ptr, k, N, TURN: tl.constexpr):
    """The lengths of the circle behind the sorted points k; the last one's runs over 0."""
    here = tl.load(position_ptr + k, mask=k < N, other=0).to(tl.int64)
    next = tl.load(position_ptr + tl.where(k + 1 < N, k + 1, 0), mask=k < N, other=0).to(tl.int64)
    return tl.where(k < N, next + tl.where(k + 1 < N, 0, TURN) - here, 0)


@triton.jit
def _median(lengths_ptr, known_ptr, local, tile, known, passes, HALF: tl.constexpr):
    """The `known` leading digits of the least level with at least half the circle at or below it; how much is below them, and how much has
    them: from those of one digit less. The first tile keeps them for the next launch."""
    lengths_ptr += local * passes * DIGITS
    known_ptr += local * 2 * (passes + 1)
    digits, below, own = tl.zeros([], tl.int64), tl.zeros([], tl.int64), tl.zeros([], tl.int64)
    if known > 0:
        d = tl.arange(0, DIGITS)
        length = tl.load(lengths_ptr + (known - 1) * DIGITS + d)
        digits = tl.load(known_ptr + 2 * known - 2)
        below = tl.load(known_ptr + 2 * known - 1)
        digit = tl.sum((below + tl.cumsum(length, 0) < HALF).to(tl.int64), 0)
        digits = (digits << DIGIT_BITS) | digit
        below += tl.sum(tl.where(d < digit, length, 0), 0)
        own = tl.sum(tl.where(d == digit, length, 0), 0)
    if tile == 0:
        tl.store(known_ptr + 2 * known, digits)
        tl.store(known_ptr + 2 * known + 1, below)
    return digits, below, own


@triton.jit
def sign(level, median, own):
    """Of level - median; `own` where they are equal."""
    return tl.where(level > median, 1.0, tl.where(level < median, -1.0, own))


@triton.jit(do_not_specialize=["first", "count", "n", "m", "P", "tiles", "up", "down"])
def _weigh(
    index_ptr, u_weights_ptr, v_weights_ptr, level_ptr, sum_ptr, bad_ptr, first, count, n, m, P, tiles, up, down, WEIGHTED: tl.constexpr
):
    """Levels within each tile, and the tiles' sums."""
    local, tile, k = place(count)
    inside = k < n + m
    i = tl.load(index_ptr + local * (n + m) + k, mask=inside, other=0)
    if WEIGHTED:
        b = (first + local) // P
        weight = tl.load(u_weights_ptr + b * n + i, mask=inside & (i < n), other=0.0).to(tl.float64)
        weight -= tl.load(v_weights_ptr + b * m + (i - n), mask=inside & (i >= n), other=0.0).to(tl.float64)
        bad = bad_ptr + local * tiles + tile
        tl.store(bad, tl.load(bad) + tl.sum(weight - weight, 0))
        signed = (tl.where(weight - weight == 0.0, weight, 0.0) * WEIGHT_UNIT).to(tl.int64)
    else:
        signed = tl.where(inside, tl.where(i < n, up.to(tl.int64), -down.to(tl.int64)), 0)
    tl.store(level_ptr + local * (n + m) + k, tl.cumsum(signed, 0), mask=inside)
    tl.store(sum_ptr + local * tiles + tile, tl.sum(signed, 0))


@triton.jit(do_not_specialize=["count", "N", "tiles", "known", "passes", "most"])
def _count(position_ptr, level_ptr, sum_ptr, lengths_ptr, known_ptr, count, N, tiles, known, passes, most, TURN: tl.constexpr):
    """By digit `known`, the length of the circle with levels whose digits before are the median's; lengths (count, passes, DIGITS)."""
    local, tile, k = place(count)
    median, below, own = _median(lengths_ptr, known_ptr, local, tile, known, passes, TURN // 2)
    level = tl.load(level_ptr + local * N + k, mask=k < N, other=0) + sum_of_tiles(sum_ptr + local * tiles, tile)
    digits = (level + most) >> ((passes - 1 - known) * DIGIT_BITS).to(tl.int64)
    gap = _gaps(position_ptr + local * N, k, N, TURN)
    counts = (gap > 0) & ((digits >> DIGIT_BITS) == median)
    digit = (digits & (DIGITS - 1)).to(tl.int32)
    low, high = tl.min(tl.where(counts, digit, DIGITS), 0), tl.max(tl.where(counts, digit, -1), 0)
    lengths_ptr += (local * passes + known) * DIGITS
    if high - low < 4:  # the levels of neighbours are close
        for d in range(low, high + 1):
            tl.atomic_add(lengths_ptr + d, tl.sum(tl.where(counts & (digit == d), gap, 0), 0), sem="relaxed")
    else:
        tl.atomic_add(lengths_ptr + digit, gap, mask=counts, sem="relaxed")


@triton.jit(do_not_specialize=["count", "N", "tiles", "passes", "most"])
def _measure(
    position_ptr, level_ptr, sum_ptr, lengths_ptr, known_ptr, cost_ptr, rise_ptr, count, N, tiles, passes, most,
    WEIGHTED: tl.constexpr, TURN: tl.constexpr,
):  # fmt: skip
    """Each tile's cost and, with weights, its gaps times their signs."""
    local, tile, k = place(count)
    median, below, own = _median(lengths_ptr, known_ptr, local, tile, passes, passes, TURN // 2)
    level = tl.load(level_ptr + local * N + k, mask=k < N, other=0) + sum_of_tiles(sum_ptr + local * tiles, tile)
    gap = _gaps(position_ptr + local * N, k, N, TURN).to(tl.float64)
    tl.store(cost_ptr + local * tiles + tile, tl.sum(tl.abs(level - (median - most)).to(tl.float64) * gap, 0))
    if WEIGHTED:
        at_median = (below - (TURN - below - own)).to(tl.float64) / own.to(tl.float64)
        tl.store(rise_ptr + local * tiles + tile, tl.sum(sign(level, median - most, at_median) * gap, 0))


@triton.jit(do_not_specialize=["first", "count", "n", "m", "P", "tiles", "passes", "most", "up"])
def _write(
    index_ptr, level_ptr, sum_ptr, lengths_ptr, known_ptr, cost_ptr, bad_ptr, distance_ptr, u_slope_ptr, v_slope_ptr,
    first, count, n, m, P, tiles, passes, most, up, WEIGHTED: tl.constexpr, TURN: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = distance_ptr.dtype.element_ty
    local, tile, k = place(count)
    problem, inside = first + local, k < n + m
    bad = sum_of_tiles(bad_ptr + local * tiles, tiles)
    unit = 1.0 / WEIGHT_UNIT if WEIGHTED else 1.0 / (up.to(tl.int64) * n).to(tl.float64)
    if tile == 0:
        tl.store(distance_ptr + problem, (sum_of_tiles(cost_ptr + local * tiles, tiles) * (unit / TURN) + bad).to(T))
    median, below, own = _median(lengths_ptr, known_ptr, local, tile, passes, passes, TURN // 2)
    M = median - most
    i = tl.load(index_ptr + local * (n + m) + k, mask=inside, other=0)
    level_ptr += local * (n + m) + k
    ahead = sum_of_tiles(sum_ptr + local * tiles, tile)
    level = tl.load(level_ptr, mask=inside, other=0) + ahead
    before = tl.load(level_ptr - 1, mask=(k > tile * TILE) & inside, other=0) + ahead
    before = tl.where(k == 0, sum_of_tiles(sum_ptr + local * tiles, tiles), before)           # L_N: 0, to rounding of the weights
    slope = ((tl.abs(before - M) - tl.abs(level - M)).to(tl.float64) * unit + bad).to(T)
    b, p = problem // P, problem % P
    tl.store(u_slope_ptr + (b * n + i) * P + p, slope, mask=inside & (i < n))
    tl.store(v_slope_ptr + (b * m + (i - n)) * P + p, slope, mask=inside & (i >= n))


@triton.jit(do_not_specialize=["first", "count", "n", "m", "P", "tiles", "passes", "most"])
def _potentials(
    position_ptr, index_ptr, level_ptr, sum_ptr, lengths_ptr, known_ptr, rise_ptr, bad_ptr, u_potential_ptr, v_potential_ptr,
    first, count, n, m, P, tiles, passes, most, TURN: tl.constexpr,
):  # fmt: skip
    """What the gaps at or after each point add up to with their signs, only with weights."""
    T: tl.constexpr = u_potential_ptr.dtype.element_ty
    local, tile, k = place(count)
    problem, N = first + local, n + m
    median, below, own = _median(lengths_ptr, known_ptr, local, tile, passes, passes, TURN // 2)
    at_median = (below - (TURN - below - own)).to(tl.float64) / own.to(tl.float64)
    level = tl.load(level_ptr + local * N + k, mask=k < N, other=0) + sum_of_tiles(sum_ptr + local * tiles, tile)
    rise = sign(level, median - most, at_median) * _gaps(position_ptr + local * N, k, N, TURN).to(tl.float64)
    rise = sum_of_tiles(rise_ptr + local * tiles, tile) + tl.cumsum(rise, 0) - rise           # over those before
    rise = (sum_of_tiles(rise_ptr + local * tiles, tiles) - rise) * (1.0 / TURN)
    bad = sum_of_tiles(bad_ptr + local * tiles, tiles)
    i = tl.load(index_ptr + local * N + k, mask=k < N, other=0)
    b, p = problem // P, problem % P
    tl.store(u_potential_ptr + (b * n + i) * P + p, (rise + bad).to(T), mask=(k < N) & (i < n))
    tl.store(v_potential_ptr + (b * m + (i - n)) * P + p, (bad - rise).to(T), mask=(k < N) & (i >= n))


def solve(u: Tensor, v: Tensor, weights: tuple[Tensor, Tensor], weighted: bool, results: tuple[Tensor, ...], up: int, down: int) -> None:
    """Fills the results, cost, slopes and, where weighted, potentials; a point of u counts `up` and one of v -`down`."""
    (B, n, P), m = u.shape, v.shape[1]
    N, tiles = n + m, tiles_of(n + m)
    most = 2 * WEIGHT_UNIT.value if weighted else up * n                                     # of a level; sums pass 1 by rounding
    passes = triton.cdiv((2 * most).bit_length(), DIGIT_BITS.value)
    # Of float32 31 bits are more than the points have but around 0, and take half the sort of 53.
    bits, whole = (31, torch.int32) if u.dtype == torch.float32 else (53, torch.int64)
    turn = 1 << bits

    for first, count in parts(B * P, N):

        def run(kernel: Any, *args: Any, programs: int = count * tiles, **constants: Any) -> None:
            launch(kernel, programs, *args, num_warps=WARPS, **constants)

        position, level = u.new_empty(count, N, dtype=whole), u.new_empty(count, N, dtype=torch.int64)
        costs, rises, bad = (u.new_empty(count, tiles, dtype=torch.float64) for _ in range(3))
        run(positions, u, v, position, bad, first, count, n, m, P, tiles, BITS=bits)
        position, index = position.sort(dim=-1, stable=True)
        sums, lengths = u.new_empty(count, tiles, dtype=torch.int64), u.new_zeros(count, passes, DIGITS.value, dtype=torch.int64)
        run(_weigh, index, *weights, level, sums, bad, first, count, n, m, P, tiles, up, down, WEIGHTED=weighted)
        median = level, sums, lengths, u.new_empty(count, passes + 1, 2, dtype=torch.int64)
        for known in range(passes):
            run(_count, position, *median, count, N, tiles, known, passes, most, TURN=turn)
        run(_measure, position, *median, costs, rises, count, N, tiles, passes, most, WEIGHTED=weighted, TURN=turn)
        sizes = first, count, n, m, P, tiles, passes, most
        run(_write, index, *median, costs, bad, *results[:3], *sizes, up, WEIGHTED=weighted, TURN=turn)
        if weighted:
            run(_potentials, position, index, *median, rises, bad, *results[3:], *sizes, TURN=turn)
