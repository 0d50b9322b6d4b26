"""A kernel of circular W_p, p > 1, against the reference in float64: on a GPU at its own tiles, in Triton's interpreter at small ones."""

import torch

from transphere import _library


def call(backend, tensors, p):
    return _library.op("circular_wasserstein_power", backend, tensors[0])(*tensors, p)


def problem(B, n, m, P, weighted, dtype):
    """Points of which no two of a set coincide, so that slopes and potentials are each one's own; about a third of the weights 0."""
    g = torch.Generator("cpu").manual_seed(2)
    rand = lambda *shape: torch.rand(*shape, generator=g, dtype=torch.float64, device="cpu")  # noqa: E731

    def distinct(k):
        return ((rand(B, k, P).argsort(1) + 0.1 + 0.8 * rand(B, k, P)) / k).to(dtype)

    u, v = distinct(n), distinct(m) ** 2
    if not weighted:
        return [u, v, None, None]
    weights = [rand(B, k) * (rand(B, k) < 0.7) + 1e-3 for k in (n, m)]
    return [u, v, *((w / w.sum(1, keepdim=True)).to(dtype) for w in weights)]


def assert_equals_reference(size, p, weighted, dtype, backend, device="cpu"):
    """Distance, slopes and potentials; the same bits again. Returns a function that calls the kernel, and what it gave."""
    tensors = problem(*size, weighted, dtype)
    double, there = ([x if x is None else x.to(to) for x in tensors] for to in (torch.float64, device))
    expected, got = call("reference", double, p), call(backend, there, p)
    tolerance = dict(rtol=1e-5, atol=5e-7) if dtype == torch.float32 else dict(rtol=1e-10, atol=1e-11)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x.cpu().double(), y, **tolerance)
    again = lambda: call(backend, there, p)  # noqa: E731
    assert all(torch.equal(x, y) for x, y in zip(got, again(), strict=True))
    return again, got
