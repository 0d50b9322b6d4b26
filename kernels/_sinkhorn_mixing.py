"""Acceleration of the columns' updates of sinkhorn: every second one goes to where the last few say that updates lead (Anderson mixing, in
turns with plain updates: Pratapa, Suryanarayana and Pask, "Anderson acceleration of the Jacobi iterative method", 2016). Where updates grow
instead, it waits, each time twice as long.

The history (2, KEPT, size), float64, is of the last KEPT updates in any order: by how much each would have changed G and H, and where it
led. H comes last: size is m + 1.
"""

import triton
import triton.language as tl

KEPT = tl.constexpr(5)  # one more than the depth of the mixing
PATIENCE, MOST_PATIENCE = tl.constexpr(6), tl.constexpr(256)  # updates before the first mixed one
GROWTH = tl.constexpr(100.0)  # of the sum of squares
WORSE = tl.constexpr(4.0)  # times the lowest error, of partial problems: mixing can go around between sets of constraints that hold
FURTHEST = tl.constexpr(10.0)  # far steps end in a restart, not in an overflow
RIDGE = tl.constexpr(1e-5)  # relative to the diagonal
SHARE = tl.constexpr(32)  # columns at a time


@triton.jit
def coefficients(history, newest, size):
    """[8], least squares of the newest change by the differences of the others from it; and the square of that change."""
    k, other = tl.arange(0, 8)[:, None], tl.arange(0, 8)[None, :]
    slots = history + k * size
    products = tl.full([8, 8], 0.0, tl.float64)
    for first in range(0, size, SHARE):
        j = first + tl.arange(0, SHARE)[None, :]
        now = tl.load(newest + j, mask=j < size, other=0.0)
        x = tl.load(slots + j, mask=(k < KEPT) & (j < size), other=0.0)
        x = tl.where(k < KEPT, x - now, now)                                                 # [8, J]: the change after the differences
        products += tl.sum(x[:, None, :] * x[None, :, :], 2)
    square = tl.sum(tl.sum(tl.where((k == KEPT) & (other == KEPT), products, 0.0), 1), 0)
    products += tl.where(k == other, RIDGE * products, 0.0)
    for i in tl.static_range(KEPT):  # sweeps: the column of the change becomes the solution
        along = tl.sum(tl.where(k == i, products, 0.0), 0)
        here = (tl.arange(0, 8) == i).to(tl.float64)
        pivot = tl.sum(along * here, 0)
        part = along - here
        products -= part[:, None] * part[None, :] * tl.where(pivot > 0.0, 1.0 / tl.where(pivot > 0.0, pivot, 1.0), 0.0)
    return tl.sum(tl.where((other == KEPT) & (k < KEPT), products, 0.0), 1), square


@triton.jit
def step(history, newest, c, j, size):
    """What mixing adds to the change of entries j."""
    k = tl.arange(0, 8)[:, None]
    led = tl.load(history + (KEPT + k) * size + j[None, :], mask=(k < KEPT) & (j < size)[None, :], other=0.0)
    now = tl.load(newest + KEPT * size + j, mask=j < size, other=0.0)
    x = tl.sum(c[:, None] * (now[None, :] - led), 0)
    x = tl.where(x < -FURTHEST, -FURTHEST, tl.where(x > FURTHEST, FURTHEST, x))
    return tl.where(x == x, x, 0.0)
