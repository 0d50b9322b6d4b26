"""The projection to the positive cone: nearest, idempotent, within its stated bounds, by each method; and the factor L L'."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import transphere as ts

METHODS = ["auto", "eigh", "polar"]
ROUNDINGS = {"auto": 64, "eigh": 64, "polar": 8}  # of |M|: how far an eigenvalue may fall short of the floor, as the docstring says


def orthogonal(d):
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0]


def spectra(d):
    """Hard ones: the paper's initial matrix, eigenvalues over nine decades of both signs, a projector, clusters, one large beside small."""
    A, sign = torch.rand(d, d, dtype=torch.float64), torch.where(torch.arange(d) % 2 == 0, 1, -1)
    yield "paper", (A + A.mT) / 2 + torch.eye(d, dtype=torch.float64)
    one_large = -torch.logspace(-7, -2, d, dtype=torch.float64)
    one_large[0] = 1
    eigenvalues = {
        "gaussian": torch.randn(d, dtype=torch.float64),
        "nine decades": sign * torch.logspace(-9, 0, d, dtype=torch.float64),
        "projector": torch.cat([torch.zeros(d - d // 2), torch.ones(d // 2)]).double(),
        "reflection": sign.double(),
        "negative": torch.full((d,), -1.0).double(),
        "positive": torch.logspace(-6, 0, d, dtype=torch.float64),
        "one large": one_large,
        "huge": 1e15 * torch.randn(d, dtype=torch.float64),
        "tiny": 1e-15 * torch.randn(d, dtype=torch.float64),
        "zero": torch.zeros(d, dtype=torch.float64),
    }
    for name, values in eigenvalues.items():
        Q = orthogonal(d)
        yield name, Q * values @ Q.mT


def exact(M, floor=0.0):
    values, V = np.linalg.eigh(0.5 * (M + M.mT).double().numpy())
    return torch.from_numpy((V * np.maximum(values, floor)) @ V.T), torch.from_numpy(values)


@pytest.mark.parametrize("method", METHODS)
def test_nearest_and_above_the_floor(method, dtype):
    for d in (1, 2, 33, 96):
        for name, M in spectra(d):
            M = M.to(dtype)
            size = torch.linalg.matrix_norm(M.double(), 2).item()
            for floor in (0.0, 0.25 * size, -0.25 * size):
                P = ts.psd_project(M, floor=floor, method=method)
                expected, _ = exact(M, floor)
                assert torch.equal(P, P.mT), name
                short = floor - torch.linalg.eigvalsh(P.double())[0]
                assert short <= ROUNDINGS[method] * torch.finfo(dtype).eps * size, (name, d, floor)
                error = torch.linalg.matrix_norm(P.double() - expected, 2)
                assert error <= 64 * torch.finfo(dtype).eps * size, (name, d, floor)


@pytest.mark.slow
def test_bound_at_full_size():
    for name, M in spectra(1024):
        size = torch.linalg.matrix_norm(M, 2)
        assert torch.linalg.eigvalsh(ts.psd_project(M.float(), method="polar").double())[0] >= -1e-6 * size, name


def test_auto_is_idempotent_to_the_bit(dtype):
    for d in (1, 3, 64, 130):
        for name, M in spectra(d):
            for floor in (0.0, 0.1):
                P = ts.psd_project(M.to(dtype), floor=floor)
                assert torch.equal(ts.psd_project(P, floor=floor), P), (name, d)


def test_auto_returns_at_once_what_is_positive(monkeypatch):
    A = torch.randn(3, 20, 20)
    M = A @ A.mT + 0.1 * torch.eye(20)
    M[1] -= 10 * torch.eye(20)
    whole = ts.psd_project(M)
    sizes, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda S: sizes.append(S.shape) or eigh(S))
    P = ts.psd_project(M)
    assert sizes == [(1, 20, 20)]  # of three, the one that is not positive
    S = 0.5 * (M + M.mT)
    assert torch.equal(P, whole) and torch.equal(P[0], S[0]) and torch.equal(P[2], S[2]) and not torch.equal(P[1], S[1])
    sizes.clear()
    assert torch.equal(ts.psd_project(S[0]), S[0]) and not sizes
    large = torch.eye(150)
    large[-1, -1] = -1  # beyond the leading block, which is looked at first
    assert ts.psd_project(large)[-1, -1].abs() < 1e-5 and sizes == [(150, 150)]


def test_singular_values_clamped_are_no_projection():
    """What the authors' code of m-LTM does after each step changes nothing, and the paper's initial matrix is indefinite."""
    _, M = next(spectra(256))
    U, s, V = torch.linalg.svd(M)
    torch.testing.assert_close((U * s.clamp(min=0)) @ V, M)
    assert torch.linalg.eigvalsh(M)[0] < -1
    assert torch.linalg.eigvalsh(ts.psd_project(M))[0] > -1e-11


@pytest.mark.parametrize("method", METHODS)
def test_batches(method, dtype, tolerance):
    M = torch.randn(2, 3, 7, 7, dtype=dtype)
    M[1, 1] = M[1, 1] @ M[1, 1].mT
    P = ts.psd_project(M, floor=0.1, method=method)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(P[i, j], ts.psd_project(M[i, j], floor=0.1, method=method), **tolerance)
    assert ts.psd_project(torch.ones(0, 3, 3), method=method).shape == (0, 3, 3)
    assert ts.psd_project(torch.ones(2, 0, 0), method=method).shape == (2, 0, 0)


@pytest.mark.parametrize("method", METHODS)
def test_gradients(method):
    values = torch.tensor([-2.0, -2.0, -0.5, 0.4, 1.0, 1.0])  # equal ones on both sides
    Q = orthogonal(6)
    M = torch.stack([Q * values @ Q.mT + torch.triu(torch.randn(6, 6).double(), 1) * 0, Q * values.abs() @ Q.mT])
    M = (M + (A := torch.randn(6, 6).double()) - A.mT).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: ts.psd_project(t, floor=0.1, method=method), M)
    (grad,) = torch.autograd.grad(ts.psd_project(M, method=method).square().sum(), M)
    assert torch.equal(grad, grad.mT) and grad.isfinite().all()


def test_gradient_where_nothing_is_to_do():
    M = (2 * torch.eye(4) + 0.1 * torch.randn(4, 4)).requires_grad_()
    G = torch.randn(4, 4)
    (grad,) = torch.autograd.grad(ts.psd_project(M), M, G)
    torch.testing.assert_close(grad, 0.5 * (G + G.mT))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half(half):
    M = torch.randn(5, 5).to(half)
    for method in METHODS:
        assert torch.equal(ts.psd_project(M, method=method), ts.psd_project(M.float(), method=method).to(half))


def test_compiles_and_leaves_its_argument_alone():
    M = torch.randn(6, 6)
    before = M.clone()
    for method in METHODS:
        compiled = torch.compile(lambda t, method=method: ts.psd_project(t, method=method), backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(M), ts.psd_project(M, method=method), rtol=1e-4, atol=1e-5)
        assert torch.equal(M, before)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ts.psd_project(torch.ones(3, 4)), r"M: expected shape \(\.\.\., d, d\), got \(3, 4\)"),
        (lambda: ts.psd_project(torch.ones(3)), "M: expected at least 2 dimensions"),
        (lambda: ts.psd_project(torch.ones(3, 3).int()), "M: expected a floating dtype"),
        (lambda: ts.psd_project(torch.eye(3), method="svd"), "method: expected 'auto', 'eigh' or 'polar', got 'svd'"),
        (lambda: ts.psd_project(torch.eye(3), floor=math.nan), "floor: expected a finite number, got nan"),
        (lambda: ts.psd_project(torch.eye(3), floor="0"), "floor: expected a finite number, got '0'"),
        *[(lambda m=m: ts.psd_project(torch.full((3, 3), math.nan), method=m), "M: expected finite entries") for m in METHODS],
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=f"psd_project: {message}"):
        call()


class Metric(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.M = nn.Parameter(torch.randn(d, d))


@pytest.mark.parametrize("rank", [None, 2, 9])
def test_factor_as_parametrisation(rank):
    module = Metric(5)
    start = module.M.detach().clone()
    nn.utils.parametrize.register_parametrization(module, "M", ts.PositiveSemidefinite(rank))
    values = torch.linalg.eigvalsh(module.M)
    expected = torch.linalg.eigvalsh(ts.psd_project(start))
    if rank == 2:
        expected[:-2] = 0
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        ts.mahalanobis_cost(torch.randn(6, 5), torch.randn(6, 5), module.M).sum().backward()
        optimizer.step()
        assert torch.linalg.eigvalsh(module.M.double())[0] > -1e-5
    with pytest.raises(ValueError, match="PositiveSemidefinite: rank: expected None or an integer >= 1, got 0"):
        ts.PositiveSemidefinite(0)
    with pytest.raises(ValueError, match=r"PositiveSemidefinite: expected a matrix \(\.\.\., d, d\), got shape \(5,\)"):
        ts.PositiveSemidefinite().right_inverse(torch.ones(5))
