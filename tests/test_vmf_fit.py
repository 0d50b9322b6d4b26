"""Maximum likelihood: the likelihood's maximum, over all dimensions and concentrations, and its derivatives."""

import pytest
import torch
from scipy import stats

import transphere as ts

DIMS = [2, 3, 5, 16, 80, 512, 4096]
KAPPAS = [1e-3, 0.1, 1.0, 2.3, 10.0, 31.9, 64.0, 500.0, 1e4, 1e6, 1e9]


def points_of_resultant(d, resultant, spread):
    """Unit points about the last axis whose mean is `resultant` times it: w e_d +- sqrt(spread) e_i, spread = 1 - w^2."""
    across = spread.sqrt() * torch.eye(min(d - 1, 7), d, dtype=torch.float64)
    z = torch.cat([across, -across])
    z[:, -1] = resultant
    return z


@pytest.mark.parametrize("d", DIMS)
def test_recovers_every_concentration(d):
    """From points whose mean length is A(kappa) exactly; 1 - A^2 = A' + (d - 1) A/kappa keeps the digits of large ones."""
    for kappa in KAPPAS:
        k = torch.tensor(kappa, dtype=torch.float64)
        A = ts.vmf_mean_resultant(k, d)
        spread = ts.vmf_variance(k, d) + (d - 1) * A / k
        mu, fitted = ts.vmf_fit(points_of_resultant(d, A, spread))
        assert fitted.item() == pytest.approx(kappa, rel=1e-9 if d * d > kappa * 1e4 else 1e-11), kappa  # small A loses eps / A^2
        assert mu[-1].item() == pytest.approx(1, abs=1e-15) and mu[:-1].abs().max() == 0


@pytest.mark.parametrize("d, kappa, n", [(2, 0.5, 4000), (3, 20.0, 2000), (16, 8.0, 4000), (512, 300.0, 500), (4096, 1e4, 50)])
def test_round_trip_through_draws(d, kappa, n, unit):
    """Within five standard errors, kappa's from Fisher's information n A'."""
    loc = unit(d)
    mu, fitted = ts.vmf_fit(ts.VonMisesFisher(loc, kappa).sample((n,)))
    k = torch.tensor(kappa, dtype=torch.float64)
    bias = (d - 1) * kappa / n if d < 100 else 0.1 * kappa  # the estimate's, upwards
    assert abs(fitted - kappa) < 5 * (n * ts.vmf_variance(k, d)) ** -0.5 + bias
    assert (mu - loc).square().sum() < 25 * (d - 1) / (n * kappa * ts.vmf_mean_resultant(k, d))


def test_is_the_maximum(unit):
    z, weights = ts.VonMisesFisher(unit(3, 6), 9.0).sample((40,)).movedim(0, 1), torch.rand(40, dtype=torch.float64)

    def likelihood(mu, kappa):
        return (weights * (ts.vmf_log_normalizer(kappa, 6)[:, None] + kappa[:, None] * (z @ mu[..., None])[..., 0])).sum(-1)

    mu, kappa = ts.vmf_fit(z, weights)
    assert mu.shape == (3, 6) and kappa.shape == (3,)
    best = likelihood(mu, kappa)
    for _ in range(20):
        nearby = torch.nn.functional.normalize(mu + 1e-3 * torch.randn_like(mu), dim=-1)
        assert (likelihood(nearby, kappa * (1 + 1e-3 * torch.randn(3, dtype=torch.float64))) < best).all()


def test_agrees_with_scipy(unit):
    for d, kappa in [(3, 5.0), (8, 40.0)]:
        z = ts.VonMisesFisher(unit(d), kappa).sample((200,))
        mu, fitted = ts.vmf_fit(z)
        theirs = stats.vonmises_fisher.fit(z.numpy())
        assert fitted.item() == pytest.approx(theirs[1], rel=1e-6) and torch.allclose(mu, torch.tensor(theirs[0]))


def test_weights(unit):
    z = unit(2, 5, 4)
    counts = torch.tensor([3, 0, 1, 2, 1])
    repeated = z.repeat_interleave(counts, 1)
    for got, expected in zip(ts.vmf_fit(z, 0.7 * counts.double()), ts.vmf_fit(repeated), strict=True):
        torch.testing.assert_close(got, expected)
    for got, expected in zip(ts.vmf_fit(z, torch.ones(2, 1, dtype=torch.float64)), ts.vmf_fit(z), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("d", [2, 3, 8, 40])
def test_gradients(d, unit):
    z, weights = torch.nn.functional.normalize(unit(2, 4, d) + unit(d), dim=-1).requires_grad_(), torch.rand(2, 4, dtype=torch.float64)
    weights = (weights + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(ts.vmf_fit, (z, weights))
    assert torch.autograd.gradgradcheck(ts.vmf_fit, (z, weights), fast_mode=True)


@pytest.mark.parametrize("kappa", [1.0, 30.0, 1e4])
def test_slope_in_the_resultant(kappa):
    """dkappa/dR = 1/A', by a weight that moves the mean along its axis."""
    d = 3
    k = torch.tensor(kappa, dtype=torch.float64)
    A, A1 = ts.vmf_mean_resultant(k, d), ts.vmf_variance(k, d)
    z = points_of_resultant(d, A, A1 + (d - 1) * A / k)
    w = torch.ones(len(z), dtype=torch.float64, requires_grad=True)
    push = torch.cat([z, torch.tensor([[0.0, 0.0, 1.0]]).double()]), torch.cat([w, torch.zeros(1).double().requires_grad_()])
    last = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(ts.vmf_fit(push[0], torch.cat([w, last]))[1], last)
    assert slope.item() * len(z) == pytest.approx(((1 - A) / A1).item(), rel=1e-8)  # dR = (1 - A) / n per unit of weight


def test_ends(unit):
    """No direction: kappa 0 and the first basis vector. Coinciding points: inf. Both among regular sets, whose gradients stay finite."""
    z = torch.stack([torch.cat([torch.eye(4, 5), -torch.eye(4, 5)]).double(), unit(1, 5).expand(8, 5), unit(8, 5, seed=3)]).requires_grad_()
    mu, kappa = ts.vmf_fit(z)
    assert kappa[0] == 0 and mu[0].tolist() == [1, 0, 0, 0, 0]
    assert kappa[1] == torch.inf and kappa[2].isfinite()
    torch.testing.assert_close(mu[1], unit(1, 5)[0])
    (grad,) = torch.autograd.grad(mu.sum() + kappa[[0, 2]].sum(), z)
    assert grad[0].isfinite().all() and grad[2].isfinite().all()
    for dtype in (torch.float32, torch.bfloat16):
        same = unit(1, 512, dtype=dtype).expand(9, 512)
        mu, kappa = ts.vmf_fit(same)
        assert kappa == torch.inf and mu.dtype == kappa.dtype == dtype
    assert ts.vmf_fit(unit(1, 3))[1] == torch.inf


@pytest.mark.parametrize("kappa", [0.1, 50.0, 1e5])
def test_float32_equals_float64(kappa, unit):
    z = ts.VonMisesFisher(unit(4, 16, dtype=torch.float32), kappa).sample((300,)).movedim(0, 1)
    single, double = ts.vmf_fit(z), ts.vmf_fit(z.double())
    torch.testing.assert_close(single[1].double(), double[1], rtol=3e-5, atol=0)
    torch.testing.assert_close(single[0].double(), double[0], rtol=0, atol=1e-5)


def test_shapes_and_layouts(unit):
    z = unit(2, 3, 6, 4)
    mu, kappa = ts.vmf_fit(z)
    assert mu.shape == (2, 3, 4) and kappa.shape == (2, 3)
    strided = z.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.allclose(ts.vmf_fit(strided)[1], kappa)
    mu, kappa = ts.vmf_fit(unit(0, 6, 4))
    assert mu.shape == (0, 4) and kappa.shape == (0,)
    assert ts.vmf_fit(unit(6, 4))[1].shape == ()


def test_compile(unit):
    z = unit(3, 8, 5)
    compiled = torch.compile(ts.vmf_fit, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(z), ts.vmf_fit(z), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap(unit):
    z = unit(3, 8, 5)
    for got, expected in zip(torch.func.vmap(ts.vmf_fit)(z), ts.vmf_fit(z), strict=True):
        torch.testing.assert_close(got, expected)


def test_bad_input(unit):
    z = unit(5, 3)
    for arguments, message in [
        ((unit(3),), "z: expected at least 2 dimensions"),
        ((unit(0, 3),), "z: expected shape .* with n >= 1 and d >= 2, got"),
        ((torch.ones(4, 1),), "z: expected shape .* got"),
        ((2 * z,), "z: expected unit vectors, got one of length 2"),
        ((z * torch.nan,), "z: expected unit vectors"),
        ((z.long(),), "z: expected a floating dtype"),
        ((z, torch.ones(5)), "weights: expected torch.float64 as z"),
        ((z, torch.ones(4).double()), "weights: expected a shape that broadcasts to"),
        ((z, -torch.ones(5).double()), "weights: expected finite values >= 0, got -1"),
        ((z, torch.zeros(5).double()), "weights: expected rows with a positive sum"),
        ((z, torch.full((5,), torch.nan).double()), "weights: expected finite values >= 0"),
    ]:
        with pytest.raises(ValueError, match=f"vmf_fit: {message}"):
            ts.vmf_fit(*arguments)
