"""The Power Spherical law in particular: its own density, moments and marginal. What all laws share is in test_distributions.py."""

import math

import mpmath as mp
import pytest
import torch
from scipy import stats
from torch.distributions import kl_divergence

import transphere as ts

GRID = [(d, k) for d in (2, 3, 8, 512, 4096) for k in (1e-9, 1e-3, 1.0, 50.0, 1e4, 1e6)]


def exact(d, kappa):
    """Log density at mu.z = 1/2 and divergence to the uniform law, with 40 digits."""
    with mp.workdps(40):
        k, b = mp.mpf(kappa), mp.mpf(d - 1) / 2
        log_n = -(2 * b + k) * mp.log(2) - b * mp.log(mp.pi) + mp.loggamma(2 * b + k) - mp.loggamma(b + k)
        log_area = mp.log(2) + (b + 0.5) * mp.log(mp.pi) - mp.loggamma(b + 0.5)
        kl = log_n + log_area + k * (mp.log(2) + mp.digamma(b + k) - mp.digamma(2 * b + k))
        return float(log_n + k * mp.log(1.5)), float(kl), float(log_area)


@pytest.mark.parametrize("d, kappa", GRID)
def test_density_entropy_and_divergence(d, kappa):
    """Errors are relative to the terms that are added."""
    loc, z = torch.zeros(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
    loc[0], z[0], z[1] = 1, 0.5, math.sqrt(0.75)
    law = ts.PowerSpherical(loc, kappa)
    log_prob, kl, log_area = exact(d, kappa)
    scale = abs(log_area) + kl
    assert law.log_prob(z).item() == pytest.approx(log_prob, abs=1e-14 * (scale + kappa))
    assert law.entropy().item() == pytest.approx(log_area - kl, abs=3e-14 * scale)
    assert kl_divergence(law, ts.HypersphericalUniform(d)).item() == pytest.approx(kl, rel=1e-11, abs=1e-14)


@pytest.mark.parametrize("d, kappa", [(2, 0.0), (2, 3.0), (3, 20.0), (16, 5.0), (512, 100.0), (512, 1e6), (4096, 1e3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_marginal(d, kappa, dtype, unit):
    """(1 - mu.z)/2 is Beta(b, b + kappa), by |z - mu|^2/4, which keeps its digits near mu; the direction across mu is uniform."""
    loc, n = unit(d, dtype=dtype), 4000
    z = ts.PowerSpherical(loc, kappa).sample((n,)).double()
    apart = (z - loc.double()).square().sum(-1) / 4
    assert stats.kstest(apart.numpy(), stats.beta((d - 1) / 2, (d - 1) / 2 + kappa).cdf).pvalue > 1e-3
    across = torch.nn.functional.normalize(z - (z @ loc.double())[:, None] * loc.double(), dim=-1)
    other = unit(d, seed=5)
    other = torch.nn.functional.normalize(other - (other @ loc.double()) * loc.double(), dim=-1)
    along = across @ other
    if d == 2:
        assert abs((along > 0).double().mean() - 0.5) < 5 * 0.5 / math.sqrt(n)
    else:
        assert stats.kstest((along.numpy() + 1) / 2, stats.beta((d - 2) / 2, (d - 2) / 2).cdf).pvalue > 1e-3


def test_close_to_von_mises_fisher_of_half_the_concentration(unit):
    loc = unit(3)
    power, vmf = ts.PowerSpherical(loc, 2e5), ts.VonMisesFisher(loc, 1e5)
    assert kl_divergence(power, vmf).item() < 1e-4
    torch.testing.assert_close(power.covariance_matrix, vmf.covariance_matrix, rtol=1e-3, atol=1e-8)


def test_density_at_the_antipode(unit):
    """0, but for the uniform law."""
    law = ts.PowerSpherical(unit(2, 4), torch.tensor([0.0, 2.0], dtype=torch.float64))
    at_antipode = law.log_prob(-law.loc)
    assert at_antipode[0].item() == pytest.approx(-math.log(2 * math.pi**2)) and at_antipode[1] == -math.inf


def test_directions_of_mu_where_a_reflection_could_be_singular():
    for first in (1.0, -1.0, 0.0, -0.0, 1e-30):
        loc = torch.tensor([first, 0.0, math.sqrt(1 - first * first)])
        z = ts.PowerSpherical(loc, 1e5).rsample((500,))
        assert (z.norm(dim=-1) - 1).abs().max() < 1e-6 and (z @ loc).min() > 0.999
