"""Circular W1 against an exact linear programme on the circle's metric, its gradients against finite differences, and its symmetries."""

import math

import numpy as np
import ot
import pytest
import torch

import transphere as ts

TOLERANCE = {torch.float32: 3e-7, torch.float64: 1e-13}
KINDS = ["uniform", "concentrated", "wrapped", "duplicates", "equal"]


def exact(u, v, a=None, b=None):
    cost = np.abs(u[:, None] - v[None])
    n, m = len(u), len(v)
    a = np.full(n, 1 / n) if a is None else a / a.sum()
    b = np.full(m, 1 / m) if b is None else b / b.sum()
    return ot.emd2(a, b, np.minimum(cost, 1 - cost))


def points(kind, n, m, seed=0):
    rng = np.random.default_rng(seed)
    u, v = rng.random(n), rng.random(m)
    if kind == "concentrated":
        u, v = 0.8 + 0.05 * u, 0.75 + 0.1 * v
    if kind == "wrapped":
        u, v = (0.97 + 0.06 * u) % 1, (0.9 + 0.08 * v) % 1
    if kind == "duplicates":
        u, v = np.round(8 * u) / 8 % 1, np.round(8 * v) / 8 % 1
    if kind == "equal":
        v[: min(n, m)] = u[: min(n, m)]
    return u, v


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n, m", [(1, 1), (1, 7), (5, 3), (4, 4), (8, 8), (16, 16), (16, 24), (31, 33), (40, 40), (100, 77), (128, 128)])
def test_equals_linear_programme(kind, n, m, dtype, backend):
    u, v = points(kind, n, m, seed=n + m)
    got = ts.circular_wasserstein(torch.tensor(u, dtype=dtype), torch.tensor(v, dtype=dtype), backend=backend)
    assert got.item() == pytest.approx(exact(u, v), abs=TOLERANCE[dtype])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n, m", [(1, 1), (3, 9), (16, 16), (50, 31)])
def test_weights_equal_linear_programme(kind, n, m, dtype, backend):
    u, v = points(kind, n, m)
    rng = np.random.default_rng(1)
    a, b = rng.random(n) * (rng.random(n) < 0.7) + 1e-3 * (np.arange(n) == 0), rng.random(m)
    tensors = [torch.tensor(x, dtype=dtype) for x in (u, v, a, b)]
    got = ts.circular_wasserstein(*tensors[:2], u_weights=tensors[2], v_weights=tensors[3], backend=backend)
    assert got.item() == pytest.approx(exact(u, v, a, b), abs=3 * TOLERANCE[dtype])
    one_sided = ts.circular_wasserstein(*tensors[:2], u_weights=tensors[2], backend=backend)
    assert one_sided.item() == pytest.approx(exact(u, v, a), abs=3 * TOLERANCE[dtype])


def test_equal_weights_change_nothing(dtype, backend):
    u, v = torch.rand(7, 12, dtype=dtype), torch.rand(7, 20, dtype=dtype)
    plain = ts.circular_wasserstein(u, v, backend=backend)
    weighted = ts.circular_wasserstein(u, v, u_weights=torch.full_like(u, 3.0), v_weights=torch.ones(20, dtype=dtype), backend=backend)
    torch.testing.assert_close(plain, weighted, atol=2 * TOLERANCE[dtype], rtol=0)


def test_known_values(dtype, backend):
    cases = ([0.97], [0.9], 0.07), ([0.95], [0.05], 0.1), ([0.0], [0.5], 0.5), ([0.1, 0.6], [0.35, 0.85], 0.25), ([0.2], [0.2], 0.0)
    for u, v, w in cases:
        got = ts.circular_wasserstein(torch.tensor(u, dtype=dtype), torch.tensor(v, dtype=dtype), backend=backend)
        assert got.item() == pytest.approx(w, abs=TOLERANCE[dtype])


@pytest.mark.parametrize("n, m", [(16, 16), (9, 14), (70, 70)])
def test_symmetries(n, m, dtype, backend, size):
    rows = size(20, 4)
    u, v = torch.rand(rows, n, dtype=dtype), torch.rand(rows, m, dtype=dtype)
    w = lambda u, v: ts.circular_wasserstein(u, v, backend=backend)  # noqa: E731
    atol = 4 * TOLERANCE[dtype]
    base = w(u, v)
    assert (base >= 0).all() and (base <= 0.5).all()
    torch.testing.assert_close(w(v, u), base, atol=atol, rtol=0)
    torch.testing.assert_close(w(u + 0.37, v + 0.37), base, atol=atol, rtol=0)
    torch.testing.assert_close(w(-u, -v), base, atol=atol, rtol=0)
    torch.testing.assert_close(w(u.flip(-1), v[:, torch.randperm(m)]), base, atol=atol, rtol=0)
    torch.testing.assert_close(w(u + torch.randint(-3, 4, u.shape), v), base, atol=atol, rtol=0)
    assert (w(u, u) <= atol).all()


@pytest.mark.parametrize("n, m", [(4, 4), (3, 5), (40, 40)])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients(n, m, weighted, backend, gradcheck):
    u, v = torch.rand(2, n, dtype=torch.float64), torch.rand(2, m, dtype=torch.float64)
    weights = [torch.rand(2, k, dtype=torch.float64) + 0.2 for k in (n, m)] if weighted else []
    inputs = [t.requires_grad_() for t in (u, v, *weights)]

    def f(u, v, a=None, b=None):
        return ts.circular_wasserstein(u, v, u_weights=a, v_weights=b, backend=backend)

    assert gradcheck(f, inputs)
    for wanted in range(len(inputs)):  # each gradient by itself
        (alone,) = torch.autograd.grad(f(*inputs).sum(), inputs[wanted])
        together = torch.autograd.grad(f(*inputs).sum(), inputs)[wanted]
        assert torch.equal(alone, together)


def test_equal_sizes_have_gradient_plus_or_minus_one_over_n(dtype, backend):
    u, v = torch.rand(9, 16, dtype=dtype, requires_grad=True), torch.rand(9, 16, dtype=dtype, requires_grad=True)
    gu, gv = torch.autograd.grad(ts.circular_wasserstein(u, v, backend=backend).sum(), (u, v))
    assert torch.equal(gu.abs(), torch.full_like(gu, 1 / 16)) and torch.equal(gv.abs(), torch.full_like(gv, 1 / 16))
    torch.testing.assert_close(gu.sum(-1) + gv.sum(-1), torch.zeros(9, dtype=dtype), atol=1e-6, rtol=0)  # a rotation costs nothing


@pytest.mark.parametrize("shape", [(1,), (3, 4), (17,), (33,), (2, 50)])
def test_batches_equal_single_problems(shape, dtype, backend, size):
    """Bit for bit: neighbours in a batch do not matter."""
    u, v = torch.rand(*shape, 10, dtype=dtype), torch.rand(*shape, 6, dtype=dtype)
    batch = ts.circular_wasserstein(u, v, backend=backend)
    assert batch.shape == shape
    for i in list(np.ndindex(*shape))[:: size(1, 11)]:
        assert torch.equal(batch[i], ts.circular_wasserstein(u[i], v[i], backend=backend))


@pytest.mark.parametrize("n", [5, 60])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_nan_stays_in_its_own_row(n, poison, dtype, backend, size):
    rows = size(40, 9)
    u, v = torch.rand(rows, n, dtype=dtype), torch.rand(rows, n, dtype=dtype)
    clean = ts.circular_wasserstein(u, v, backend=backend)
    u[7, n // 2] = poison
    u.requires_grad_()
    got = ts.circular_wasserstein(u, v, backend=backend)
    got.sum().backward()
    assert got[7].isnan() and u.grad[7].isnan().all()
    keep = torch.arange(rows) != 7
    assert torch.equal(got[keep], clean[keep]) and u.grad[keep].isfinite().all()


def test_broadcast_and_strides(dtype, backend):
    u, v = torch.rand(4, 1, 5, dtype=dtype), torch.rand(3, 8, dtype=dtype)
    got = ts.circular_wasserstein(u, v, backend=backend)
    assert got.shape == (4, 3)
    assert torch.equal(got[2, 1], ts.circular_wasserstein(u[2, 0], v[1], backend=backend))
    strided = torch.rand(8, 3, dtype=dtype).T
    assert torch.equal(
        ts.circular_wasserstein(u, strided, backend=backend), ts.circular_wasserstein(u, strided.contiguous(), backend=backend)
    )
    assert ts.circular_wasserstein(u[:0], v, backend=backend).shape == (0, 3)


@pytest.mark.parametrize("weighted", [False, True])
def test_as_many_points_as_a_program_sorts(weighted, dtype, backend):
    u, v = torch.rand(2, 2599, dtype=dtype), torch.rand(2, 1497, dtype=dtype)
    weights = dict(u_weights=torch.rand(2599, dtype=dtype), v_weights=torch.rand(1497, dtype=dtype)) if weighted else {}
    expected = ts.circular_wasserstein(u.double(), v.double(), **{k: w.double() for k, w in weights.items()}, backend="reference")
    got = ts.circular_wasserstein(u, v, **weights, backend=backend)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=TOLERANCE[dtype])


def test_half_type():
    u, v = torch.rand(3, 9).bfloat16(), torch.rand(3, 9).bfloat16()
    got = ts.circular_wasserstein(u, v)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), ts.circular_wasserstein(u.float(), v.float()), atol=2e-3, rtol=0)


def test_float32_keeps_its_digits_near_a_common_point(backend):
    """Distances of 1e-5 between points around .5, where float32 has a spacing of 6e-8."""
    u = (0.5 + 1e-5 * torch.rand(16)).float()
    v = (0.5 + 1e-5 * torch.rand(16)).float()
    expected = exact(u.double().numpy(), v.double().numpy())
    assert ts.circular_wasserstein(u, v, backend=backend).item() == pytest.approx(expected, abs=2e-8)


def test_bad_input():
    u = torch.rand(3, 4)
    bad = [
        (dict(p=0.9), "p: expected a number >= 1"),
        (dict(v=torch.rand(2, 4)), "batch dimensions that broadcast"),
        (dict(v=torch.rand(3, 0)), "at least one point"),
        (dict(v=torch.rand(3, 4).double()), "v: expected torch.float32 as u, got torch.float64"),
        (dict(v=torch.tensor(0.5)), "v: expected at least 1 dimensions"),
        (dict(u_weights=-torch.ones(4)), "weights: expected finite values >= 0, got -1"),
        (dict(u_weights=torch.full((4,), math.inf)), "weights: expected finite values"),
        (dict(v_weights=torch.zeros(4)), "rows with a positive sum, got 0"),
        (dict(v_weights=torch.full((4,), 3e38)), "rows with a finite sum, got inf"),
        (dict(v_weights=torch.ones(5)), "weights: expected a shape that broadcasts"),
        (dict(u=[0.1]), "u: expected a tensor, got list"),
    ]
    for change, message in bad:
        with pytest.raises(ValueError, match=message):
            ts.circular_wasserstein(**(dict(u=u, v=u) | change))
