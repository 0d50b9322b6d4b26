"""Circular W1 at the sizes where the kernels change their ways: cost, slopes and potentials against the reference in float64."""

import math

import pytest
import torch

import transphere as ts
from transphere import _library

# (B, n, m, P): up to 32, 64, 128, 256 points part of a warp solves a problem, up to 512 ... 4096 part of a block.
SMALL = [(1, 1, 1, 1), (2, 16, 16, 5), (2, 15, 16, 3), (3, 16, 17, 1), (2, 32, 32, 3), (1, 40, 25, 7)]
MEDIUM = [(1, 64, 64, 5), (1, 1, 128, 3), (3, 128, 128, 1), (1, 200, 57, 3)]
LARGE = [(1, 256, 256, 1), (1, 300, 213, 3), (1, 512, 513, 1), (1, 1024, 1025, 1), (1, 2048, 2048, 1)]
BEYOND = [(1, 2048, 2049, 1), (1, 5000, 1, 3), (2, 4100, 4100, 1)]
# The 26 bits of a short key are 1.5e-8 and a rounding of a potential is 3e-8; the reference's own sums of 5000 weights are 1e-14 off.
TOLERANCE = {torch.float32: dict(rtol=2e-6, atol=5e-8), torch.float64: dict(rtol=1e-12, atol=1e-13)}


def call(backend, *tensors):
    return _library.op("circular_wasserstein", backend, tensors[0])(*tensors, *[None] * (4 - len(tensors)))


def problems(B, n, m, P, dtype, weighted=False, steps=0):
    """Points around 0, half of them, or on `steps` places; about a third of the weights 0."""
    u, v = torch.rand(B, n, P, dtype=torch.float64), torch.rand(B, m, P, dtype=torch.float64)
    u[:, ::2], v[:, ::2] = 0.1 * u[:, ::2] - 0.05, 0.2 * v[:, ::2] - 0.1
    if steps:
        u, v = (steps * u).round() / steps, (steps * v).round() / steps
    points = [(x % 1).to(dtype) for x in (u, v)]  # below 0, float32 would lose digits on the way
    if not weighted:
        return points
    weights = [torch.rand(B, k, dtype=torch.float64) * (torch.rand(B, k) < 0.7) + 1e-3 for k in (n, m)]
    return points + [(w / w.sum(-1, keepdim=True)).to(dtype) for w in weights]


@pytest.fixture
def few(backend, monkeypatch):
    """`few(n, m)`: as many, but a fifth of what is more than Triton sorts in registers, with the limit lowered: interpreted, a tile of 1024
    takes its time."""
    from transphere.kernels import circular_wasserstein as kernel

    def of(n, m):
        if backend != "triton" or n + m <= kernel.MOST_SORTED + 1:
            return n, m
        monkeypatch.setattr(kernel, "MOST_SORTED", 800)
        return n // 5, m // 5 or 1

    return of


def assert_equals_reference(tensors, backend, names=("cost", "u_slope", "v_slope", "u_potential", "v_potential")):
    expected = call("reference", *[x.double() for x in tensors])
    for name, got, want in zip(names, call(backend, *tensors), expected, strict=False):
        assert got.dtype == tensors[0].dtype
        torch.testing.assert_close(got.double(), want, **TOLERANCE[got.dtype], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("weighted", [False, True], ids=["uniform", "weighted"])
@pytest.mark.parametrize("shape", SMALL + MEDIUM + LARGE + BEYOND, ids=str)
def test_equals_reference(shape, weighted, dtype, backend, few):
    shape = shape[0], *few(*shape[1:3]), shape[3]
    assert_equals_reference(problems(*shape, dtype, weighted), backend)


@pytest.mark.parametrize("shape", [(65, 2, 1, 1), (3, 2, 3, 43), (1, 20, 20, 65)], ids=str)
def test_more_problems_than_a_block_takes(shape, dtype, backend):
    """The emulated block has 64 problems of up to 32 points; some of its last one's are not there."""
    assert_equals_reference(problems(*shape, dtype), backend)


@pytest.mark.parametrize("weighted", [False, True], ids=["uniform", "weighted"])
@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (1, 40, 40, 3), (1, 100, 157, 1), (1, 300, 300, 1), (1, 3000, 2000, 1)], ids=str)
@pytest.mark.parametrize("steps", [1, 16])
def test_duplicates(shape, weighted, steps, dtype, backend, few):
    """Among equal points the slopes may come in any order; with one place there is no distance at all."""
    shape = shape[0], *few(*shape[1:3]), shape[3]
    tensors = problems(*shape, dtype, weighted, steps)
    assert_equals_reference(tensors, backend, names=("cost",))
    cost, u_slope, v_slope, *_ = call(backend, *tensors)
    assert (u_slope.sum(1) + v_slope.sum(1)).abs().max() < 2e-5  # a rotation costs nothing
    if steps == 1:
        assert (cost == 0).all()


@pytest.mark.parametrize("weighted", [False, True], ids=["uniform", "weighted"])
@pytest.mark.parametrize("n", [5, 40, 100, 200, 2100])
def test_nan_is_of_its_own_problem(n, weighted, backend, few):
    n, _ = few(n, n)
    B, P, at = 2, 3, (1, n // 2, 1)
    tensors = problems(B, n, n, P, torch.float32, weighted)
    clean = call(backend, *tensors)
    for poison in (math.nan, -math.inf):
        tensors[1][at] = poison
        got = call(backend, *tensors)
        assert got[0][1, 1].isnan() and all(x[1, :, 1].isnan().all() for x in got[1:] if x.numel())
        keep = torch.ones(B, P, dtype=torch.bool)
        keep[1, 1] = False
        for x, y in zip(got, clean, strict=True):
            if x.numel():
                assert torch.equal(x.movedim(-1, 1)[keep], y.movedim(-1, 1)[keep])           # (B, P) or (B, P, n)


@pytest.mark.parametrize("n, m", [(16, 16), (9, 30), (60, 61), (130, 100), (300, 300), (4100, 20)])
def test_same_bits_alone_and_in_a_batch(n, m, dtype, backend, few):
    n, m = few(n, m)
    u, v = problems(2, n, m, 5, dtype)
    batch, alone = call(backend, u, v), call(backend, u[1:, :, 3:4], v[1:, :, 3:4])
    for x, y in zip(batch[:3], alone[:3], strict=True):
        assert torch.equal(x[1:, ..., 3:4], y)


@pytest.mark.parametrize("B, P", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("n", [4, 3000])
def test_no_problems(B, P, n, dtype, backend, few):
    n, _ = few(n, n)
    cost, u_slope, v_slope, *_ = call(backend, *problems(B, n, n, P, dtype))
    assert cost.shape == (B, P) and u_slope.shape == v_slope.shape == (B, n, P)


@pytest.mark.parametrize("n", [16, 2100])
def test_strides_and_upstream(n, backend, few):
    """Points that are not contiguous, and a gradient that is one number expanded."""
    n, _ = few(n, n)
    u, v = problems(2, n, n, 3, torch.float64)
    expected = call(backend, u, v)
    strided = [x.permute(2, 1, 0).contiguous().permute(2, 1, 0) for x in (u, v)]
    for x, y in zip(call(backend, *strided), expected, strict=True):
        assert torch.equal(x, y)
    points = u.mT.clone().requires_grad_()                                                   # (2, 3, n)
    distance = ts.circular_wasserstein(points, v.mT, backend=backend)
    distance.backward(torch.tensor(0.5, dtype=torch.float64).expand(2, 3))
    torch.testing.assert_close(points.grad, 0.5 * expected[1].mT, rtol=1e-15, atol=0)


@pytest.mark.parametrize("weighted", [False, True], ids=["uniform", "weighted"])
@pytest.mark.parametrize("n, m", [(16, 16), (50, 60), (200, 200), (2500, 2500)])
def test_emulated_threads_in_any_order(n, m, weighted, request):
    import emulated

    library = emulated.register(request.config.getoption("sanitize"))
    tensors, results = problems(1, n, m, 3, torch.float32, weighted), []
    for seed in (emulated.SEEDS if n < 1000 else (0, 1, 5)):
        library.transphere_emulator_seed(seed)
        results.append(call("emulated", *tensors))
    assert all(torch.equal(x, y) for other in results[1:] for x, y in zip(results[0], other, strict=True))
