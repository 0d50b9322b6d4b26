"""Karcher means: their defining equation, closed cases, gradients."""

import math
import warnings

import pytest
import torch

import transphere as ts
from transphere._linalg import solve


def cap(n, d, angle, *batch, seed=0, dtype=torch.float64):
    """Points within `angle` of e1."""
    g = torch.Generator().manual_seed(seed)
    tangent = torch.nn.functional.normalize(torch.randn(*batch, n, d - 1, generator=g, dtype=torch.float64), dim=-1)
    theta = angle * torch.rand(*batch, n, 1, generator=g, dtype=torch.float64)
    return torch.cat([theta.cos(), theta.sin() * tangent], -1).to(dtype)


def log_map(m, z):
    c = (z * m[..., None, :]).sum(-1, keepdim=True)
    away = z - c * m[..., None, :]
    s = away.norm(dim=-1, keepdim=True)
    return torch.where(s > 0, torch.atan2(s, c) / s.clamp(min=1e-300), 1.0) * away


@pytest.mark.parametrize("n, d", [(1, 3), (2, 2), (5, 3), (16, 512), (100, 4), (3, 64)])
@pytest.mark.parametrize("angle", [1e-3, 0.5, 1.5])
def test_solves_its_equation(n, d, angle):
    z, w = cap(n, d, angle, 4), torch.rand(4, n, dtype=torch.float64) + 0.1
    for weights in (None, w):
        m = ts.frechet_mean(z, weights, tol=1e-13)
        u = torch.full_like(w, 1 / n) if weights is None else w / w.sum(-1, keepdim=True)
        assert (m.norm(dim=-1) - 1).abs().max() < 1e-12
        assert (u[..., None] * log_map(m, z)).sum(-2).norm(dim=-1).max() < 1e-9


def test_float32_reaches_its_own_accuracy():
    z = cap(16, 512, 1.3, 32, dtype=torch.float32)
    assert (ts.frechet_mean(z).double() - ts.frechet_mean(z.double())).norm(dim=-1).max() < 3e-6


@pytest.mark.parametrize("d", [1024, 4096])
def test_one_point_is_its_mean_without_a_warning(d, recwarn):
    z = cap(1, d, 0.5, 64, dtype=torch.float32)
    torch.testing.assert_close(ts.frechet_mean(z), z[:, 0])
    assert not recwarn.list


def test_closed_cases(unit):
    x, y = unit(6, seed=1), unit(6, seed=2)
    mid = torch.nn.functional.normalize(x + y, dim=-1)
    torch.testing.assert_close(ts.frechet_mean(torch.stack([x, y])), mid)
    torch.testing.assert_close(ts.frechet_mean(x[None]), x)
    torch.testing.assert_close(ts.frechet_mean(x.expand(5, 6)), x)
    third = ts.frechet_mean(torch.stack([x, y]), torch.tensor([2.0, 1.0]).double())         # a third of the way
    torch.testing.assert_close(torch.acos(third @ x) * 3, torch.acos(x @ y))


def test_minimises_squared_angles(unit):
    z = cap(9, 5, 1.2)
    cost = lambda m: torch.acos((z @ m).clamp(-1, 1)).square().sum()  # noqa: E731
    m = ts.frechet_mean(z)
    for seed in range(20):
        other = torch.nn.functional.normalize(m + 0.01 * unit(5, seed=seed), dim=-1)
        assert cost(m) < cost(other)


def test_mean_of_vmf_draws_is_mu(unit):
    mu = unit(512, seed=1)
    z = ts.vmf_sample(mu, torch.tensor(96.0, dtype=torch.float64), 4000, seed=0)
    assert ts.frechet_mean(z) @ mu > 0.98 and ts.chordal_mean(z) @ mu > 0.98


@pytest.mark.parametrize("n, d", [(1, 3), (4, 3), (3, 8), (9, 2)])
def test_gradients(n, d):
    z = cap(n, d, 1.2, 2).requires_grad_()
    w = (torch.rand(2, n, dtype=torch.float64) + 0.5).requires_grad_()
    on_sphere = lambda z: torch.nn.functional.normalize(z, dim=-1)  # noqa: E731
    assert torch.autograd.gradcheck(lambda z, w: ts.frechet_mean(on_sphere(z), w, tol=1e-14, max_iter=200), (z, w))
    assert torch.autograd.gradcheck(lambda z: ts.frechet_mean(on_sphere(z), tol=1e-14, max_iter=200), z)
    assert torch.autograd.gradcheck(lambda z, w: ts.chordal_mean(z, w), (z, w))


def test_gradient_at_coincident_points(unit):
    z = unit(5).expand(4, 5).clone().requires_grad_()
    ts.frechet_mean(z).sum().backward()
    assert z.grad.isfinite().all()
    tangent = torch.ones(5, dtype=torch.float64) - z[0].detach().sum() * z[0].detach()
    torch.testing.assert_close(z.grad, (tangent / 4).expand(4, 5))


def test_shapes_types_and_zero_weights(unit):
    z = cap(7, 5, 1.0, 2, 3, dtype=torch.bfloat16)
    assert ts.frechet_mean(z).shape == (2, 3, 5) and ts.frechet_mean(z).dtype == torch.bfloat16
    z = cap(6, 4, 1.0)
    keep = torch.tensor([1.0, 1, 0, 1, 0, 1]).double()
    torch.testing.assert_close(ts.frechet_mean(z, keep), ts.frechet_mean(z[keep > 0]))
    strided = z.T.contiguous().T
    torch.testing.assert_close(ts.frechet_mean(strided), ts.frechet_mean(z))
    assert ts.frechet_mean(torch.empty(0, 3, 4)).shape == (0, 4)


@pytest.mark.parametrize("mean", [ts.frechet_mean, ts.chordal_mean])
def test_where_there_is_no_mean(mean, dtype, unit):
    """Antipodes, and points evenly around a circle, of whose average rounding leaves something: NaN in their own row, and a warning."""
    x = unit(4, dtype=dtype)
    turn = 2 * math.pi * torch.arange(4, dtype=dtype) / 4
    around = torch.stack([turn.cos(), turn.sin(), 0 * turn, 0 * turn], -1)
    z = torch.stack([torch.stack([x, -x, x, -x]), around, x.expand(4, 4)])
    with pytest.warns(RuntimeWarning, match=f"{mean.__name__}: 2 averages vanish: their means are not defined, and NaN"):
        m = mean(z)
    assert m[:2].isnan().all()
    torch.testing.assert_close(m[2], x)


def test_spread_out_points_end_in_a_warning_or_a_stationary_point(unit):
    z = unit(300, 20, 3)
    with pytest.warns(RuntimeWarning, match=r"frechet_mean: not converged after 50 steps, \|t\| up to 0\.\d+: the points may be spread"):
        m = ts.frechet_mean(z)
    left = log_map(m, z).mean(-2).norm(dim=-1)
    assert ((left < 1e-6).float().mean() > 0.95) and m.isfinite().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ts.frechet_mean(cap(20, 3, 1.4, 300))


def test_bad_input(unit):
    z = unit(3, 4)
    for args, message in [
        ((z[0],), "z: expected at least 2 dimensions"),
        ((z[:0],), "z: expected at least one point"),
        ((z, torch.tensor([1.0, -1, 1]).double()), "weights: expected finite values >= 0, got -1"),
        ((z, torch.ones(4).double()), "weights: expected a shape that broadcasts"),
        ((z, torch.ones(3)), "weights: expected torch.float64 as z"),
    ]:
        for f in (ts.frechet_mean, ts.chordal_mean):
            with pytest.raises(ValueError, match=message):
                f(*args)
            with pytest.raises(ValueError, match="weights: expected rows with a positive sum"):
                f(z, torch.zeros(3).double())
    assert math.isclose(ts.chordal_mean(z).norm().item(), 1)
    for bad in (3 * z, z * torch.tensor([[1.0], [0], [1]])):
        with pytest.raises(ValueError, match="frechet_mean: z: expected unit vectors, got one of length [30]"):
            ts.frechet_mean(bad)
    ts.frechet_mean(bad, torch.tensor([1.0, 0, 1]).double())  # what has no weight is not looked at
    for how, message in [(dict(max_iter=1.5), "max_iter: expected an integer >= 0"), (dict(tol=math.nan), "tol: expected a number >= 0")]:
        with pytest.raises(ValueError, match=message):
            ts.frechet_mean(z, **how)


def test_autocast_does_not_decide():
    z = cap(9, 5, 0.8).float()
    for mean in (ts.frechet_mean, ts.chordal_mean):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = mean(z)
        assert torch.equal(got, mean(z))


@pytest.mark.parametrize("n", [3, 200])
def test_systems_are_solved_whatever_the_threads(n):
    """Batched, oneMKL's LU is wrong from here on above some 130 rows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        A = torch.rand(4, n, n, dtype=torch.float64) + n * torch.eye(n, dtype=torch.float64)
        b = torch.rand(4, n, 2, dtype=torch.float64)
        torch.testing.assert_close(A @ solve(A, b), b)
        assert solve(A[:0], b[:0]).shape == (0, n, 2)
    finally:
        torch.set_num_threads(threads)
