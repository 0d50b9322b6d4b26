"""Functions of kappa against many digits, and their derivatives."""

import functools

import exact
import mpmath as mp
import pytest
import torch

import transphere as ts
from transphere import _library

DIMS = [2, 3, 4, 5, 8, 33, 50, 64, 65, 66, 79, 80, 81, 82, 449, 450, 512, 4096, 100_000]
KAPPAS = [1e-12, 1e-6, 1e-3, 0.1, 0.7, 1.0, 3.0, 10.5, 20.0, 31.9, 32.0, 33.0, 45.0, 64.0, 90.0, 128.0, 200.0, 1e3, 1e4, 1e5, 1e6]
FUNCTIONS = [ts.vmf_log_normalizer, ts.vmf_mean_resultant, ts.vmf_variance, ts.vmf_entropy, ts.vmf_kl_uniform]


def truth(d, kappa, order):
    """The value and what its error is relative to."""
    with mp.workdps(exact.DIGITS):
        cumulants = exact.cumulants(d, kappa)
        value = kappa * cumulants[1] - cumulants[0] if order == -1 else cumulants[order]
        scale = max(abs(value), abs(cumulants[3]) / kappa) if order == 4 else abs(value)  # A''' changes sign
        return value, scale


def worst_error(got, expected):
    with mp.workdps(exact.DIGITS):
        return max(float(abs(mp.mpf(g) - value) / scale) for g, (value, scale) in zip(got.tolist(), expected, strict=True))


@pytest.mark.parametrize("order", range(-1, 5))
def test_cumulants(order, backend, size):
    k = torch.tensor(KAPPAS, dtype=torch.float64)
    for d in size(DIMS, [2, 3, 50, 66, 450]):
        got = _library.op("vmf_cumulant", backend, k)(k, d, order)
        assert worst_error(got, [truth(d, x, order) for x in KAPPAS]) < 5e-13, d


def test_random_dimensions_and_concentrations():
    g = torch.Generator().manual_seed(1)
    for _ in range(60):
        d = int(2 + 10 ** (4 * torch.rand((), generator=g)))
        k = 10 ** (6 * torch.rand(3, generator=g, dtype=torch.float64) - 1)
        for order in range(-1, 5):
            got = torch.ops.transphere.vmf_cumulant(k, d, order)
            assert worst_error(got, [truth(d, x, order) for x in k.tolist()]) < 5e-13, (d, k, order)


@pytest.mark.parametrize("d", [2, 3, 16, 80, 512, 4096])
def test_public_functions_and_two_derivatives(d):
    """Values, first and second derivatives. Entropy and log normaliser have zeros: errors are relative to the sum of their two parts."""
    area = exact.log_area(d)
    for kappa in KAPPAS:
        with mp.workdps(exact.DIGITS):
            L, A, A1, A2, A3 = exact.cumulants(d, kappa)
            k, kl = mp.mpf(kappa), kappa * A - L
            kl_slopes = k * A1, A1 + k * A2
            expected = {
                ts.vmf_log_normalizer: ((-area - L, abs(area) + L), (-A, A), (-A1, A1)),
                ts.vmf_mean_resultant: ((A, A), (A1, A1), (A2, abs(A2))),
                ts.vmf_variance: ((A1, A1), (A2, abs(A2)), (A3, max(abs(A3), abs(A2) / k))),
                ts.vmf_kl_uniform: ((kl, kl), (kl_slopes[0], kl_slopes[0]), (kl_slopes[1], A1)),
                ts.vmf_entropy: ((area - kl, abs(area) + kl), (-kl_slopes[0], kl_slopes[0]), (-kl_slopes[1], A1)),
            }
        x = torch.tensor(kappa, dtype=torch.float64, requires_grad=True)
        for function, values in expected.items():
            got = function(x, d)
            for value, scale in values:
                assert worst_error(got.detach()[None], [(value, scale)]) < 1e-12, (function, kappa)
                (got,) = torch.autograd.grad(got, x, create_graph=True) if value is not values[-1][0] else (None,)


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
def test_gradcheck(d, backend, gradcheck, size):
    k = torch.tensor([0.3, 2.0, 11.0, 96.0, 900.0], dtype=torch.float64, requires_grad=True)
    for f in FUNCTIONS if size(True, False) else FUNCTIONS[-3:-1]:  # between them, these two need every order
        g = functools.partial(f, d=d, backend=backend)
        assert gradcheck(g, k)
        assert torch.autograd.gradgradcheck(g, k, fast_mode=size(False, True))


def test_ends(backend):
    """At 0 and at infinity, with derivatives; beyond them NaN, where values are not looked at."""
    for d in (2, 66):
        k = torch.tensor([0.0, float("inf")], dtype=torch.float64, requires_grad=True)
        inf = float("inf")
        for f, expected, slopes, bends in [
            (ts.vmf_kl_uniform, [0, inf], [0, 0], [1 / d, 0]),
            (ts.vmf_mean_resultant, [0, 1], [1 / d, 0], [0, 0]),
            (ts.vmf_variance, [1 / d, 0], [0, 0], [-6 / (d * d * (d + 2)), 0]),
        ]:
            value = f(k, d, backend=backend)
            (slope,) = torch.autograd.grad(value.sum(), k, create_graph=True)
            (bend,) = torch.autograd.grad(slope.sum(), k)
            assert (value.tolist(), slope.tolist()) == (pytest.approx(expected), pytest.approx(slopes))
            assert bend.tolist() == pytest.approx(bends)
        assert ts.vmf_entropy(k, d, backend=backend)[1] == ts.vmf_log_normalizer(k, d, backend=backend)[1] == -inf
        outside = torch.tensor([-1.0, float("nan")], dtype=torch.float64)
        for order in range(-1, 5):
            assert _library.op("vmf_cumulant", backend, k)(outside, d, order).isnan().all()


def test_far_concentrations(backend):
    k = torch.tensor([5e-324, 1e-300, 1e30, 1e160, 1.7e308], dtype=torch.float64)
    for d in (2, 3, 66, 512):
        for order in range(-1, 5):
            value = _library.op("vmf_cumulant", backend, k)(k, d, order)
            assert value.isfinite().all(), (d, order)
            torch.testing.assert_close(value, _library.op("vmf_cumulant", "reference", k)(k, d, order), rtol=1e-12, atol=1e-320)
        assert torch.equal(ts.vmf_mean_resultant(k, d, backend=backend)[2:], torch.ones(3, dtype=torch.float64))


def test_a_value_does_not_depend_on_its_neighbours():
    """Whichever vector lane and branch it shares."""
    k = torch.tensor(KAPPAS * 7, dtype=torch.float64)[torch.randperm(7 * len(KAPPAS))]
    for d in (2, 40, 66):
        for order in range(-1, 5):
            together = torch.ops.transphere.vmf_cumulant(k, d, order)
            assert torch.equal(together, torch.cat([torch.ops.transphere.vmf_cumulant(x[None], d, order) for x in k]))


def test_float32_and_half_compute_in_double():
    k = torch.tensor([1e-3, 5.0, 96.0, 1e6])
    for order in range(-1, 4):
        got = torch.ops.transphere.vmf_cumulant(k, 512, order).double()
        expected = torch.tensor([float(truth(512, x, order)[0]) for x in k.tolist()], dtype=torch.float64)
        torch.testing.assert_close(got, expected, rtol=7e-8, atol=0)
    assert ts.vmf_entropy(k.bfloat16(), 512).dtype == torch.bfloat16


def test_shapes(backend):
    k = torch.rand(4, 6).T
    assert torch.equal(ts.vmf_mean_resultant(k, 5, backend=backend), ts.vmf_mean_resultant(k.contiguous(), 5, backend=backend))
    assert ts.vmf_log_normalizer(torch.empty(0, 3), 5, backend=backend).shape == (0, 3)
    assert ts.vmf_variance(torch.tensor(3.0), 5, backend=backend).shape == ()


def test_fourth_derivative_is_the_last():
    k = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    x = ts.vmf_log_normalizer(k, 5)
    for _ in range(4):
        (x,) = torch.autograd.grad(x, k, create_graph=True)
    with pytest.raises(RuntimeError, match="fourth cumulant"):
        torch.autograd.grad(x, k)


def test_bad_input():
    for k, d, message in [
        (torch.tensor(-1.0), 3, "kappa: expected values >= 0, got -1"),
        (torch.tensor(float("nan")), 3, "kappa: expected values >= 0, got nan"),
        (torch.tensor(1), 3, "kappa: expected a floating dtype"),
        (torch.tensor(1.0), 1, "d: expected an integer >= 2, got 1"),
        (torch.tensor(1.0), 2.5, "d: expected an integer >= 2, got 2.5"),
    ]:
        for function in FUNCTIONS:
            with pytest.raises(ValueError, match=f"{function.__name__}: {message}"):
                function(k, d)
    with pytest.raises(RuntimeError, match="expected order -1 to 4, got 5"):
        torch.ops.transphere.vmf_cumulant(torch.tensor(1.0), 3, 5)
