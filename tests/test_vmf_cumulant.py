"""Functions of kappa against mpmath, and their derivatives."""

import functools

import mpmath as mp
import pytest
import torch

import transphere as ts
from transphere import _library

DIMS = [2, 3, 4, 5, 8, 33, 64, 82, 83, 512, 4096]
KAPPAS = [1e-6, 1e-3, 0.1, 1.0, 10.5, 64.0, 128.0, 1e3, 1e4, 1e6]


@functools.cache
def exact(d, kappa):
    """Lambda, A, A', A'' with 50 digits."""
    with mp.workdps(50):
        nu, k = mp.mpf(d) / 2 - 1, mp.mpf(kappa)
        small = k < 1000  # besseli loses digits below, hyp0f1 above
        cgf = mp.log(mp.hyp0f1(nu + 1, k * k / 4)) if small else mp.loggamma(nu + 1) + nu * mp.log(2 / k) + mp.log(mp.besseli(nu, k))
        A = mp.besseli(nu + 1, k) / mp.besseli(nu, k)
        A1 = 1 - A * A - (d - 1) * A / k
        A2 = -2 * A * A1 - (d - 1) * A1 / k + (d - 1) * A / k**2
        return float(cgf), float(A), float(A1), float(A2)


@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize("order, bound", [(0, 1e-12), (1, 1e-12), (2, 1e-12), (3, 1e-6)])
def test_cumulants(d, order, bound, backend):
    k = torch.tensor(KAPPAS, dtype=torch.float64)
    got = _library.op("vmf_cumulant", backend, k)(k, d, order)
    truth = torch.tensor([exact(d, x)[order] for x in KAPPAS], dtype=torch.float64)
    assert ((got - truth) / truth).abs().max() < bound


@pytest.mark.parametrize("d", [2, 3, 64, 512])
def test_public_functions(d):
    k = torch.tensor([0.0, *KAPPAS], dtype=torch.float64)
    truth = torch.tensor([(0.0, 0.0, 1 / d, 0.0), *(exact(d, x) for x in KAPPAS)], dtype=torch.float64)
    log_area = float(mp.log(2) + mp.mpf(d) / 2 * mp.log(mp.pi) - mp.loggamma(mp.mpf(d) / 2))
    torch.testing.assert_close(ts.vmf_log_normalizer(k, d), -log_area - truth[:, 0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ts.vmf_mean_resultant(k, d), truth[:, 1], rtol=1e-12, atol=0)
    torch.testing.assert_close(ts.vmf_variance(k, d), truth[:, 2], rtol=1e-11, atol=0)
    kl = k * truth[:, 1] - truth[:, 0]
    torch.testing.assert_close(ts.vmf_kl_uniform(k, d), kl, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ts.vmf_entropy(k, d), log_area - kl, rtol=1e-9, atol=1e-12)


def test_values_of_the_documents():
    for d, kappa, A, variance, log_c, kl in [
        (3, 10.0, 0.9000000041223073, 0.00999999175539, -9.535291971354146, 1.9957323168382),
        (64, 64.0, 0.6204304365483495, 0.00432986242714, 16.53357224671428, 15.473400160234),
        (512, 96.0, 0.1813556334786377, 0.00176921016823, 859.1188047946392, 8.5608424481941),
    ]:
        k = torch.tensor(kappa, dtype=torch.float64)
        got = [f(k, d).item() for f in (ts.vmf_mean_resultant, ts.vmf_variance, ts.vmf_log_normalizer, ts.vmf_kl_uniform)]
        assert got == pytest.approx([A, variance, log_c, kl], rel=1e-12)


@pytest.mark.parametrize("d", [2, 3, 16, 512])
def test_derivatives(d, backend, gradcheck, size):
    k = torch.tensor([0.3, 2.0, 11.0, 96.0, 900.0], dtype=torch.float64, requires_grad=True)
    functions = ts.vmf_log_normalizer, ts.vmf_kl_uniform, ts.vmf_mean_resultant, ts.vmf_entropy
    for f in functions[: size(4, 1)]:  # the first needs every cumulant
        g = functools.partial(f, d=d, backend=backend)
        assert gradcheck(g, k)
        assert torch.autograd.gradgradcheck(g, k, fast_mode=backend == "triton")
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(ts.vmf_mean_resultant(zero, d), zero, create_graph=True)
    assert slope.item() == pytest.approx(1 / d) and torch.autograd.grad(slope, zero)[0] == 0


def test_float32_and_half_compute_in_double():
    k = torch.tensor([1e-3, 5.0, 96.0])
    truth = torch.tensor([exact(512, x)[1] for x in (1e-3, 5.0, 96.0)], dtype=torch.float64)
    torch.testing.assert_close(ts.vmf_mean_resultant(k, 512).double(), truth, rtol=1e-7, atol=0)
    assert ts.vmf_entropy(k.bfloat16(), 512).dtype == torch.bfloat16


def test_shapes_and_limits(backend):
    k = torch.rand(4, 6).T
    assert torch.equal(ts.vmf_mean_resultant(k, 5, backend=backend), ts.vmf_mean_resultant(k.contiguous(), 5, backend=backend))
    assert ts.vmf_log_normalizer(torch.empty(0, 3), 5, backend=backend).shape == (0, 3)
    far = torch.tensor([1e30, float("inf")], dtype=torch.float64)
    assert torch.equal(ts.vmf_mean_resultant(far, 5, backend=backend), torch.ones(2, dtype=torch.float64))


def test_third_derivative_is_the_last():
    k = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    x = ts.vmf_log_normalizer(k, 5)
    for _ in range(3):
        (x,) = torch.autograd.grad(x, k, create_graph=True)
    with pytest.raises(RuntimeError, match="third cumulant"):
        torch.autograd.grad(x, k)


def test_bad_input():
    for k, d, message in [
        (torch.tensor(-1.0), 3, "kappa: expected values >= 0, got -1"),
        (torch.tensor(float("nan")), 3, "kappa: expected values >= 0, got nan"),
        (torch.tensor(1), 3, "kappa: expected a floating dtype"),
        (torch.tensor(1.0), 1, "d: expected an integer >= 2, got 1"),
        (torch.tensor(1.0), 2.5, "d: expected an integer >= 2, got 2.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            ts.vmf_entropy(k, d)
