"""A sort of whole numbers along rows. tl.sort reshapes to one axis per bit, which takes minutes to compile at a thousand numbers a row."""

import triton
import triton.language as tl


@triton.jit
def _exchange(key, ascending, ROWS: tl.constexpr, BITS: tl.constexpr, STRIDE: tl.constexpr):
    """Orders the pairs of keys that lie STRIDE apart; of whole numbers, a pair's sum less one is the other."""
    pairs = tl.reshape(key, [(ROWS << BITS) // (2 * STRIDE), 2, STRIDE])
    other = tl.reshape(tl.sum(pairs, 1, keep_dims=True) - pairs, key.shape)
    wants_less = ((tl.arange(0, 1 << BITS) & STRIDE) == 0)[None, :] == ascending
    return tl.where(wants_less == (key < other), key, other)


@triton.jit
def sort(key, ROWS: tl.constexpr, BITS: tl.constexpr):
    """Ascending along the rows [R, 2^BITS], by the bitonic network."""
    lane = tl.arange(0, 1 << BITS)[None, :]
    for stage in tl.static_range(1, BITS + 1):
        for step in tl.static_range(stage):
            key = _exchange(key, (lane & (1 << stage)) == 0, ROWS, BITS, 1 << (stage - 1 - step))
    return key
