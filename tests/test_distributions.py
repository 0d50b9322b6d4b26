"""VonMisesFisher and HypersphericalUniform as torch.distributions."""

import math

import pytest
import torch
from torch.distributions import kl_divergence

import transphere as ts


@pytest.fixture
def law(unit):
    return ts.VonMisesFisher(unit(2, 3, 5), torch.tensor([[0.0, 1.0, 5.0], [11.0, 64.0, 1e3]], dtype=torch.float64))


def test_shapes(law):
    assert law.batch_shape == (2, 3) and law.event_shape == (5,) and law.has_rsample
    assert law.sample().shape == (2, 3, 5) and law.rsample((4,)).shape == (4, 2, 3, 5) and law.rsample((4, 6)).shape == (4, 6, 2, 3, 5)
    assert law.log_prob(law.sample((4,))).shape == (4, 2, 3) and law.entropy().shape == (2, 3)
    assert law.mean.shape == law.mode.shape == law.variance.shape == (2, 3, 5) and law.covariance_matrix.shape == (2, 3, 5, 5)
    assert ts.VonMisesFisher(torch.eye(4)[0], 3.0).batch_shape == ()
    assert ts.VonMisesFisher(torch.eye(4)[:1], torch.ones(6)).batch_shape == (6,)


def test_support_and_constraints(law):
    assert law.support.check(law.sample((50,))).all()
    assert not law.support.check(torch.ones(5))
    for loc, k in [(torch.ones(3), 1.0), (torch.eye(3)[0], -1.0), (torch.eye(3)[0], math.nan)]:
        with pytest.raises(ValueError):
            ts.VonMisesFisher(loc, torch.tensor(k), validate_args=True)
    with pytest.raises(ValueError):
        law.log_prob(torch.ones(5, dtype=torch.float64))
    for loc in (torch.tensor(1.0), torch.ones(3, 1), [1.0, 0.0]):
        with pytest.raises(ValueError, match="loc: expected a tensor"):
            ts.VonMisesFisher(loc, 1.0)
    with pytest.raises(ValueError, match="concentration: expected a shape that broadcasts"):
        ts.VonMisesFisher(torch.eye(3), torch.ones(2))


def test_expand(law):
    big = law.expand((4, 2, 3))
    assert type(big) is ts.VonMisesFisher and big.batch_shape == (4, 2, 3) and big.sample().shape == (4, 2, 3, 5)
    torch.testing.assert_close(big.entropy(), law.entropy().expand(4, 2, 3))


@pytest.mark.parametrize("kappa", [0.0, 0.7, 12.0])
def test_density_integrates_to_one(kappa):
    uniform = ts.HypersphericalUniform(4, dtype=torch.float64)
    law = ts.VonMisesFisher(torch.eye(4, dtype=torch.float64)[1], torch.tensor(kappa, dtype=torch.float64))
    z = uniform.sample((400_000,))
    ratio = (law.log_prob(z) - uniform.log_prob(z)).exp()
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(len(z)) + 1e-12


def test_moments(law):
    z = law.sample((60_000,))
    torch.testing.assert_close(z.mean(0), law.mean, atol=0.01, rtol=0)
    centred = z - z.mean(0)
    torch.testing.assert_close(torch.einsum("nabi,nabj->abij", centred, centred) / len(z), law.covariance_matrix, atol=0.01, rtol=0)
    torch.testing.assert_close(law.variance, law.covariance_matrix.diagonal(dim1=-2, dim2=-1))
    score = -law.log_prob(z)
    assert ((score.mean(0) - law.entropy()).abs() < 5 * score.std(0) / math.sqrt(len(z)) + 1e-9).all()


def test_divergences(law, unit):
    other = ts.VonMisesFisher(unit(2, 3, 5, seed=9), torch.full((2, 3), 3.0, dtype=torch.float64))
    uniform = ts.HypersphericalUniform(5, (2, 3), dtype=torch.float64)
    for p, q in [(law, other), (law, uniform), (uniform, law), (law, law), (uniform, uniform)]:
        z = p.sample((60_000,))
        ratio = p.log_prob(z) - q.log_prob(z)
        kl = kl_divergence(p, q)
        assert ((ratio.mean(0) - kl).abs() < 5 * ratio.std(0) / math.sqrt(len(z)) + 1e-9).all()
        assert (kl >= -1e-12).all()
    with pytest.raises(ValueError, match="one dimension, got 5 and 4"):
        kl_divergence(law, ts.HypersphericalUniform(4))


def test_gradients(unit):
    loc, k = unit(3, 6).requires_grad_(), torch.tensor([0.5, 9.0, 80.0], dtype=torch.float64, requires_grad=True)
    value = unit(3, 6, seed=4).requires_grad_()
    build = lambda loc, k: ts.VonMisesFisher(torch.nn.functional.normalize(loc, dim=-1), k, validate_args=False)  # noqa: E731
    assert torch.autograd.gradcheck(lambda loc, k, v: build(loc, k).log_prob(v), (loc, k, value))
    assert torch.autograd.gradcheck(lambda loc, k: build(loc, k).entropy().sum() + build(loc, k).covariance_matrix.square().sum(), (loc, k))
    assert torch.autograd.gradcheck(lambda loc, k: kl_divergence(build(loc, k), build(loc.flip(0), k.flip(0))), (loc, k))
    build(loc, k).rsample((7,)).sum().backward()
    assert loc.grad.isfinite().all() and k.grad.isfinite().all()


def test_sample_carries_no_gradient(unit):
    loc = unit(4).requires_grad_()
    assert not ts.VonMisesFisher(loc, 2.0).sample((3,)).requires_grad


def test_high_dimension_has_no_nan():
    law = ts.VonMisesFisher(torch.eye(4096)[0], torch.tensor([1e-3, 10.0, 300.0, 1e5]))
    for x in (law.entropy(), law.mean, law.log_prob(law.sample()), law.variance):
        assert x.isfinite().all()


def test_uniform(unit):
    u = ts.HypersphericalUniform(3, (2,), dtype=torch.float64)
    assert u.sample((5,)).shape == (5, 2, 3) and u.expand((4, 2)).sample().shape == (4, 2, 3)
    assert u.entropy()[0].item() == pytest.approx(math.log(4 * math.pi))
    assert u.log_prob(unit(7, 1, 3)).shape == (7, 2)
    torch.testing.assert_close(u.covariance_matrix, torch.eye(3, dtype=torch.float64).expand(2, 3, 3) / 3)
    torch.testing.assert_close(u.sample((40_000,)).var(0), u.variance, atol=0.01, rtol=0)
    assert (u.mean == 0).all()
    with pytest.raises(ValueError, match="dim: expected an integer >= 2, got 1"):
        ts.HypersphericalUniform(1)
