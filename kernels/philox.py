"""Philox4x32-10 and what is made of its words; csrc/philox.h has the counters, csrc/vmf_sample.h the layout of the normals."""

import triton
import triton.language as tl

from .elementary import sincos_midpoint


@triton.jit
def seed_key(seed_ptr):
    """The two seed words, int64[2], as one key."""
    return (tl.load(seed_ptr) & 0xFFFFFFFF) | (tl.load(seed_ptr + 1) << 32)


@triton.jit
def words(key, index, STREAM: tl.constexpr, sample):
    """The four words of draw `index` of a stream, for the int64 sample numbers `sample`; index and sample broadcast."""
    low, high = (sample & 0xFFFFFFFF).to(tl.uint32), (sample >> 32).to(tl.uint32)
    c0, c2 = tl.broadcast(index.to(tl.uint32), low)
    c3 = high + c0 * 0
    return tl.philox(key, c0, c0 * 0 + STREAM, c2, c3)


@triton.jit
def uniform(word, T: tl.constexpr):
    """The 24 leading bits, exact, in [0, 1)."""
    return (word >> 8).to(tl.int32).to(T) * 5.9604644775390625e-08


@triton.jit
def uniform_positive(word, T: tl.constexpr):
    """1 - uniform, in (0, 1], where a logarithm follows."""
    return (0x1000000 - (word >> 8).to(tl.int32)).to(T) * 5.9604644775390625e-08


@triton.jit
def _normal_pair(radius_word, angle_word, T: tl.constexpr):
    radius2 = -2.0 * tl.log(uniform_positive(radius_word, T))
    radius = tl.sqrt(tl.maximum(radius2, 5.9604644775390625e-08))  # never (0, 0)
    sine, cosine = sincos_midpoint(uniform(angle_word, T))
    return radius * cosine, radius * sine


@triton.jit
def normals(key, block, sample, T: tl.constexpr):
    """Four standard normals a block: the coordinates block, block + q, block + 2q and block + 3q of the samples' vectors."""
    w0, w1, w2, w3 = words(key, block, 0, sample)
    g0, g1 = _normal_pair(w0, w1, T)
    g2, g3 = _normal_pair(w2, w3, T)
    return g0, g1, g2, g3
