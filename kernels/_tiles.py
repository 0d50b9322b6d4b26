"""Rows longer than what one program holds: a program a tile of TILE numbers, neighbouring programs the same tile of neighbouring rows. Sums
over tiles are made in one order, whatever the batch."""

import triton
import triton.language as tl

TILE = tl.constexpr(1024)
WARPS = 8
LANES = tl.constexpr(128)  # tiles whose sums are read at once
AT_ONCE = 1 << 22  # points: enough to fill a device


def tiles_of(n: int) -> int:
    return triton.cdiv(n, TILE.value)


def parts(problems: int, points: int) -> list[tuple[int, int]]:
    """(first, count) of the problems that share a workspace, one part after the other."""
    most = max(1, AT_ONCE // points)
    return [(first, min(most, problems - first)) for first in range(0, problems, most)]


@triton.jit
def place(count):
    """The program's row, its tile, and the tile's slots [TILE]."""
    program = tl.program_id(0).to(tl.int64)
    tile = program // count
    return program % count, tile, tile * TILE + tl.arange(0, TILE)


@triton.jit
def sum_of_tiles(ptr, end):
    """Of the first `end` tiles."""
    i = tl.arange(0, LANES)
    total = tl.zeros([LANES], ptr.dtype.element_ty)
    for at in range(0, end, LANES):
        total += tl.load(ptr + at + i, mask=at + i < end, other=0)
    return tl.sum(total, 0)


@triton.jit
def least_of_tiles(ptr, end, most):
    i = tl.arange(0, LANES)
    least = tl.zeros([LANES], tl.int64) + most
    for at in range(0, end, LANES):
        least = tl.minimum(least, tl.load(ptr + at + i, mask=at + i < end, other=0x7FFFFFFFFFFFFFFF))
    return tl.min(least, 0)


@triton.jit
def accumulate_tiles(ptr, end):
    """Turns the sums of `end` tiles into those over the tiles before each, and puts that of all behind them, which it returns."""
    i = tl.arange(0, LANES)
    before = tl.zeros([], tl.float64)
    for at in range(0, end, LANES):
        inside = at + i < end
        x = tl.load(ptr + at + i, mask=inside, other=0.0)
        tl.store(ptr + at + i, before + (tl.cumsum(x, 0) - x), mask=inside)
        before += tl.sum(x, 0)
    tl.store(ptr + end, before)
    return before


@triton.jit(do_not_specialize=["first", "count", "n", "m", "P", "tiles"])
def positions(u_ptr, v_ptr, position_ptr, bad_ptr, first, count, n, m, P, tiles, BITS: tl.constexpr):
    """Points of u, then v, of problems first ... first + count, modulo 1 (count, n + m): in units of 2^-BITS rounded down, or, BITS = 0, as
    they are; 0 where one is no number. bad (count, tiles) is NaN there and else 0."""
    local, tile, i = place(count)
    b, p = (first + local) // P, (first + local) % P
    x = tl.load(u_ptr + (b * n + i) * P + p, mask=i < n, other=0.0).to(tl.float64)
    x += tl.load(v_ptr + (b * m + (i - n)) * P + p, mask=(i >= n) & (i < n + m), other=0.0).to(tl.float64)
    t = x - tl.floor(x)
    t = tl.where(t < 1.0, t, 0.0)                                                            # also for NaN
    if BITS > 0:
        t = t * (1 << BITS)
    tl.store(position_ptr + local * (n + m) + i, t.to(position_ptr.dtype.element_ty), mask=i < n + m)
    tl.store(bad_ptr + local * tiles + tile, tl.sum(x - x, 0))
