"""One generator: the words of C++, of Triton and of the reference agree bit for bit, and match the published ones."""

import pytest
import torch
import triton
import triton.language as tl

from transphere import _library
from transphere.kernels import philox as kernels
from transphere.reference.philox import normals, philox, uniform

# Known-answer vectors of Random123 (Salmon et al.): counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def reference(counter, key):
    words = philox(tuple(torch.tensor(k) for k in key), *(torch.tensor(c) for c in counter))
    return tuple(int(w) for w in words)


@triton.jit
def _words_kernel(seed_ptr, index_ptr, sample_ptr, out_ptr, uniform_ptr, N: tl.constexpr, STREAM: tl.constexpr):
    i = tl.arange(0, N)
    words = kernels.words(kernels.seed_key(seed_ptr), tl.load(index_ptr + i), STREAM, tl.load(sample_ptr + i))
    for j in tl.static_range(4):
        tl.store(out_ptr + 4 * i + j, words[j].to(tl.int64))
        tl.store(uniform_ptr + 4 * i + j, kernels.uniform(words[j], tl.float32))


def triton_words(key, index, stream, sample):
    """The words (N, 4) and their float32 uniforms, N a power of 2."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seed, index, sample = (torch.as_tensor(t).to(device) for t in (key, index, sample))
    out = torch.empty(len(index), 4, dtype=torch.int64, device=device)
    uniforms = torch.empty(len(index), 4, device=device)
    _words_kernel[(1,)](seed, index, sample, out, uniforms, N=len(index), STREAM=stream, enable_fp_fusion=True)
    return out.cpu(), uniforms.cpu()


@pytest.mark.parametrize("counter, key, words", KNOWN)
def test_known_answers(counter, key, words):
    assert reference(counter, key) == words
    assert _library._C._philox(*key, *counter) == words
    c0, c1, c2, c3 = counter
    sample = c2 | c3 << 32
    got, _ = triton_words(key, [c0], c1, [sample - 2**64 if sample >= 2**63 else sample])
    assert tuple(got[0].tolist()) == words


def test_compiled_equals_reference():
    g = torch.Generator().manual_seed(1)
    edge = torch.tensor([0, 1, 2**31 - 1, 2**31, 2**32 - 1])
    rows = torch.cat([torch.randint(0, 2**32, (200, 6), generator=g), edge[:, None].expand(-1, 6)]).tolist()
    for k0, k1, *counter in rows:
        assert _library._C._philox(k0, k1, *counter) == reference(counter, (k0, k1))


@pytest.mark.parametrize("stream", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("key", [(0, 0), (2**32 - 1, 2**31), (12345, 2**32 - 1)])
def test_triton_equals_reference(key, stream):
    """Draw numbers over all 32 bits, sample numbers around 2^32 and up to 2^63."""
    edge = torch.tensor([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 3 * 2**32 - 1, 2**63 - 1])
    sample = torch.cat([edge, torch.randint(0, 2**63 - 1, (55,))])
    index = torch.cat([edge[:5], torch.randint(0, 2**32, (59,))])
    counter = index, torch.full_like(index, stream), sample & 0xFFFFFFFF, sample >> 32
    expected = torch.stack(philox(tuple(map(torch.tensor, key)), *counter), -1)
    words, uniforms = triton_words(key, index, stream, sample)
    assert torch.equal(words, expected) and torch.equal(uniforms.double(), uniform(expected))


def test_uniforms_are_exact_in_float32():
    words = torch.tensor([0, 255, 256, 2**31, 2**32 - 1])
    u = uniform(words)
    assert u.min() >= 0 and u.max() < 1
    assert torch.equal(u.float().double(), u)


def test_normals_are_normal():
    key = (torch.tensor(3), torch.tensor(4))
    g = normals(key, torch.arange(20000), 7)
    assert g.shape == (20000, 7)
    torch.testing.assert_close(torch.cov(g.T), torch.eye(7, dtype=g.dtype), atol=0.04, rtol=0)
    cdf = torch.special.ndtr(g.flatten().sort().values)
    assert (cdf - torch.linspace(0, 1, cdf.numel(), dtype=cdf.dtype)).abs().max() < 1.95 / cdf.numel() ** 0.5


def test_sample_numbers_beyond_32_bits_differ():
    key = (torch.tensor(0), torch.tensor(0))
    a, b = (normals(key, torch.tensor([s]), 4) for s in (1, 2**32 + 1))
    assert not torch.equal(a, b)
