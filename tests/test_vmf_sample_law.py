"""The law of vMF draws, over the whole range of dimensions and concentrations, against exact moments and distribution functions."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import transphere as ts
from transphere import _library

DIMS = [2, 3, 4, 5, 8, 16, 64, 128, 512, 1024, 4096]
KAPPAS = [0.0, 1e-3, 1.0, 10.5, 11.0, 64.0, 96.0, 128.0, 1e3, 1e4, 1e6]


def draws(mu, kappa, n, seed, backend=None):
    """z, w and 1 - w^2 as the op returns them, in float64: w and v keep what mu . z would round away."""
    args = mu[None], torch.tensor([kappa], dtype=mu.dtype), torch.tensor([seed, 0]), n, False
    return (x[0].double() for x in _library.op("vmf_sample", backend, mu)(*args))


def cdf_of_angle(phi, kappa, d):
    """Exact, by Simpson's rule: the density of arccos w is proportional to exp(kappa cos) sin^(d-2)."""
    log_density = lambda phi: -2 * kappa * np.sin(phi / 2) ** 2 + (d - 2) * np.log(np.sin(phi) + 1e-300)  # noqa: E731
    n = d - 1
    mode, sd = math.acos(2 * kappa / (n + math.hypot(2 * kappa, n))), 1 / math.sqrt(kappa + n)
    grid = np.linspace(max(0.0, mode - 20 * sd), min(math.pi, mode + 20 * sd), 20001)
    density = np.exp(log_density(grid) - log_density(grid).max())
    below = integrate.cumulative_simpson(density, x=grid, initial=0)
    return np.interp(phi, grid, below / below[-1])


def kolmogorov_smirnov(probabilities):
    """The statistic times sqrt(n); beyond 2.3 once in 20,000."""
    n = len(probabilities)
    return np.abs(np.sort(probabilities) - (np.arange(n) + 0.5) / n).max() * math.sqrt(n)


def score(x, mean, variance=None):
    """The mean of independent x against the exact one, in standard errors."""
    spread = math.sqrt(variance if variance is not None else float(x.var()))
    return float((x.mean() - mean) / (spread + 1e-300)) * math.sqrt(len(x))


def check_law(d, kappa, n, dtype, unit, backend=None):
    mu, u = unit(d, seed=d, dtype=dtype), unit(d, seed=d + 1)
    m = mu.double()
    u = torch.nn.functional.normalize(u - (u @ m) / (m @ m) * m, dim=-1)                     # a tangent direction at mu
    z, w, v = (x.cpu() for x in draws(mu, kappa, n, seed=d, backend=backend))
    m, u = m.cpu(), u.cpu()
    k = torch.tensor(kappa, dtype=torch.float64)
    A, variance = float(ts.vmf_mean_resultant(k, d)), float(ts.vmf_variance(k, d))
    expected_v = (d - 1) * A / kappa if kappa > 0 else 1 - 1 / d                             # E[1 - w^2]

    assert z.isfinite().all() and (v >= 0).all()
    ulp = torch.finfo(dtype).eps  # of float64's the check itself, also in float64, takes some
    assert (z.norm(dim=-1) - 1).abs().max() < (4 if dtype == torch.float32 else 16) * ulp
    assert (z @ m - w).abs().max() < 16 * ulp
    below = torch.where(w > 0, v / (1 + w), 1 - w)                                           # 1 - w
    assert abs(score(below, 1 - A, variance)) < 4.5 and abs(score(v, expected_v)) < 4.5
    assert abs(float(below.var()) / variance - 1) < 7 * math.sqrt((stats.kurtosis(below.numpy()) + 2) / n)
    assert kolmogorov_smirnov(cdf_of_angle(np.arctan2(v.sqrt().numpy(), w.numpy()), kappa, d)) < 2.3

    # E[z z']: along u it has E[v] / (d - 1), across u and mu nothing.
    x = z @ u
    assert abs(score(x, 0)) < 4.5 and abs(score(x * x, expected_v / (d - 1))) < 4.5 and abs(score(x * w, 0)) < 4.5
    # The tangent direction is uniform on its sphere, whatever w; in the plane it is a sign.
    t = x / v.clamp(min=1e-30).sqrt()
    if d == 2:
        assert (x.abs() - v.sqrt()).abs().max() < 8 * ulp
        t = x.sign()
    else:
        assert kolmogorov_smirnov(stats.beta.cdf((1 + t.clamp(-1, 1).numpy()) / 2, (d - 2) / 2, (d - 2) / 2)) < 2.3
    y = (below - below.mean()) / below.std()
    for a, b in ((y, t), (y, t * t - 1 / (d - 1)), (y[1:], y[:-1]), (t[1:], t[:-1])):       # of each other, and of the draw before
        assert abs(score(a * (b - b.mean()), 0)) < 4.7


@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize("kappa", KAPPAS)
def test_law(d, kappa, dtype, unit):
    check_law(d, kappa, 2000 if d >= 512 else 10000, dtype, unit)


@pytest.mark.parametrize("d, kappa", [(2, 1.0), (3, 96.0), (5, 0.0), (33, 1e3), (130, 1e6)])
def test_law_on_every_backend(d, kappa, unit, backend, size):
    check_law(d, kappa, size(5000, 1200), torch.float32, unit, backend)


@pytest.mark.parametrize("d, kappa", [(3, 2.0), (4, 11.0), (5, 0.0), (16, 20.0)])
def test_second_moments(d, kappa, unit):
    """E[z z'] = (A/k) I + (1 - d A/k) mu mu', entry by entry."""
    mu, n = unit(d, seed=4), 200_000
    z = ts.vmf_sample(mu, torch.tensor(kappa, dtype=torch.float64), n, seed=1)
    law = ts.VonMisesFisher(mu, torch.tensor(kappa, dtype=torch.float64))
    second = law.covariance_matrix + law.mean[:, None] * law.mean
    torch.testing.assert_close(z.T @ z / n, second, atol=6 / math.sqrt(n), rtol=0)
    torch.testing.assert_close(z.mean(0), law.mean, atol=5 / math.sqrt(n), rtol=0)
    tangent = torch.nn.functional.normalize(z - (z @ mu)[:, None] * mu, dim=-1)
    projector = torch.eye(d, dtype=z.dtype) - mu[:, None] * mu
    torch.testing.assert_close(tangent.T @ tangent / n, projector / (d - 1), atol=5 / math.sqrt(n), rtol=0)


def test_draws_of_a_batch_are_independent(unit):
    z = ts.vmf_sample(unit(64, 8), torch.zeros(64, dtype=torch.float64), 64, seed=3).reshape(-1, 8)  # uniform: (z.z')^2 is 1/8 on average
    gram = (z @ z.T).square()
    off = (gram.sum() - gram.diagonal().sum()) / (len(z) * (len(z) - 1))
    assert abs(off - 1 / 8) < 1e-3
    assert (gram - torch.eye(len(z))).max() < 0.999  # no draw comes twice


def test_extreme_concentrations(unit, backend, dtype):
    """Below the smallest normal number and up to the largest number: unit vectors, at mu where the law is."""
    tiny, huge = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    mu = unit(3, 6, dtype=dtype)
    z = ts.vmf_sample(mu, torch.tensor([tiny / 2, huge, math.inf], dtype=dtype), 40, seed=1, backend=backend)
    assert ((z.norm(dim=-1) - 1).abs() < 8 * torch.finfo(dtype).eps).all()
    torch.testing.assert_close(z[1:], mu[1:, None].expand(2, 40, 6), atol=4 * torch.finfo(dtype).eps, rtol=0)
    assert torch.equal(z[2], mu[2].expand(40, 6))
