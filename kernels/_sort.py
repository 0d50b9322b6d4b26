"""A sort of whole numbers. tl.sort reshapes to one axis per bit, which takes minutes to compile at a thousand numbers a row."""

import triton
import triton.language as tl


@triton.jit
def _exchange(key, place, ascending, ROWS: tl.constexpr, BITS: tl.constexpr, COLUMNS: tl.constexpr, STRIDE: tl.constexpr):
    """Orders the pairs of keys that lie STRIDE apart; of whole numbers, a pair's sum less one is the other."""
    pairs = tl.reshape(key, [(ROWS << BITS) // (2 * STRIDE), 2, STRIDE, COLUMNS])
    other = tl.reshape(tl.sum(pairs, 1, keep_dims=True) - pairs, key.shape)
    wants_less = ((place & STRIDE) == 0) == ascending
    return tl.where(wants_less == (key < other), key, other)


@triton.jit
def sort(key, place, ROWS: tl.constexpr, BITS: tl.constexpr, COLUMNS: tl.constexpr):
    """Ascending along the middle axis of [ROWS, 2^BITS, COLUMNS], of which ROWS or COLUMNS is 1 and left out; `place` is 0, 1, ... along
    that axis. By the bitonic network."""
    for stage in tl.static_range(1, BITS + 1):
        for step in tl.static_range(stage):
            key = _exchange(key, place, (place & (1 << stage)) == 0, ROWS, BITS, COLUMNS, 1 << (stage - 1 - step))
    return key
