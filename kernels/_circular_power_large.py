"""Wasserstein-p on the circle, p > 1, with more points a set than one program sorts; csrc/circular_wasserstein_power.h has the arrays, the
formulas and the names.

The library sorts each set's positions. Then all goes tile by tile of a set: masses by sums within and over tiles, the best cut by
bisection, a launch a step, and with it each point's share in the cost, what goes back to it, and its potential. Both sets go through one
kernel, each once as `own` and once as the `partner`, whose levels the cut k moves: those of x meet y's + k, and those of y meet x's - k. Of
the pieces that end where both sets have a level, x's are the ones with mass (LEFT).
"""

from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._circular_power import WEIGHT_UNIT, begin_of, climb_to, holder, point_at, power, power_slope, rise_at
from ._launch import launch
from ._tiles import TILE, WARPS, accumulate_tiles, least_of_tiles, parts, place, positions, sum_of_tiles, tiles_of

LOOSE = ["first", "count", "n", "m", "P", "tiles", "partner_tiles", "turn", "step", "partner_step", "bits", "partner_bits"]


@triton.jit(do_not_specialize=LOOSE)
def _total(weights_ptr, total_ptr, n):
    """The sum of a row of weights, NaN where they are none."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, TILE)
    sums = tl.zeros([TILE], tl.float64)
    for at in range(0, n, TILE):
        w = tl.load(weights_ptr + row * n + at + i, mask=at + i < n, other=0.0).to(tl.float64)
        sums += tl.where(w >= 0.0, w, float("nan"))
    total = tl.sum(sums, 0)
    tl.store(total_ptr + row, tl.where(total > 0.0, total + (total - total), float("nan")))


@triton.jit(do_not_specialize=LOOSE)
def _weigh(weights_ptr, total_ptr, order_ptr, level_ptr, sum_ptr, first, count, n, P, tiles):
    """Masses up to and with each sorted point within its tile, and the tiles'."""
    local, tile, i = place(count)
    b = (first + local) // P
    total = tl.load(total_ptr + b)
    order = tl.load(order_ptr + local * n + i, mask=i < n, other=0)
    w = tl.load(weights_ptr + b * n + order, mask=i < n, other=0.0).to(tl.float64)
    unit = WEIGHT_UNIT / tl.where(total > 0.0, total, 1.0)
    mass = tl.where(total > 0.0, w * unit, 0.0).to(tl.int64)
    tl.store(level_ptr + local * n + i, tl.cumsum(mass, 0), mask=i < n)
    tl.store(sum_ptr + local * tiles + tile, tl.sum(mass, 0))


@triton.jit(do_not_specialize=LOOSE)
def _levels(level_ptr, sum_ptr, count, n, tiles, step, WEIGHTED: tl.constexpr):
    """The mass up to and with each sorted point; rounding's rest goes to the last weight."""
    local, tile, i = place(count)
    if WEIGHTED:
        level = tl.load(level_ptr + local * n + i, mask=i < n, other=0) + sum_of_tiles(sum_ptr + local * tiles, tile)
        level = tl.where(level == sum_of_tiles(sum_ptr + local * tiles, tiles), WEIGHT_UNIT, level)
    else:
        level = (i + 1) * step
    tl.store(level_ptr + local * n + i, level, mask=i < n)


@triton.jit(do_not_specialize=[*LOOSE, "number"])
def _search(
    x_ptr, X_ptr, y_ptr, Y_ptr, bracket_ptr, rise_ptr, left_ptr, right_ptr, number, count, n, m, tiles, turn, step, bits,
    WEIGHTED: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    """Step `number` of the bisection: closes the bracket (2, count, 2) of the step before by its f', and finds that of the tiles of y
    (2, count, tiles) in the new bracket's middle. A bracket that is closed stays."""
    local, tile, j = place(count)
    turn = turn.to(tl.int64)
    low, high = -turn, turn
    now, past = (number % 2) * count + local, (1 - number % 2) * count + local
    if number > 0:
        low, high = tl.load(bracket_ptr + 2 * past), tl.load(bracket_ptr + 2 * past + 1)
        if low < high:
            middle = low + ((high - low) >> 1)
            if sum_of_tiles(rise_ptr + past * tiles, tiles) >= 0.0:
                high = middle
                if WEIGHTED:
                    high = tl.maximum(middle - least_of_tiles(left_ptr + past * tiles, tiles, turn), low)
            else:
                low = middle + 1
                if WEIGHTED:
                    low = middle + least_of_tiles(right_ptr + past * tiles, tiles, turn)
    if tile == 0:
        tl.store(bracket_ptr + 2 * now, low)
        tl.store(bracket_ptr + 2 * now + 1, high)
    if low < high:
        t = low + ((high - low) >> 1)
        rise, left, right = _rise(x_ptr, X_ptr, y_ptr, Y_ptr, local, j, t, n, m, turn, step, bits, WEIGHTED, ORDER)
        tl.store(rise_ptr + now * tiles + tile, rise)
        if WEIGHTED:
            tl.store(left_ptr + now * tiles + tile, left)
            tl.store(right_ptr + now * tiles + tile, right)


@triton.jit
def _rise(x_ptr, X_ptr, y_ptr, Y_ptr, local, j, k, n, m, turn, step, bits, WEIGHTED: tl.constexpr, ORDER: tl.constexpr):
    """f'(k) over the points j of y, and what else `rise_at` tells."""
    x_ptr, X_ptr, y_ptr, Y_ptr, j = x_ptr + local * n, X_ptr + local * n, y_ptr + local * m, Y_ptr + local * m, j[None, :]
    y = tl.load(y_ptr + j, mask=j < m, other=0.0)
    y_next = tl.load(y_ptr + tl.where(j + 1 < m, j + 1, 0), mask=j < m, other=0.0) + tl.where(j + 1 < m, 0.0, 1.0)
    t = tl.load(Y_ptr + j, mask=j < m, other=0) + k
    rise, left, right = rise_at(x_ptr, X_ptr, y, y_next, t, j < m, j < m, turn, n, step.to(tl.int64), WEIGHTED, bits, ORDER)
    return tl.sum(rise, 0), tl.sum(left, 0), tl.sum(right, 0)                                 # of one each


@triton.jit
def _piece(
    own_ptr, own_level_ptr, partner_ptr, partner_level_ptr, i, n, m, k, turn, partner_step, partner_bits,
    LEFT: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Of the pieces that end with each own point: mass, distance to the partner, its whole turns and index, and where the point begins."""
    inside = i < n
    level = tl.load(own_level_ptr + i, mask=inside, other=0)
    begin = tl.load(own_level_ptr + i - 1, mask=inside & (i > 0), other=0)
    turns, index = holder(partner_level_ptr, level - k - LEFT, inside, turn, m, partner_step, WEIGHTED, partner_bits)
    mass = level - tl.maximum(begin, begin_of(partner_level_ptr, turns, index, inside, turn) + k)
    d = tl.load(own_ptr + i, mask=inside, other=0.0) - point_at(partner_ptr, turns, index, inside)
    return tl.where(inside, mass.to(tl.float64) / turn.to(tl.float64), 0.0), d, turns, index, begin


@triton.jit(do_not_specialize=LOOSE)
def _flow(
    own_ptr, own_level_ptr, partner_ptr, partner_level_ptr, bracket_ptr, upto_ptr, sum_ptr, cost_ptr,
    count, n, m, tiles, turn, partner_step, partner_bits, LEFT: tl.constexpr, WEIGHTED: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    """Each tile's cost, and its pieces' slopes, summed before each point within it (count, n) and in all (count, tiles + 1)."""
    local, tile, i = place(count)
    turn = turn.to(tl.int64)
    cut = tl.load(bracket_ptr + 2 * local + 1)
    mass, d, turns, index, begin = _piece(
        own_ptr + local * n, own_level_ptr + local * n, partner_ptr + local * m, partner_level_ptr + local * m,
        i, n, m, cut if LEFT else -cut, turn, partner_step, partner_bits, LEFT, WEIGHTED,
    )  # fmt: skip
    tl.store(cost_ptr + local * tiles + tile, tl.sum(mass * power(d, ORDER), 0))
    flow = mass * power_slope(d, ORDER)
    tl.store(upto_ptr + local * n + i, tl.cumsum(flow, 0) - flow, mask=i < n)
    tl.store(sum_ptr + local * (tiles + 1) + tile, tl.sum(flow, 0))


@triton.jit(do_not_specialize=LOOSE)
def _beside(x_ptr, X_ptr, y_ptr, Y_ptr, bracket_ptr, rise_ptr, count, n, m, tiles, turn, step, bits, ORDER: tl.constexpr):
    """f' over each tile of y (2, count, tiles), just before the cut and at it."""
    local, tile, j = place(count)
    for at in range(2):
        k = tl.load(bracket_ptr + 2 * local + 1) - 1 + at
        rise, left, right = _rise(x_ptr, X_ptr, y_ptr, Y_ptr, local, j, k, n, m, turn.to(tl.int64), step, bits, True, ORDER)
        tl.store(rise_ptr + (at * count + local) * tiles + tile, rise)


@triton.jit(do_not_specialize=[*LOOSE, "all_tiles"])
def _finish(
    bad_ptr, u_total_ptr, v_total_ptr, x_cost_ptr, y_cost_ptr, rise_ptr, record_ptr, distance_ptr,
    first, count, P, tiles, partner_tiles, all_tiles, WEIGHTED: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    """A problem's distance and its record: what multiplies slopes, the cut's share in potentials, and 0 or NaN."""
    local = tl.program_id(0).to(tl.int64)
    bad, share = sum_of_tiles(bad_ptr + local * all_tiles, all_tiles), tl.zeros([], tl.float64) + 0.5
    if WEIGHTED:
        b = (first + local) // P
        u_total, v_total = tl.load(u_total_ptr + b), tl.load(v_total_ptr + b)
        bad += (u_total - u_total) + (v_total - v_total)
        before = sum_of_tiles(rise_ptr + local * partner_tiles, partner_tiles)
        after = sum_of_tiles(rise_ptr + (count + local) * partner_tiles, partner_tiles)
        share = tl.where(after > before, -before / tl.where(after > before, after - before, 1.0), 0.5)
    cost = sum_of_tiles(x_cost_ptr + local * tiles, tiles) + sum_of_tiles(y_cost_ptr + local * partner_tiles, partner_tiles)
    if ORDER == 2.0:
        distance = tl.sqrt(cost)
    else:
        distance = power(cost, 1.0 / ORDER)
    scale = tl.where(distance > 0.0, 1.0 / power(tl.where(distance > 0.0, distance, 1.0), ORDER - 1.0), 0.0)
    tl.store(distance_ptr + first + local, (distance + bad).to(distance_ptr.dtype.element_ty))
    tl.store(record_ptr + 3 * local, scale)
    tl.store(record_ptr + 3 * local + 1, share)
    tl.store(record_ptr + 3 * local + 2, bad)


@triton.jit(do_not_specialize=LOOSE)
def _accumulate(sum_ptr, tiles):
    """Turns sums over tiles into those over the tiles before each (count, tiles + 1)."""
    accumulate_tiles(sum_ptr + tl.program_id(0).to(tl.int64) * (tiles + 1), tiles)


@triton.jit
def _upto(upto_ptr, sum_ptr, tiles, turns, index, inside):
    """The pieces' slopes before a point, over all turns."""
    whole = tl.load(sum_ptr + tiles)
    within = tl.load(upto_ptr + index, mask=inside, other=0.0)
    return within + tl.load(sum_ptr + index // TILE, mask=inside, other=0.0) + turns.to(tl.float64) * whole


@triton.jit(do_not_specialize=LOOSE)
def _slopes(
    own_ptr, own_level_ptr, partner_ptr, partner_level_ptr, bracket_ptr, record_ptr, upto_ptr, sum_ptr, order_ptr, slope_ptr,
    first, count, n, m, P, partner_tiles, turn, partner_step, partner_bits,
    LEFT: tl.constexpr, WEIGHTED: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    """A point's own piece, and those of the partners that end within its mass."""
    local, tile, i = place(count)
    problem, inside = first + local, i < n
    turn = turn.to(tl.int64)
    k = tl.load(bracket_ptr + 2 * local + 1)
    k = k if LEFT else -k
    scale, bad = tl.load(record_ptr + 3 * local), tl.load(record_ptr + 3 * local + 2)
    upto_ptr += local * m
    sum_ptr += local * (partner_tiles + 1)
    partner_level_ptr += local * m
    mass, d, turns, index, begin = _piece(
        own_ptr + local * n, own_level_ptr + local * n, partner_ptr + local * m, partner_level_ptr,
        i, n, m, k, turn, partner_step, partner_bits, LEFT, WEIGHTED,
    )  # fmt: skip
    slope = mass * power_slope(d, ORDER) - _upto(upto_ptr, sum_ptr, partner_tiles, turns, index, inside)
    turns, index = holder(partner_level_ptr, begin - k - LEFT, inside, turn, m, partner_step, WEIGHTED, partner_bits)
    slope += _upto(upto_ptr, sum_ptr, partner_tiles, turns, index, inside)
    order = tl.load(order_ptr + local * n + i, mask=inside, other=0)
    at = (problem // P * n + order) * P + problem % P
    tl.store(slope_ptr + at, (slope * scale + bad).to(slope_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=LOOSE)
def _climb(
    own_ptr, own_level_ptr, partner_ptr, partner_level_ptr, bracket_ptr, record_ptr, climb_ptr, sum_ptr,
    count, n, m, tiles, turn, partner_step, partner_bits, LEFT: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    """How far the potential climbs to each point within its tile (count, n), and over the tile (count, tiles + 1)."""
    local, tile, i = place(count)
    k, share = tl.load(bracket_ptr + 2 * local + 1), tl.load(record_ptr + 3 * local + 1)
    k = k if LEFT else -k
    inside = (i > 0) & (i < n)
    own_ptr += local * n
    z, here = tl.load(own_ptr + i, mask=inside, other=0.0), tl.load(own_ptr + i - 1, mask=inside, other=0.0)
    where = tl.load(own_level_ptr + local * n + i - 1, mask=inside, other=0) - k - LEFT
    climb = climb_to(
        z, here, partner_ptr + local * m, partner_level_ptr + local * m, where, inside, share, turn.to(tl.int64), m, partner_step,
        1 if LEFT else -1, True, partner_bits, ORDER,
    )  # fmt: skip
    climb = tl.where(inside, climb, 0.0)
    tl.store(climb_ptr + local * n + i, tl.cumsum(climb, 0), mask=i < n)
    tl.store(sum_ptr + local * (tiles + 1) + tile, tl.sum(climb, 0))


@triton.jit(do_not_specialize=LOOSE)
def _potentials(climb_ptr, sum_ptr, record_ptr, order_ptr, potential_ptr, first, count, n, P, tiles, ORDER: tl.constexpr):
    local, tile, i = place(count)
    problem = first + local
    scale, bad = tl.load(record_ptr + 3 * local), tl.load(record_ptr + 3 * local + 2)
    climb = tl.load(climb_ptr + local * n + i, mask=i < n, other=0.0) + sum_of_tiles(sum_ptr + local * (tiles + 1), tile)
    order = tl.load(order_ptr + local * n + i, mask=i < n, other=0)
    at = (problem // P * n + order) * P + problem % P
    tl.store(potential_ptr + at, (climb * (scale * (1.0 / ORDER)) + bad).to(potential_ptr.dtype.element_ty), mask=i < n)


def solve(u: Tensor, v: Tensor, weights: tuple[Tensor, Tensor], weighted: bool, results: tuple[Tensor, ...], turn: int, p: float) -> None:
    """Fills the results, distance, slopes and, where weighted, potentials."""
    (B, n, P), m = u.shape, v.shape[1]
    N, sizes = n + m, (n, m)
    tiles, all_tiles = [tiles_of(k) for k in sizes], tiles_of(N)
    steps, bits = [turn // k for k in sizes], [(k - 1).bit_length() for k in sizes]
    distance, slopes, potentials = results[0], results[1:3], results[3:]
    real = partial(u.new_empty, dtype=torch.float64)
    whole = partial(u.new_empty, dtype=torch.int64)
    form = dict(WEIGHTED=weighted, ORDER=p)
    totals = real(B), real(B)
    if weighted:
        for of, total, k in zip(weights, totals, sizes, strict=True):
            launch(_total, B, of, total, k, num_warps=WARPS)

    for first, count in parts(B * P, N):

        def run(kernel: Any, of: int, *args: Any, count: int = count, num_warps: int = WARPS, **constants: Any) -> None:
            launch(kernel, count * of, *args, num_warps=num_warps, **constants)

        position, bad = real(count, N), real(count, all_tiles)
        run(positions, all_tiles, u, v, position, bad, first, count, n, m, P, all_tiles, BITS=0)
        z, order = zip(*(of.sort(dim=-1, stable=True) for of in position.split(sizes, 1)), strict=True)
        del position
        level, upto, cost = ([make(count, k) for k in of] for make, of in ((whole, sizes), (real, sizes), (real, tiles)))
        sums = [real(count, k + 1) for k in tiles]
        for s in (0, 1):
            mass = whole(count, tiles[s])
            if weighted:
                run(_weigh, tiles[s], weights[s], totals[s], order[s], level[s], mass, first, count, sizes[s], P, tiles[s])
            run(_levels, tiles[s], level[s], mass, count, sizes[s], tiles[s], steps[s], WEIGHTED=weighted)

        bracket, rise, left, right = whole(2, count, 2), real(2, count, tiles[1]), whole(2, count, tiles[1]), whole(2, count, tiles[1])
        points = z[0], level[0], z[1], level[1]
        last = (2 * turn).bit_length() // 2 * 2 + 2  # even, for the bracket to be the first of two; halving ends before
        for number in range(last + 1):
            run(_search, tiles[1], *points, bracket, rise, left, right, number, count, n, m, tiles[1], turn, steps[0], bits[0], **form)

        record = real(count, 3)
        sides = [(*points[2 * s :], *points[: 2 * s], bracket) for s in (0, 1)]
        for s in (0, 1):
            ends = turn, steps[1 - s], bits[1 - s]
            run(_flow, tiles[s], *sides[s], upto[s], sums[s], cost[s], count, sizes[s], sizes[1 - s], tiles[s], *ends, LEFT=s == 0, **form)
            run(_accumulate, 1, sums[s], tiles[s], num_warps=4)
        if weighted:
            run(_beside, tiles[1], *points, bracket, rise, count, n, m, tiles[1], turn, steps[0], bits[0], ORDER=p)
        run(_finish, 1, bad, *totals, *cost, rise, record, distance, first, count, P, *tiles, all_tiles, num_warps=4, **form)
        for s in (0, 1):
            ends = turn, steps[1 - s], bits[1 - s]
            out = record, upto[1 - s], sums[1 - s], order[s], slopes[s]
            run(
                _slopes, tiles[s], *sides[s], *out, first, count, sizes[s], sizes[1 - s], P, tiles[1 - s], *ends,
                LEFT=s == 0, **form,
            )  # fmt: skip
        for s in (0, 1) if weighted else ():
            ends = turn, steps[1 - s], bits[1 - s]
            run(
                _climb, tiles[s], *sides[s], record, upto[s], sums[s], count, sizes[s], sizes[1 - s], tiles[s], *ends,
                LEFT=s == 0, ORDER=p,
            )  # fmt: skip
            run(_potentials, tiles[s], upto[s], sums[s], record, order[s], potentials[s], first, count, sizes[s], P, tiles[s], ORDER=p)
