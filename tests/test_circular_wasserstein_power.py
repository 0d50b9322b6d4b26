"""Circular W_p, p > 1, against an exact linear programme on the circle's metric, gradients against finite differences, symmetries."""

import math

import numpy as np
import ot
import pytest
import torch
from circular_power import assert_equals_reference
from test_circular_wasserstein import KINDS, points

import transphere as ts

TOLERANCE = {torch.float32: 5e-7, torch.float64: 1e-12}


def exact(u, v, p, a=None, b=None):
    cost = np.abs(u[:, None] - v[None])
    cost = np.minimum(cost, 1 - cost)
    top = cost.max()
    a = np.full(len(u), 1 / len(u)) if a is None else a / a.sum()
    b = np.full(len(v), 1 / len(v)) if b is None else b / b.sum()
    return top * ot.emd2(a, b, (cost / top) ** p, numItermax=10**6) ** (1 / p) if top > 0 else 0.0


@pytest.mark.parametrize("p", [1.5, 2, 4])
@pytest.mark.parametrize("n, m", [(1, 1), (1, 7), (5, 3), (16, 16), (33, 40), (90, 77)])
def test_equals_linear_programme(n, m, p, dtype, backend, size):
    for kind in KINDS[:: size(1, 2)]:
        u, v = points(kind, n, m, seed=n + m)
        got = ts.circular_wasserstein(torch.tensor(u, dtype=dtype), torch.tensor(v, dtype=dtype), p=p, backend=backend)
        u, v = (torch.tensor(z, dtype=dtype).double().cpu().numpy() for z in (u, v))
        assert got.item() == pytest.approx(exact(u, v, p), abs=TOLERANCE[dtype])


@pytest.mark.parametrize("p", [1.5, 2, 4])
@pytest.mark.parametrize("n, m", [(1, 1), (3, 9), (16, 16), (50, 31)])
def test_weights_equal_linear_programme(n, m, p, dtype, backend, size):
    for kind in KINDS[:: size(1, 2)]:
        u, v = points(kind, n, m)
        rng = np.random.default_rng(1)
        a, b = rng.random(n) * (rng.random(n) < 0.7) + 1e-3 * (np.arange(n) == 0), rng.random(m)
        tensors = [torch.tensor(x, dtype=dtype) for x in (u, v, a, b)]
        u, v, a, b = (t.double().cpu().numpy() for t in tensors)
        got = ts.circular_wasserstein(*tensors[:2], p=p, u_weights=tensors[2], v_weights=tensors[3], backend=backend)
        assert got.item() == pytest.approx(exact(u, v, p, a, b), abs=TOLERANCE[dtype])
        one_sided = ts.circular_wasserstein(*tensors[:2], p=p, v_weights=tensors[3], backend=backend)
        assert one_sided.item() == pytest.approx(exact(u, v, p, None, b), abs=TOLERANCE[dtype])


@pytest.mark.parametrize("p", [1.01, 2, 2.5, 10])
def test_known_values(p, dtype, backend):
    cases = ([0.97], [0.9], 0.07), ([0.95], [0.05], 0.1), ([0.0], [0.5], 0.5), ([0.1, 0.6], [0.35, 0.85], 0.25), ([0.2], [0.2], 0.0)
    for u, v, w in cases:
        got = ts.circular_wasserstein(torch.tensor(u, dtype=dtype), torch.tensor(v, dtype=dtype), p=p, backend=backend)
        assert got.item() == pytest.approx(w, abs=TOLERANCE[dtype])


def test_equal_sizes_are_the_best_of_all_rotations(backend):
    u, v = torch.rand(7, 12, dtype=torch.float64), torch.rand(7, 12, dtype=torch.float64)
    x, y = u.sort().values, v.sort().values
    turned = torch.cat([y - 1, y, y + 1], -1).unfold(-1, 12, 1)                              # (7, 25, 12)
    for p in (3, 10.0):  # at 10 the programme's solver is off by 1e-8
        expected = (x[:, None] - turned).abs().pow(p).mean(-1).min(-1).values ** (1 / p)
        torch.testing.assert_close(ts.circular_wasserstein(u, v, p=p, backend=backend), expected)


@pytest.mark.parametrize("n, m", [(16, 16), (9, 14), (70, 70)])
@pytest.mark.parametrize("p", [2, 3.5])
def test_symmetries(n, m, p, dtype, backend, size):
    rows = size(20, 2)
    u, v = torch.rand(rows, n, dtype=dtype), torch.rand(rows, m, dtype=dtype)
    w = lambda u, v: ts.circular_wasserstein(u, v, p=p, backend=backend)  # noqa: E731
    atol = TOLERANCE[dtype]
    base = w(u, v)
    assert (base >= ts.circular_wasserstein(u, v) - atol).all() and (base <= 0.5).all()      # W_p grows with p
    torch.testing.assert_close(w(v, u), base, atol=atol, rtol=0)
    torch.testing.assert_close(w(u + 0.37, v + 0.37), base, atol=atol, rtol=0)
    torch.testing.assert_close(w(-u, -v), base, atol=atol, rtol=0)
    torch.testing.assert_close(w(u.flip(-1), v[:, torch.randperm(m)]), base, atol=atol, rtol=0)
    torch.testing.assert_close(w(u + torch.randint(-3, 4, u.shape), v), base, atol=atol, rtol=0)


@pytest.mark.parametrize("p", [1.5, 2, 3])
@pytest.mark.parametrize("n, m", [(4, 4), (3, 5), (7, 2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients(n, m, p, weighted, backend, gradcheck):
    u, v = torch.rand(2, n, dtype=torch.float64), torch.rand(2, m, dtype=torch.float64)
    weights = [torch.rand(2, k, dtype=torch.float64) + 0.2 for k in (n, m)] if weighted else []
    inputs = [t.requires_grad_() for t in (u, v, *weights)]

    def f(u, v, a=None, b=None):
        return ts.circular_wasserstein(u, v, p=p, u_weights=a, v_weights=b, backend=backend)

    assert gradcheck(f, inputs)
    together = torch.autograd.grad(f(*inputs).sum(), inputs)
    for wanted, expected in enumerate(together):  # each gradient by itself
        assert torch.equal(torch.autograd.grad(f(*inputs).sum(), inputs[wanted])[0], expected)


@pytest.mark.parametrize("p", [1.5, 2, 10])
def test_identical_sets_have_gradient_zero(p, dtype, backend):
    u = torch.rand(3, 9, dtype=dtype)
    a = torch.rand(3, 9, dtype=dtype).requires_grad_()
    for weights, other in ({}, u.flip(-1)), (dict(u_weights=a, v_weights=a), u):
        x, y = (z.clone().requires_grad_() for z in (u, other))
        got = ts.circular_wasserstein(x, y, p=p, **weights, backend=backend)
        assert (got == 0).all()
        for g in torch.autograd.grad(got.sum(), (x, y, a) if weights else (x, y)):
            assert (g == 0).all()


def test_large_orders_neither_underflow_nor_overflow(dtype, backend):
    """Distances of 1e-5, whose tenth power float32 does not hold."""
    u = (0.5 + 1e-5 * torch.rand(4, 8, dtype=torch.float64)).to(dtype).requires_grad_()
    v = (0.5 + 1e-5 * torch.rand(4, 8, dtype=torch.float64)).to(dtype)
    got = ts.circular_wasserstein(u, v, p=10, backend=backend)
    expected = ts.circular_wasserstein(u.double(), v.double(), p=10, backend="reference")
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=0)
    (g,) = torch.autograd.grad(got.sum(), u)
    assert g.isfinite().all() and (g.abs().sum(-1) > 0.1).all() and (g.abs() <= 1).all()


def test_small_orders_approach_the_median_form(backend):
    u, v = torch.rand(3, 9, dtype=torch.float64), torch.rand(3, 12, dtype=torch.float64)
    got = ts.circular_wasserstein(u, v, p=1 + 1e-9, backend=backend)
    torch.testing.assert_close(got, ts.circular_wasserstein(u, v), atol=1e-8, rtol=0)


@pytest.mark.parametrize("shape", [(1,), (3, 4), (17,)])
def test_batches_equal_single_problems(shape, dtype, backend, size):
    """Bit for bit: neighbours in a batch do not matter."""
    u, v = torch.rand(*shape, 10, dtype=dtype), torch.rand(*shape, 6, dtype=dtype)
    batch = ts.circular_wasserstein(u, v, p=2, backend=backend)
    assert batch.shape == shape
    for i in list(np.ndindex(*shape))[:: size(1, 7)]:
        assert torch.equal(batch[i], ts.circular_wasserstein(u[i], v[i], p=2, backend=backend))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_nan_stays_in_its_own_row(poison, weighted, dtype, backend):
    u, v = torch.rand(5, 6, dtype=dtype), torch.rand(5, 6, dtype=dtype)
    weights = dict(u_weights=torch.rand(5, 6, dtype=dtype)) if weighted else {}
    clean = ts.circular_wasserstein(u, v, p=2, **weights, backend=backend)
    u[2, 3] = poison
    u.requires_grad_()
    got = ts.circular_wasserstein(u, v, p=2, **weights, backend=backend)
    got.sum().backward()
    assert got[2].isnan() and u.grad[2].isnan().all()
    keep = torch.arange(5) != 2
    assert torch.equal(got[keep], clean[keep]) and u.grad[keep].isfinite().all()


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf, 0.0, "a sum that overflows"])
def test_what_is_no_weight_makes_its_row_nan(wrong, dtype, backend):
    """The public function refuses such weights where looking is free; the kernels do not hang on them."""
    u, v, a, b = (torch.rand(2, k, 1, dtype=dtype) for k in (4, 5, 4, 5))
    a, b = a[..., 0], b[..., 0]
    clean = ts._library.op("circular_wasserstein_power", backend, u)(u, v, a, b, 2.0)
    if isinstance(wrong, str):
        a[1] = 0.9 * torch.finfo(torch.float64).max if dtype == torch.float64 else math.inf
    elif wrong == 0:
        a[1] = 0
    else:
        a[1, 2] = wrong
    got = ts._library.op("circular_wasserstein_power", backend, u)(u, v, a, b, 2.0)
    for g, c in zip(got, clean, strict=True):
        assert torch.equal(g[0], c[0]) and g[1].isnan().all()


@pytest.mark.parametrize("weighted", [False, True])
def test_many_points(weighted, dtype, backend):
    """More than shared memory holds, or Triton sorts in registers, of unequal numbers: distance, slopes and potentials."""
    u, v = torch.rand(1, 1600, 1, dtype=dtype), torch.rand(1, 1100, 1, dtype=dtype) ** 2
    a, b = (torch.rand(1, k, dtype=dtype) * (torch.rand(1, k) < 0.7) if weighted else None for k in (1600, 1100))
    expected = torch.ops.transphere.circular_wasserstein_power_reference(*(x if x is None else x.double() for x in (u, v, a, b)), 2.0)
    got = ts._library.op("circular_wasserstein_power", backend, u)(u, v, a, b, 2.0)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x.double(), y, atol=TOLERANCE[dtype], rtol=1e-5 if dtype == torch.float32 else 1e-11)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 32 points, sums over 2 tiles at once, and few problems a workspace, for all sets of more than 20 points."""
    import triton.language as tl

    from transphere.kernels import _circular_power_large as large
    from transphere.kernels import _tiles
    from transphere.kernels import circular_wasserstein_power as kernel

    monkeypatch.setattr(kernel, "MOST_SORTED", 20)
    monkeypatch.setattr(_tiles, "LANES", tl.constexpr(2))
    monkeypatch.setattr(_tiles, "AT_ONCE", 150)
    for module in (large, _tiles):
        monkeypatch.setattr(module, "TILE", tl.constexpr(32))


@pytest.mark.skipif(torch.cuda.is_available(), reason="compiled kernels keep their tiles; tests/gpu has the sizes")
@pytest.mark.parametrize("weighted", [False, True], ids=["uniform", "weighted"])
@pytest.mark.parametrize("p", [1.5, 2.0])
@pytest.mark.parametrize("size", [(1, 40, 70, 2), (1, 32, 64, 1), (1, 33, 1, 1)], ids=str)
def test_tiles(size, p, weighted, small_tiles):
    """Whole tiles and not, one and several, more than are summed at once, and more problems than a workspace takes."""
    assert_equals_reference(size, p, weighted, torch.float64, "triton")


def test_half_type_and_empty_batch():
    u, v = torch.rand(3, 9).bfloat16(), torch.rand(3, 9).bfloat16()
    got = ts.circular_wasserstein(u, v, p=2)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), ts.circular_wasserstein(u.float(), v.float(), p=2), atol=2e-3, rtol=0)
    assert ts.circular_wasserstein(torch.rand(0, 4), torch.rand(0, 5), p=2).shape == (0,)


def test_no_second_derivatives():
    """The slopes change with the points: a penalty on them must not pass for one."""
    u = torch.rand(1, 4, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(ts.circular_wasserstein(u, torch.rand(1, 5, dtype=torch.float64), p=2).square().sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        g.square().sum().backward()


@pytest.mark.parametrize("p", [0.5, 0, -1, 500, math.inf, math.nan, "2", True, None])
def test_bad_order(p):
    with pytest.raises(ValueError, match="p: expected a number >= 1"):
        ts.circular_wasserstein(torch.rand(3), torch.rand(3), p=p)
    if isinstance(p, float) and not p > 1:
        with pytest.raises(RuntimeError, match="expected a finite p > 1"):
            torch.ops.transphere.circular_wasserstein_power(torch.rand(1, 3, 1), torch.rand(1, 3, 1), None, None, p)
