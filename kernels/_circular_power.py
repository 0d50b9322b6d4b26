"""What the Triton kernels of Wasserstein-p on the circle, p > 1, share; csrc/circular_wasserstein_power.h has the formulas. Sorted points z
and the levels where the mass of each ends are looked up in memory. A place on the circle of levels is a pair: whole turns, and the index
within one."""

import triton
import triton.language as tl

WEIGHT_UNIT = tl.constexpr(1 << 60)


@triton.jit
def power(d, ORDER: tl.constexpr):
    """|d|^p."""
    if ORDER == 2.0:
        return d * d
    else:
        a = tl.abs(d)
        return tl.where(a > 0.0, tl.exp(ORDER * tl.log(tl.where(a > 0.0, a, 1.0))), 0.0)


@triton.jit
def power_slope(d, ORDER: tl.constexpr):
    """Its derivative over p."""
    if ORDER == 2.0:
        return d
    else:
        return tl.where(d < 0.0, -1.0, 1.0) * power(d, ORDER - 1.0)


@triton.jit
def holder(level_ptr, where, live, turn, n, step, WEIGHTED: tl.constexpr, bits):
    """The point whose mass holds what lies to the right of a level: whole turns and index."""
    if WEIGHTED:
        turns = where >> 60
        within = where - (turns << 60)
        low = tl.zeros_like(within).to(tl.int32)
        high = low + (n - 1)
        for _ in range(bits):
            middle = (low + high) >> 1
            above = tl.load(level_ptr + middle, mask=live, other=0) > within
            closed = low == high
            low, high = tl.where(above | closed, low, middle + 1), tl.where(above, middle, high)
        return turns, low
    else:
        point = (where + 4 * turn) // step
        turns = point // n
        return turns - 4, (point - turns * n).to(tl.int32)


@triton.jit
def point_at(z_ptr, turns, index, live):
    return tl.load(z_ptr + index, mask=live, other=0.0) + turns.to(tl.float64)


@triton.jit
def begin_of(level_ptr, turns, index, live, turn):
    """Where the mass of a point begins."""
    return tl.load(level_ptr + index - 1, mask=live & (index > 0), other=0) + turns * turn


@triton.jit
def rise_at(z_ptr, level_ptr, zy, y_next, t, live, inside, turn, n, step, WEIGHTED: tl.constexpr, bits, ORDER: tl.constexpr):
    """f' at the cut that puts y's levels at t; how far it can move left without a change, and right before there is one."""
    turns, index = holder(level_ptr, t, live, turn, n, step, WEIGHTED, bits)
    x = point_at(z_ptr, turns, index, live)
    rise = tl.sum(tl.where(inside, power(x - zy, ORDER) - power(x - y_next, ORDER), 0.0), 1)
    if WEIGHTED:
        end = tl.load(level_ptr + index, mask=live, other=0) + turns * turn
        to_right = tl.where(inside, end - t, turn)
        to_left = tl.where(inside, t - begin_of(level_ptr, turns, index, live, turn), turn)
        return rise, tl.min(to_left, 1), tl.min(to_right, 1)
    else:
        none = (rise * 0.0).to(tl.int64)
        return rise, none, none + 1


@triton.jit
def climb_to(
    z, here, z_ptr, level_ptr, where, live, share, turn, n, step, TOWARD: tl.constexpr, WEIGHTED: tl.constexpr, bits, ORDER: tl.constexpr
):
    """What the cost gains from each point's left neighbour to the point, towards the partner at `where`; `share` is the cut's, the rest
    that of the one before it, for which `where` moves by TOWARD."""
    turns, index = holder(level_ptr, where, live, turn, n, step, WEIGHTED, bits)
    a = point_at(z_ptr, turns, index, live)
    climb = share * (power(z - a, ORDER) - power(here - a, ORDER))
    turns, index = holder(level_ptr, where + TOWARD, live, turn, n, step, WEIGHTED, bits)
    a = point_at(z_ptr, turns, index, live)
    return climb + (1.0 - share) * (power(z - a, ORDER) - power(here - a, ORDER))
