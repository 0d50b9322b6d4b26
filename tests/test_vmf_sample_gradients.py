"""Gradients of vMF draws: the slope in kappa against its definition, the means of gradients against closed forms."""

import math

import pytest
import torch
from scipy import integrate

import transphere as ts
from transphere import _library
from transphere.reference.vmf_sample import vmf_tau


def tau_by_definition(w, kappa, d):
    """(1/p(w)) int (t - A) p(t) dt over the side of w away from A, in the angle, where the density is smooth at every d."""
    A, theta = float(ts.vmf_mean_resultant(torch.tensor(kappa, dtype=torch.float64), d)), math.acos(w)

    def density(phi):
        sine = math.sin(phi) / math.sin(theta)
        fall = -2 * math.sin((phi + theta) / 2) * math.sin((phi - theta) / 2)                # cos phi - cos theta
        return abs(w + fall - A) * math.exp(kappa * fall + (d - 2) * math.log(sine)) * math.sin(theta) if sine > 0 else 0.0

    reach = 30 / math.sqrt(kappa + d)
    ends = (max(0.0, theta - reach), theta) if w > A else (theta, min(math.pi, theta + reach))
    return integrate.quad(density, *ends, epsabs=0, epsrel=1e-11, limit=400)[0]


@pytest.mark.parametrize("d", [2, 3, 4, 5, 16, 32, 33, 64, 512])
@pytest.mark.parametrize("kappa", [1e-3, 0.5, 5.0, 64.0, 500.0, 2e3, 1e5])
def test_implicit_slope_is_its_definition(d, kappa):
    """Within 5 standard deviations; measured worst: 3e-8 below kappa = 1000, from where on the recurrence is left out, 5e-7 there."""
    k = torch.tensor([[kappa]], dtype=torch.float64)
    mean, sd = float(ts.vmf_mean_resultant(k, d)), float(ts.vmf_variance(k, d).sqrt())
    bound = 4e-8 if kappa < 1000 else 5e-7
    for w in (mean + x * sd for x in (-5, -3, -1, -0.1, 0.2, 1, 2, 3, 5) if abs(mean + x * sd) < 1 - 1e-9 * (kappa < 1000)):
        truth = tau_by_definition(w, kappa, d)
        wt = torch.tensor([[w]], dtype=torch.float64)
        v = (1 - w) * (1 + w)
        for got in (float(vmf_tau(wt, torch.full_like(wt, v), k, d, False)), _library._C._vmf_tau(w, v, kappa, d, False)):
            assert abs(got / truth - 1) < bound, (w, got, truth)


def moments(k, d):
    """E w and E w^2, differentiable in k."""
    A = ts.vmf_mean_resultant(k, d)
    return A, ts.vmf_variance(k, d) + A * A


def expected_linear(k, d, along, norm2):
    """E a.z of a with a.mu = along."""
    return moments(k, d)[0] * along


def expected_quadratic(k, d, along, norm2):
    """E (a.z)^2."""
    _, second = moments(k, d)
    return along**2 * second + (norm2 - along**2) * (1 - second) / (d - 1)


CASES = [(d, kappa) for d in (2, 3, 5, 16, 32, 33, 64, 512) for kappa in (1e-2, 2.0, 30.0, 1e3, 1e5)]


@pytest.mark.parametrize("d, kappa", CASES)
def test_gradients_are_unbiased(d, kappa, unit):
    """The mean over draws of df/dkappa and df/dmu, for f = a.z and (a.z)^2, is the derivative of E f."""
    laws, n = (60, 100) if d == 512 else (200, 200)
    mu = unit(d, seed=2)
    a = 0.6 * mu + 0.8 * unit(d, seed=3)
    m = mu.expand(laws, d).clone().requires_grad_()
    k = torch.full((laws,), kappa, dtype=torch.float64, requires_grad=True)
    z = ts.vmf_sample(m, k, n, seed=7)
    k0 = torch.tensor(kappa, dtype=torch.float64, requires_grad=True)
    along = (a @ mu).requires_grad_()
    for f, expected in (((z @ a), expected_linear), ((z @ a).square(), expected_quadratic)):
        of_mu, of_kappa = torch.autograd.grad(f.mean(-1).sum(), (m, k), retain_graph=True)
        slope_k, slope_along = torch.autograd.grad(expected(k0, d, along, a @ a), (k0, along))
        assert abs(of_kappa.mean() - slope_k) < 4.5 * of_kappa.std() / math.sqrt(laws) + 1e-13
        truth = slope_along * (a - (a @ mu) * mu)                                            # E f depends on mu by a.mu
        assert ((of_mu.mean(0) - truth).abs() < 5 * of_mu.std(0) / math.sqrt(laws) + 1e-11).all()
        assert (of_mu @ mu).abs().max() < 1e-11                                              # tangent


@pytest.mark.parametrize("d, kappa", [(2, 2.0), (5, 2.0)])
def test_pathwise_gradient_has_its_known_bias(d, kappa, unit):
    laws, mu = 400, unit(d)
    k = torch.full((laws,), kappa, dtype=torch.float64, requires_grad=True)
    z = ts.vmf_sample(mu.expand(laws, d), k, 500, seed=7, kappa_grad="pathwise")
    (g,) = torch.autograd.grad((z @ mu).mean(-1).sum(), k)
    k0 = torch.tensor(kappa, dtype=torch.float64)
    expected = (d - 1) * ts.vmf_mean_resultant(k0, d) / (k0 * math.hypot(2 * kappa, d - 1))
    assert abs(g.mean() - expected) < 4.5 * g.std() / math.sqrt(laws)
    assert expected < 0.9 * ts.vmf_variance(k0, d)


@pytest.mark.parametrize("d", [2, 3, 64])
def test_gradient_at_kappa_zero(d, unit, backend):
    """dE[w]/dkappa is 1/d there; nothing divides by kappa."""
    mu = unit(1, d)
    k = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    z = ts.vmf_sample(mu, k, 1000, seed=1, backend=backend)
    (g,) = torch.autograd.grad((z @ mu[0]).mean(), k)
    assert g.item() == pytest.approx(1 / d, rel=0.15)


@pytest.mark.parametrize("pathwise", [False, True])
@pytest.mark.parametrize("d", [2, 3, 8, 33, 128, 512, 600])
def test_backward_agrees(d, pathwise, dtype, unit, backend, size):
    mu, kappa = unit(5, d, dtype=dtype), torch.tensor([0.5, 3.0, 11.0, 96.0, 1e3], dtype=dtype)
    z, w, v = _library.op("vmf_sample", None, mu)(mu, kappa, torch.tensor([1, 2]), size(300, 45), pathwise)
    G = torch.randn_like(z)
    args = G, z, w, v, mu, kappa
    truth = _library.op("vmf_sample_backward", "reference", mu)(*(a.double() for a in args), pathwise)
    got = _library.op("vmf_sample_backward", backend, mu)(*args, pathwise)
    for g, t in zip(got, truth, strict=True):
        assert (g.double() - t).norm() <= 300 * torch.finfo(dtype).eps * t.norm()


@pytest.mark.parametrize("shape, n", [((3,), 1), ((1,), 70), ((40,), 3)])
def test_backward_of_laws_with_few_and_many_draws(shape, n, unit, backend):
    """Draws of several laws share vectors and warps; each gets its own slope."""
    mu, kappa = unit(*shape, 7), torch.logspace(-1, 4, math.prod(shape), dtype=torch.float64).reshape(shape)
    grads = []
    for b in ("reference", backend):
        m, k = mu.clone().requires_grad_(), kappa.clone().requires_grad_()
        z = ts.vmf_sample(m, k, n, seed=5, backend=b)
        weight = torch.arange(z.numel(), dtype=z.dtype).cos().reshape(z.shape)
        grads.append(torch.autograd.grad((z * weight).sum(), (m, k)))
    for got, truth in zip(grads[1], grads[0], strict=True):
        torch.testing.assert_close(got, truth, rtol=1e-9, atol=1e-11)


def test_second_derivatives_raise(unit):
    k = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    z = ts.vmf_sample(unit(4), k, 3, seed=0)
    (g,) = torch.autograd.grad(z.sum(), k, create_graph=True)
    with pytest.raises(RuntimeError, match="vmf_sample: second derivatives are not available"):
        torch.autograd.grad(g, k)
