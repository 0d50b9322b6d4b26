"""The cheaper relatives of the sliced distance: parallel slices against POT, the linear embedding against the exact distance."""

import math

import ot
import pytest
import torch

import transphere as ts

parallel = ts.sliced_wasserstein_sphere_parallel


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("n, m", [(1, 1), (8, 8), (5, 9)])
@pytest.mark.parametrize("weighted", [False, True])
def test_parallel_slices_equal_pot(n, m, p, weighted, dtype, tolerance, unit):
    x, y, axes = unit(2, n, 6), unit(m, 6, seed=1), unit(7, 6, seed=2)
    a, b = torch.rand(2, n, dtype=torch.float64) + 0.1, torch.rand(m, dtype=torch.float64) + 0.1
    weights = dict(x_weights=a.to(dtype), y_weights=b.to(dtype)) if weighted else {}
    got = parallel(x.to(dtype), y.to(dtype), p=p, projections=axes.to(dtype), **weights)
    if not weighted:
        a, b = torch.ones_like(a), torch.ones_like(b)
    for k in range(2):
        w = ot.wasserstein_1d(x[k] @ axes.T, y @ axes.T, a[k] / a[k].sum(), b / b.sum(), p=p)
        torch.testing.assert_close(got[k].double(), w.mean() ** (1 / p), **tolerance)


@pytest.mark.parametrize("p", [1, 2, 1.5])
def test_parallel_slices_have_gradients(p, unit):
    x, y, axes = unit(2, 4, 5).requires_grad_(), unit(2, 3, 5, seed=1).requires_grad_(), unit(6, 5, seed=2)
    a = (torch.rand(2, 4, dtype=torch.float64) + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y, a: parallel(x, y, p=p, projections=axes, x_weights=a), (x, y, a))
    assert torch.autograd.gradcheck(lambda x, y: parallel(x, y[:, [0, 1, 2, 2]], p=p, projections=axes), (x, y))
    same = parallel(x, x.detach(), p=2, projections=axes)
    assert (same == 0).all() and (torch.autograd.grad(same.sum(), x)[0] == 0).all()


def test_parallel_slices_draw_axes_and_refuse_bad_input(unit):
    x, y = unit(3, 6, 8), unit(4, 8, seed=1)
    assert torch.equal(parallel(x, y, seed=1), parallel(x, y, seed=1)) and not torch.equal(parallel(x, y), parallel(x, y))
    assert parallel(x[:0], y).shape == (0,) and parallel(x.bfloat16(), y.bfloat16()).dtype == torch.bfloat16
    bad = x.clone()
    bad[1, 0, 0] = math.nan
    assert parallel(bad, y, seed=1).isnan().tolist() == [False, True, False]
    assert parallel(x, y, projections=torch.zeros(1, 8)).isnan().all()
    z = x.float()  # heights .06 apart, whose 32nd power float32 does not hold
    torch.testing.assert_close(parallel(z, 0.97 * z, p=32, seed=1).double(), parallel(x, 0.97 * x, p=32, seed=1), rtol=1e-4, atol=0)
    for change, message in [
        (dict(y=unit(4, 7)), "y: expected vectors of dimension 8"),
        (dict(y=y[:0]), "at least one point"),
        (dict(p=0), "p: expected a number >= 1"),
        (dict(p=33), "p: expected a number >= 1 and <= 32, got 33"),
        (dict(projections=[1.0]), "projections: expected a tensor of a floating dtype, got list"),
        (dict(seed=0.5), "seed: expected an integer of 64 bits, got 0.5"),
        (dict(n_projections=0), "n_projections: expected an integer >= 1"),
        (dict(projections=unit(4, 7)), r"projections: expected shape \(P, 8\), got \(4, 7\)"),
        (dict(projections=unit(4, 8), seed=1), "at most one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            parallel(**(dict(x=x, y=y) | change))


def test_embedding_of_a_single_point():
    """Two points: the displacements differ by the shorter arc everywhere."""
    u, v = torch.tensor([0.97], dtype=torch.float64), torch.tensor([0.05], dtype=torch.float64)
    got = ts.embedding_distance(ts.circular_embedding(u), ts.circular_embedding(v))
    assert got.item() == pytest.approx(0.08)


def test_embedding_distance_to_the_uniform_law_is_exact():
    u = torch.rand(5, 9, dtype=torch.float64)
    even = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    embedded = ts.circular_embedding(u, 20000)
    got = ts.embedding_distance(embedded, torch.zeros_like(embedded))
    torch.testing.assert_close(got, ts.circular_wasserstein(u, even, p=2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("weighted", [False, True])
def test_embedding_distance_bounds_the_exact_one_and_turns_with_the_points(weighted):
    u, v = torch.rand(20, 6, dtype=torch.float64), torch.rand(20, 8, dtype=torch.float64)
    a, b = (torch.rand_like(z) + 0.1 if weighted else None for z in (u, v))
    distance = lambda turn: ts.embedding_distance(  # noqa: E731
        ts.circular_embedding(u + turn, 20000, weights=a), ts.circular_embedding(v + turn, 20000, weights=b)
    )
    exact = ts.circular_wasserstein(u, v, p=2, u_weights=a, v_weights=b)
    assert (distance(0) >= exact - 1e-3).all() and (distance(0) <= 2 * exact + 0.1).all()
    torch.testing.assert_close(distance(0), distance(0.37), atol=1e-3, rtol=0)


def test_embedding_gradients_and_bad_input():
    u = torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 50, dtype=torch.float64)
    far = lambda u: ts.embedding_distance(ts.circular_embedding(u, 50), target)  # noqa: E731
    (grad,) = torch.autograd.grad(far(u).sum(), u)
    assert grad.isfinite().all() and (grad != 0).any()
    assert ts.circular_embedding(torch.rand(0, 4)).shape == (0, 128)
    assert ts.circular_embedding(torch.rand(3, 4).bfloat16(), 7).dtype == torch.bfloat16
    assert ts.circular_embedding(torch.tensor([[0.1, math.nan], [0.1, 0.2]])).isnan().any(-1).tolist() == [True, False]
    for call, message in [
        (lambda: ts.circular_embedding(torch.rand(3, 0)), "at least one point"),
        (lambda: ts.circular_embedding(torch.rand(3), 0), "size: expected an integer >= 1, got 0"),
        (lambda: ts.circular_embedding(torch.rand(3), weights=torch.zeros(3)), "rows with a positive sum"),
        (lambda: ts.embedding_distance(torch.rand(3), torch.rand(4)), r"as many values in a and b, one or more, got shapes \(3,\) and"),
        (lambda: ts.embedding_distance(torch.rand(2, 0), torch.rand(2, 0)), "as many values in a and b, one or more"),
        (lambda: ts.embedding_distance(torch.rand(2, 3), torch.rand(4, 3)), "batch dimensions that broadcast"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
