"""The op from coordinates to distances: against the two ops that it joins, on every backend, values, bits and gradients."""

import math

import pytest
import torch

import transphere as ts
from transphere import _library
from transphere.ops.sliced_wasserstein import MAX_FUSED  # the kernels have the number for themselves


def sets(B, n, P, dtype, seed=0):
    g = torch.Generator("cpu").manual_seed(seed)
    draw = lambda: torch.randn(B, n, 2 * P, generator=g, dtype=torch.float64, device="cpu")  # noqa: E731
    return [draw().to(torch.get_default_device(), dtype) for _ in range(2)]


def joined(u, v, backend, max_grad=math.inf):
    return _library.op("sliced_wasserstein", backend, u)(u, v, max_grad)


def apart(u, v, backend):
    angle = lambda z: _library.op("circular_projection", backend, z)(z.flatten(0, 1)).view(*z.shape[:2], z.shape[2] // 2)  # noqa: E731
    return _library.op("circular_wasserstein", backend, u)(angle(u), angle(v), None, None)[0]


SHAPES = [(0, 3, 2), (2, 3, 0), (1, 1, 1), (2, 4, 3), (3, 5, 7), (2, 16, 9), (5, 13, 1), (1, 31, 9), (2, 64, 3), (1, MAX_FUSED, 5)]


@pytest.mark.parametrize("B, n, P", SHAPES)
def test_equals_the_ops_it_joins(B, n, P, dtype, backend):
    u, v = (x.requires_grad_() for x in sets(B, n, P, dtype))
    got, expected = joined(u, v, backend)[0], apart(u, v, backend)
    assert got.shape == (B, P)
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-7 if dtype == torch.float32 else 1e-15)
    G = torch.randn_like(got)
    pairs = zip(torch.autograd.grad(got, (u, v), G), torch.autograd.grad(expected, (u, v), G), strict=True)
    for x, y in pairs:
        torch.testing.assert_close(x, y, rtol=1e-5 if dtype == torch.float32 else 1e-13, atol=0)


@pytest.mark.parametrize("n", [1, 3, 4, 8, 50])
def test_bits_are_the_signs(n, backend):
    u, v = sets(2, n, 3, torch.float64)
    rises = joined(u, v, backend)[1]
    assert rises.dtype == torch.uint8 and rises.shape == (2, -(-2 * n // 8), 3)
    assert torch.equal(rises.cpu(), joined(u.cpu(), v.cpu(), "reference")[1])


def test_gradcheck(backend, gradcheck):
    u, v = (x.requires_grad_() for x in sets(2, 3, 2, torch.float64))
    assert gradcheck(lambda u, v: joined(u, v, backend)[0], (u, v))


def test_cap(backend, dtype):
    """Capped, a gradient keeps its direction and has the length max_grad / n or its own, whichever is less."""
    u, v = (x.requires_grad_() for x in sets(1, 9, 20, dtype))
    free, capped = (torch.autograd.grad(joined(u, v, backend, c)[0].sum(), u)[0] for c in (math.inf, 0.3))
    length, short = (torch.hypot(*g.chunk(2, -1)) for g in (free, capped))                   # (1, 9, 20)
    assert (length > 0.3 / 9).any() and (length < 0.3 / 9).any()
    torch.testing.assert_close(short, length.clamp(max=0.3 / 9), rtol=1e-5, atol=0)
    torch.testing.assert_close(capped / short.repeat(1, 1, 2), free / length.repeat(1, 1, 2), rtol=1e-5, atol=1e-6)


def test_nan_is_of_its_own_circle(backend):
    u, v = (x.requires_grad_() for x in sets(3, 5, 4, torch.float32))
    with torch.no_grad():
        u[1, 2, 6] = math.nan  # the second coordinate in plane 2
    cost, _ = joined(u, v, backend)
    wrong = torch.zeros_like(cost, dtype=torch.bool)
    wrong[1, 2] = True
    assert torch.equal(cost.isnan(), wrong)
    for grad in torch.autograd.grad(cost, (u, v), torch.ones_like(cost)):
        assert torch.equal(grad.isnan().any(1), wrong.repeat(1, 2))


def test_origin_and_duplicates(backend):
    u = torch.zeros(1, 4, 6, requires_grad=True)
    cost, _ = joined(u, torch.zeros(1, 4, 6), backend)
    (grad,) = torch.autograd.grad(cost.sum(), u)
    assert (cost == 0).all() and (grad == 0).all()


def test_same_bits_alone_and_in_a_batch(backend, dtype):
    u, v = sets(5, 6, 11, dtype)
    together = joined(u, v, backend)
    for b in (0, 3):
        assert all(torch.equal(x, y[b : b + 1]) for x, y in zip(joined(u[b : b + 1], v[b : b + 1], backend), together, strict=True))


def test_non_contiguous(backend):
    u, v = sets(2, 6, 5, torch.float64)
    strided = (x.permute(2, 1, 0).contiguous().permute(2, 1, 0) for x in (u, v))
    assert all(torch.equal(x, y) for x, y in zip(joined(*strided, backend), joined(u, v, backend), strict=True))


@pytest.mark.parametrize("n", [MAX_FUSED, MAX_FUSED + 1])
def test_the_public_function_on_both_sides_of_the_limit(n, backend, size, unit):
    n = size(n, n)
    x, y, frames = unit(n, 3), unit(n, 3, seed=1), ts.great_circles(2, 3, dtype=torch.float64).to(torch.get_default_device())
    got, expected = (ts.sliced_wasserstein_sphere(x, y, projections=frames, backend=b) for b in (backend, "reference"))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_refusals():
    for backend in ("cpu", "triton"):
        with pytest.raises(RuntimeError, match=f"between 1 and {MAX_FUSED} points a set"):
            joined(torch.ones(1, MAX_FUSED + 1, 2), torch.ones(1, MAX_FUSED + 1, 2), backend)
        with pytest.raises(RuntimeError, match="one shape"):
            joined(torch.ones(1, 3, 2), torch.ones(1, 4, 2), backend)


def test_emulated_threads_in_any_order(request):
    import emulated

    library = emulated.register(request.config.getoption("sanitize"))
    for n in (5, 60):
        u, v = sets(1, n, 3, torch.float32)
        results = []
        for seed in emulated.SEEDS:
            library.transphere_emulator_seed(seed)
            results.append(joined(u, v, "emulated"))
        assert all(torch.equal(x, y) for other in results[1:] for x, y in zip(results[0], other, strict=True))
