"""vMF draws: the law against exact values, the gradients against closed forms, the backends against each other."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate

import transphere as ts
from transphere import _library

DIMS = [2, 3, 4, 5, 8, 16, 64, 128, 512, 1024, 4096]
KAPPAS = [0.0, 1e-3, 1.0, 10.5, 11.0, 64.0, 96.0, 128.0, 1e3, 1e4, 1e6]


def e1(d, dtype=torch.float64):
    return torch.eye(1, d, dtype=dtype)[0]


def draws_of_w(mu, kappa, n, seed, backend=None):
    """w and 1 - w^2 as the op returns them: exact where mu . z would round."""
    args = mu[None], torch.tensor([kappa], dtype=mu.dtype), torch.tensor([seed, 0]), n, False
    _, w, v = _library.op("vmf_sample", backend, mu)(*args)
    return w[0].double(), v[0].double()


def cdf(w, kappa, d):
    """Exact CDF of w by Simpson's rule in the angle, with 1 - w kept small where kappa is large."""
    log_density = lambda phi: kappa * (np.cos(phi) - 1) + (d - 2) * np.log(np.sin(phi) + 1e-300)  # noqa: E731
    width = min(math.pi, 60 / math.sqrt(kappa + 1e-9) if kappa > 100 * d else math.pi)
    phi = np.linspace(0, width, 200001)
    density = np.exp(log_density(phi) - log_density(phi).max())
    below = integrate.cumulative_simpson(density, x=phi, initial=0)
    return 1 - np.interp(np.arccos(np.clip(w, -1, 1)), phi, below / below[-1])


@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize("kappa", KAPPAS)
def test_law_of_w(d, kappa):
    n = 4000 if d >= 512 else 20000
    w, v = draws_of_w(e1(d), kappa, n, seed=d)
    k = torch.tensor(kappa, dtype=torch.float64)
    mean, variance = ts.vmf_mean_resultant(k, d), ts.vmf_variance(k, d)
    assert torch.isfinite(w).all() and (v >= 0).all()
    # 1 - w^2 has mean (d-1) A / kappa, and keeps its digits where w is almost 1
    expected_v = (d - 1) * mean / k if kappa > 0 else torch.tensor(1 - 1 / d, dtype=torch.float64)
    for name, x, expected, sd in (("w", w, mean, variance.sqrt()), ("v", v, expected_v, v.std())):
        score = (x.mean() - expected) / (sd + 1e-300) * math.sqrt(n)
        assert abs(score) < 4.5, (name, float(score))
    assert abs(w.var() / variance - 1) < 0.12 if kappa < 1e5 else True  # rounding of w beyond
    if kappa <= 1e4:
        f = np.sort(cdf(w.numpy(), kappa, d))
        assert np.abs(f - (np.arange(n) + 0.5) / n).max() < 2.0 / math.sqrt(n)


@pytest.mark.parametrize("d", [2, 3, 8, 512])
@pytest.mark.parametrize("kappa", [0.0, 11.0, 96.0, 1e6])
def test_unit_norm_and_w(d, kappa, dtype, unit):
    mu = unit(9, d, dtype=dtype)
    z = ts.vmf_sample(mu, torch.full((9,), kappa, dtype=dtype), 200, seed=0)
    assert (z.double().norm(dim=-1) - 1).abs().max() < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("d, kappa", [(3, 2.0), (4, 11.0), (5, 0.0), (16, 20.0)])
def test_moments_and_tangent_direction(d, kappa, unit):
    """E[z z'] = (A/k) I + (1 - d A/k) mu mu', and the tangent part has no preferred direction."""
    mu = unit(d, seed=4)
    n = 200_000
    z = ts.vmf_sample(mu, torch.tensor(kappa, dtype=torch.float64), n, seed=1)
    law = ts.VonMisesFisher(mu, torch.tensor(kappa, dtype=torch.float64))
    second = law.covariance_matrix + law.mean[:, None] * law.mean
    torch.testing.assert_close(z.T @ z / n, second, atol=6 / math.sqrt(n), rtol=0)
    torch.testing.assert_close(z.mean(0), law.mean, atol=5 / math.sqrt(n), rtol=0)
    tangent = torch.nn.functional.normalize(z - (z @ mu)[:, None] * mu, dim=-1)
    projector = torch.eye(d, dtype=z.dtype) - mu[:, None] * mu
    torch.testing.assert_close(tangent.T @ tangent / n, projector / (d - 1), atol=5 / math.sqrt(n), rtol=0)
    torch.testing.assert_close(tangent.mean(0), torch.zeros_like(mu), atol=5 / math.sqrt(n), rtol=0)


def test_draws_are_independent(unit):
    mu = unit(64, 8)
    z = ts.vmf_sample(mu, torch.zeros(64, dtype=torch.float64), 64, seed=3).reshape(-1, 8)   # uniform: (z.z')^2 is 1/8 on average
    gram = (z @ z.T).square()
    off = (gram.sum() - gram.diagonal().sum()) / (len(z) * (len(z) - 1))
    assert abs(off - 1 / 8) < 1e-3
    assert (gram - torch.eye(len(z))).max() < 0.999  # no draw comes twice


@pytest.mark.parametrize("shape, d, n", [((), 2, 1), ((3,), 3, 5), ((2, 3), 5, 7), ((1,), 17, 300), ((4,), 512, 16), ((2,), 1030, 3)])
@pytest.mark.parametrize("kappa", [0.0, 3.0, 96.0, 1e4, math.inf])
def test_backends_agree(shape, d, n, kappa, dtype, tolerance, unit, backend, size):
    mu, n = unit(*shape, d, dtype=dtype), size(n, min(n, 20))
    k = torch.full(shape, kappa, dtype=dtype)
    expected = ts.vmf_sample(mu.double(), k.double(), n, seed=11, backend="reference")
    torch.testing.assert_close(ts.vmf_sample(mu, k, n, seed=11, backend=backend), expected.to(dtype), **tolerance)


@pytest.mark.parametrize("d", [2, 5, 40])
def test_rejections_agree(d, dtype, tolerance, unit, backend):
    """Many draws of a law that rejects often: every backend accepts the same proposals."""
    args = unit(1, d, dtype=dtype), torch.tensor([30.0], dtype=dtype), torch.tensor([3, 4]), 500, False
    expected = _library.op("vmf_sample", "reference", args[0])(args[0].double(), args[1].double(), *args[2:])
    for got, truth in zip(_library.op("vmf_sample", backend, args[0])(*args), expected, strict=True):
        torch.testing.assert_close(got, truth.to(dtype), **tolerance)


@pytest.mark.parametrize("pathwise", [False, True])
@pytest.mark.parametrize("d", [2, 3, 8, 33, 512])
def test_backward_agrees(d, pathwise, dtype, unit, backend, size):
    mu, kappa = unit(5, d, dtype=dtype), torch.tensor([0.5, 3.0, 11.0, 96.0, 1e3], dtype=dtype)
    z, w, v = _library.op("vmf_sample", None, mu)(mu, kappa, torch.tensor([1, 2]), size(300, 45), pathwise)
    G = torch.randn_like(z)
    args = G, z, w, v, mu, kappa
    truth = _library.op("vmf_sample_backward", "reference", mu)(*(a.double() for a in args), pathwise)
    got = _library.op("vmf_sample_backward", backend, mu)(*args, pathwise)
    for g, t in zip(got, truth, strict=True):
        assert (g.double() - t).norm() <= 300 * torch.finfo(dtype).eps * t.norm()


def tau_by_definition(w, kappa, d):
    log_p = lambda t: kappa * (t - w) + (d - 3) / 2 * math.log((1 - t * t) / (1 - w * w))  # noqa: E731
    A = float(ts.vmf_mean_resultant(torch.tensor(kappa, dtype=torch.float64), d))
    total, _ = integrate.quad(lambda t: (t - A) * math.exp(log_p(t)), w, 1, epsabs=1e-13, epsrel=1e-11, limit=400)
    return total


# Relative error of the closed form by dimension, measured over +-3 sd; the quadrature below d = 33 is exact to its nodes.
@pytest.mark.parametrize("d, bound", [(3, 1e-9), (4, 1e-6), (5, 1e-6), (16, 1e-6), (32, 1e-6), (33, 3e-4), (64, 1e-4), (512, 2e-6)])
@pytest.mark.parametrize("kappa", [0.5, 5.0, 64.0, 500.0])
def test_implicit_slope_is_its_definition(d, bound, kappa):
    k = torch.tensor([[kappa]], dtype=torch.float64)
    mean, sd = float(ts.vmf_mean_resultant(k, d)), float(ts.vmf_variance(k, d).sqrt())
    from transphere.reference.vmf_sample import vmf_tau

    for w in (mean + x * sd for x in (-3, -1, -0.1, 0.2, 1, 2, 3) if abs(mean + x * sd) < 1 - 1e-6):
        truth = tau_by_definition(w, kappa, d)
        wt = torch.tensor([[w]], dtype=torch.float64)
        assert abs(float(vmf_tau(wt, 1 - wt * wt, k, d, False)) / truth - 1) < bound
        assert abs(_library._C._vmf_tau(w, 1 - w * w, kappa, d, False) / truth - 1) < bound


@pytest.mark.parametrize("d, kappa", [(2, 0.5), (2, 5.0), (3, 1.0), (5, 2.0), (16, 10.0), (64, 30.0), (512, 96.0)])
def test_kappa_gradient_is_unbiased(d, kappa, unit):
    """For f = a.z the mean of df/dkappa is Var(w) a.mu; for f = (b.z)^2 it is d/dk of the second moment."""
    laws = 400 if d < 100 else 60
    mu = unit(d, seed=2)
    a, b = mu + 0.3 * unit(d, seed=3), unit(d, seed=5) + mu
    k = torch.full((laws,), kappa, dtype=torch.float64, requires_grad=True)
    z = ts.vmf_sample(mu.expand(laws, d), k, 500, seed=7)
    for f, moment in ((lambda z: z @ a, lambda law: law.mean @ a), (lambda z: (z @ b).square(), lambda law: second(law, b))):
        (g,) = torch.autograd.grad(f(z).mean(-1).sum(), k, retain_graph=True)
        k0 = torch.tensor(kappa, dtype=torch.float64, requires_grad=True)
        (truth,) = torch.autograd.grad(moment(ts.VonMisesFisher(mu, k0)), k0)
        assert abs(g.mean() - truth) < 4.5 * g.std() / math.sqrt(laws)


def second(law, b):
    return b @ (law.covariance_matrix + law.mean[:, None] * law.mean) @ b


@pytest.mark.parametrize("d, kappa", [(2, 2.0), (5, 2.0)])
def test_pathwise_gradient_has_its_known_bias(d, kappa, unit):
    laws = 400 if d < 100 else 60
    mu = unit(d)
    k = torch.full((laws,), kappa, dtype=torch.float64, requires_grad=True)
    z = ts.vmf_sample(mu.expand(laws, d), k, 500, seed=7, kappa_grad="pathwise")
    (g,) = torch.autograd.grad((z @ mu).mean(-1).sum(), k)
    k0 = torch.tensor(kappa, dtype=torch.float64)
    expected = (d - 1) * ts.vmf_mean_resultant(k0, d) / (k0 * math.hypot(2 * kappa, d - 1))
    assert abs(g.mean() - expected) < 4.5 * g.std() / math.sqrt(laws)
    assert expected < 0.9 * ts.vmf_variance(k0, d)


@pytest.mark.parametrize("d, kappa", [(2, 3.0), (3, 2.0), (16, 10.0), (512, 96.0)])
def test_mu_gradient_is_unbiased(d, kappa, unit):
    laws = 400 if d < 100 else 60
    mu, b = unit(d, seed=2), unit(d, seed=3)
    m = mu.expand(laws, d).clone().requires_grad_()
    z = ts.vmf_sample(m, torch.full((laws,), kappa, dtype=torch.float64), 500, seed=7)
    (g,) = torch.autograd.grad((z @ b + (z @ b).square()).mean(-1).sum(), m)
    law = ts.VonMisesFisher(mu, torch.tensor(kappa, dtype=torch.float64))
    A, along, across = law.mean @ mu, law._variances()[0], law._variances()[1]
    full = A * b + 2 * (along + A * A - across) * (b @ mu) * b                               # of A b.mu + across |b|^2 + (..) (b.mu)^2
    truth = full - (full @ mu) * mu
    assert ((g.mean(0) - truth).abs() < 5 * g.std(0) / math.sqrt(laws) + 1e-12).all()
    assert (g @ mu).abs().max() < 1e-12                                                      # tangent


def test_seed_and_generator():
    mu, k = e1(5, torch.float32), torch.tensor(7.0)
    assert torch.equal(ts.vmf_sample(mu, k, 4, seed=1), ts.vmf_sample(mu, k, 4, seed=1))
    assert not torch.equal(ts.vmf_sample(mu, k, 4, seed=1), ts.vmf_sample(mu, k, 4, seed=2))
    assert not torch.equal(ts.vmf_sample(mu, k, 4, seed=0), ts.vmf_sample(mu, k, 4, seed=2**32))
    g = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    assert torch.equal(ts.vmf_sample(mu, k, 4, generator=g()), ts.vmf_sample(mu, k, 4, generator=g()))
    torch.manual_seed(5)
    a = ts.vmf_sample(mu, k, 4)
    b = ts.vmf_sample(mu, k, 4)
    torch.manual_seed(5)
    assert torch.equal(a, ts.vmf_sample(mu, k, 4)) and not torch.equal(a, b)


def test_threads_do_not_change_the_draws(unit):
    mu, k = unit(40, 65, dtype=torch.float32), torch.full((40,), 30.0)
    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            m, kk = mu.clone().requires_grad_(), k.clone().requires_grad_()
            z = ts.vmf_sample(m, kk, 700, seed=9)
            z.square().sum(-1).mul(torch.arange(700.0)).sum().backward()
            results.append((z.detach(), m.grad, kk.grad))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_shapes_and_strides(unit, backend):
    mu = unit(4, 3, 6, dtype=torch.float32)
    z = ts.vmf_sample(mu, torch.tensor(5.0), 2, seed=0, backend=backend)
    assert z.shape == (4, 3, 2, 6)
    strided = mu.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not strided.is_contiguous()
    assert torch.equal(ts.vmf_sample(strided, torch.tensor(5.0), 2, seed=0, backend=backend), z)
    assert ts.vmf_sample(mu, torch.full((4, 3), 5.0), 0, backend=backend).shape == (4, 3, 0, 6)
    assert ts.vmf_sample(mu[:0], torch.full((0, 3), 5.0), 2, backend=backend).shape == (0, 3, 2, 6)
    k = torch.full((4, 3), 5.0, requires_grad=True)
    ts.vmf_sample(mu, k, 0, backend=backend).sum().backward()
    assert torch.equal(k.grad, torch.zeros(4, 3))


def test_mu_may_point_anywhere(backend, size):
    """The reflection has no singular direction: at e1, -e1, and with mu0 = 0."""
    d = 7
    directions = torch.stack([e1(d), -e1(d), torch.eye(d, dtype=torch.float64)[3]])
    z = ts.vmf_sample(directions, torch.full((3,), 50.0, dtype=torch.float64), size(4000, 1000), seed=0, backend=backend)
    A = ts.vmf_mean_resultant(torch.tensor(50.0, dtype=torch.float64), d)
    torch.testing.assert_close(z.mean(1), A * directions, atol=0.015, rtol=0)


def test_infinite_kappa_returns_mu(unit, backend):
    mu = unit(3, 9, dtype=torch.float32).requires_grad_()
    k = torch.tensor([math.inf, 4.0, math.inf], requires_grad=True)
    z = ts.vmf_sample(mu, k, 5, seed=0, backend=backend)
    assert torch.equal(z[0], mu[0].expand(5, 9))
    z.sum().backward()
    assert torch.isfinite(mu.grad).all() and k.grad[0] == 0


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_types(half, unit):
    mu, k = unit(4, 32, dtype=half).requires_grad_(), torch.full((4,), 20.0, dtype=half, requires_grad=True)
    z = ts.vmf_sample(mu, k, 8, seed=0)
    assert z.dtype == half and (z.float().norm(dim=-1) - 1).abs().max() < 2e-2
    z.sum().backward()
    assert mu.grad.dtype == half and torch.isfinite(k.grad).all()


def test_second_derivatives_raise(unit):
    k = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    z = ts.vmf_sample(unit(4), k, 3, seed=0)
    (g,) = torch.autograd.grad(z.sum(), k, create_graph=True)
    with pytest.raises(RuntimeError, match="vmf_sample: second derivatives are not available"):
        torch.autograd.grad(g, k)


def test_bad_input(unit):
    mu, k = unit(3, 5), torch.ones(3, dtype=torch.float64)
    bad = [
        (dict(mu=2 * mu), "mu: expected unit vectors, got one of length 2"),
        (dict(mu=mu * math.nan), "mu: expected unit vectors"),
        (dict(kappa=-k), "kappa: expected values >= 0, got -1"),
        (dict(kappa=k * math.nan), "kappa: expected values >= 0, got nan"),
        (dict(kappa=k.float()), "kappa: expected torch.float64 as mu, got torch.float32"),
        (dict(kappa=torch.ones(4, dtype=torch.float64)), "kappa: expected a shape that broadcasts"),
        (dict(mu=mu[:, :1]), "mu: expected a last dimension of at least 2"),
        (dict(mu=torch.tensor(1.0, dtype=torch.float64)), "mu: expected at least 1 dimensions"),
        (dict(mu=mu.long()), "mu: expected a floating dtype, got torch.int64"),
        (dict(n_samples=-1), "n_samples: expected an integer >= 0, got -1"),
        (dict(n_samples=2.0), "n_samples"),
        (dict(kappa_grad="exact"), "kappa_grad: expected 'implicit' or 'pathwise', got 'exact'"),
        (dict(seed=1, generator=torch.Generator()), "at most one"),
        (dict(seed="x"), "seed: expected an integer of 64 bits"),
        (dict(backend="gpu"), "backend: expected None"),
    ]
    for change, message in bad:
        with pytest.raises(ValueError, match=message):
            ts.vmf_sample(**(dict(mu=mu, kappa=k, n_samples=2) | change))
    with pytest.raises(RuntimeError, match="backend 'cuda'"):
        ts.vmf_sample(mu, k, 2, backend="cuda")
