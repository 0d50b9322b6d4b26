"""Mahalanobis costs: against differences in float64, at equal and near points, under a common offset, with every form of M; gradients."""

import math

import pytest
import torch
from conftest import BACKENDS

import transphere as ts
from transphere import _library

METRICS = ["none", "diagonal", "full", "singular", "asymmetric"]


def metric(kind, d, dtype=torch.float64):
    A = torch.randn(d, d, dtype=torch.float64)
    M = {
        "none": None,
        "diagonal": torch.rand(d, dtype=torch.float64),
        "full": A @ A.mT / d + 0.1 * torch.eye(d, dtype=torch.float64),
        "singular": A[:, : d // 2] @ A[:, : d // 2].mT / d,
        "asymmetric": A @ A.mT / d + (A - A.mT),
    }[kind]
    return None if M is None else M.to(dtype)


def truth(x, y, M, squared=False):
    """The definition, (..., n, m, d) and all, in float64."""
    apart = x.double()[..., :, None, :] - y.double()[..., None, :, :]
    M = torch.ones(x.shape[-1], dtype=torch.float64) if M is None else M.double()
    M = M.diag() if M.dim() == 1 else 0.5 * (M + M.mT)
    q = torch.einsum("...k,kl,...l", apart, M, apart).clamp(min=0)
    return q if squared else q.sqrt()


@pytest.mark.parametrize("squared", [False, True], ids=["root", "squared"])
@pytest.mark.parametrize("kind", METRICS)
def test_matches_the_definition(kind, squared, dtype, backend):
    for n, m, d in ((1, 1, 1), (3, 5, 2), (17, 33, 20), (5, 2, 37)):
        x, y = (torch.randn(2, k, d, dtype=dtype) for k in (n, m))
        M = metric(kind, d, dtype)
        cost, expected = ts.mahalanobis_cost(x, y, M, squared=squared, backend=backend), truth(x, y, M, squared)
        assert cost.shape == (2, n, m) and cost.dtype == dtype
        limit = 2e-6 if dtype == torch.float32 else 1e-13
        assert ((cost.double() - expected).abs() <= limit * expected.amax((1, 2), keepdim=True)).all()


@pytest.mark.parametrize("kind", METRICS[:3])
def test_float32_with_an_offset_and_near_points(kind, backend, size):
    """A common offset of 100 times the spread; the first pairs equal, others 1e-4 to 3e-2 apart."""
    n, d = size(64, 12), size(256, 24)
    x = torch.randn(n, d) + 100
    apart = torch.logspace(-4, -1.5, n)
    apart[:4] = 0
    y = x + apart[:, None] * torch.randn(n, d)
    M = metric(kind, d, torch.float32)
    for squared in (False, True):
        cost, expected = ts.mahalanobis_cost(x, y, M, squared=squared, backend=backend), truth(x, y, M, squared)
        assert (cost - expected).abs().max() <= 1e-6 * expected.max()
        assert (cost.diagonal()[:4] == 0).all() and (cost.diagonal()[4:] > 0).all()


@pytest.mark.parametrize("kind", METRICS)
def test_equal_points_cost_nothing_and_have_no_gradient(kind, dtype, backend):
    x = torch.randn(9, 6, dtype=dtype)
    y = x.clone().requires_grad_()
    x.requires_grad_()
    M = metric(kind, 6, dtype)
    M = None if M is None else M.requires_grad_()
    cost = ts.mahalanobis_cost(x, y, M, backend=backend)
    assert (cost.diagonal() == 0).all()
    inputs = (x, y) if M is None else (x, y, M)
    assert all((g == 0).all() for g in torch.autograd.grad(cost.diagonal().sum(), inputs, retain_graph=True))
    assert all(g.isfinite().all() for g in torch.autograd.grad(cost.sum(), inputs))


@pytest.mark.parametrize("squared", [False, True], ids=["root", "squared"])
@pytest.mark.parametrize("kind", METRICS[:4])
def test_gradients(kind, squared, backend, gradcheck):
    """Coincident points within a set, none across; broadcast batches; every combination of what wants a gradient."""
    x, y = torch.randn(2, 1, 3, 4, dtype=torch.float64), torch.randn(3, 5, 4, dtype=torch.float64)
    x[:, :, 1], y[:, 3] = x[:, :, 0], y[:, 0]
    M = metric(kind, 4)
    tensors = (x, y) if M is None else (x, y, M)
    for wanted in range(1, 2 ** len(tensors)):
        inputs = [t.clone().requires_grad_(bool(wanted >> i & 1)) for i, t in enumerate(tensors)]
        if wanted in (1, 2, 4) or wanted == 2 ** len(tensors) - 1:
            assert gradcheck(lambda *a: ts.mahalanobis_cost(*a, squared=squared, backend=backend), inputs)


@pytest.mark.parametrize("d", [4, 64])
def test_float32_gradients_match_float64(d, backend, size):
    """At both orders of the products: n > d and n < d."""
    n = size(40, 12)
    x, y, M = torch.randn(n, d) + 50, torch.randn(n + 3, d) + 50, metric("full", d, torch.float32)
    G = torch.randn(n, n + 3)
    for M_kind in (M, M.diagonal().clone()):
        inputs = [t.clone().requires_grad_() for t in (x, y, M_kind)]
        exact = [t.double().requires_grad_() for t in (x, y, M_kind)]
        grads = torch.autograd.grad(ts.mahalanobis_cost(*inputs, backend=backend), inputs, G)
        for g, e in zip(grads, torch.autograd.grad(truth_differentiable(*exact), exact, G.double()), strict=True):
            assert (g.double() - e).norm() <= 3e-6 * e.norm()


def truth_differentiable(x, y, M):
    apart = x[:, None] - y[None]
    M = M.diag() if M.dim() == 1 else 0.5 * (M + M.mT)
    return torch.einsum("...k,kl,...l", apart, M, apart).sqrt()


def test_gradient_in_the_metric_is_symmetric_to_the_bit(dtype, backend):
    x, y, M = torch.randn(3, 7, 9, dtype=dtype), torch.randn(3, 6, 9, dtype=dtype), metric("asymmetric", 9, dtype).requires_grad_()
    ts.mahalanobis_cost(x, y, M, squared=True, backend=backend).sum().backward()
    assert torch.equal(M.grad, M.grad.mT) and M.grad.abs().max() > 0


def test_only_the_symmetric_part_counts(backend):
    x, y, M = torch.randn(4, 5).double(), torch.randn(6, 5).double(), metric("asymmetric", 5)
    cost = ts.mahalanobis_cost(x, y, M, backend=backend)
    torch.testing.assert_close(cost, ts.mahalanobis_cost(x, y, 0.5 * (M + M.mT), backend=backend), rtol=1e-12, atol=0)


def test_indefinite_metric_is_clamped(dtype, backend):
    """Where q <= 0, cost and gradient are 0."""
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=dtype, requires_grad=True)
    for M in (torch.tensor([1.0, -1.0], dtype=dtype), torch.tensor([[1.0, 0.0], [0.0, -1.0]], dtype=dtype)):
        cost = ts.mahalanobis_cost(x, x.detach(), M, backend=backend)
        torch.testing.assert_close(cost, torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=dtype))
        (grad,) = torch.autograd.grad(cost.sum(), x)
        torch.testing.assert_close(grad, torch.tensor([[-1, 0], [1, 0], [0, 0]], dtype=dtype))


def test_non_contiguous_and_batches_alone_or_among_others(backend, tolerance, dtype):
    x, y, M = torch.randn(4, 3, 6, dtype=dtype), torch.randn(5, 4, 6, dtype=dtype), metric("full", 6, dtype)
    cost = ts.mahalanobis_cost(x, y[:, None], M, backend=backend)
    assert cost.shape == (5, 4, 3, 4)[:2] + (3, 4)
    for b in range(5):
        torch.testing.assert_close(cost[b], ts.mahalanobis_cost(x, y[b], M, backend=backend), **tolerance)
    strided = x.mT.contiguous().mT, y[:, None].flip(-2).flip(-2), M.mT.contiguous().mT
    torch.testing.assert_close(ts.mahalanobis_cost(*strided, backend=backend), cost, **tolerance)
    before = [t.clone() for t in strided]
    ts.mahalanobis_cost(*strided, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(before, strided, strict=True))


@pytest.mark.parametrize("shapes", [((0, 3), (4, 3)), ((4, 3), (0, 3)), ((0, 2, 3), (4, 3)), ((2, 0), (3, 0)), ((0, 5), (0, 5))])
def test_empty(shapes, backend):
    x, y = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    M = torch.eye(x.shape[-1], dtype=torch.float64, requires_grad=True)
    cost = ts.mahalanobis_cost(x, y, M, backend=backend)
    assert cost.shape == (*shapes[0][:-2], shapes[0][-2], shapes[1][-2]) and (cost == 0).all()
    assert all((g == 0).all() for g in torch.autograd.grad(cost.sum(), (x, y, M)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_in_its_row(bad, dtype, backend):
    x, y = torch.randn(2, 5, 4, dtype=dtype), torch.randn(2, 6, 4, dtype=dtype)
    x[0, 2, 1], y[1, 3, 0] = bad, bad
    cost = ts.mahalanobis_cost(x, y, metric("full", 4, dtype), backend=backend)
    wrong = torch.zeros(2, 5, 6, dtype=torch.bool)
    wrong[0, 2], wrong[1, :, 3] = True, True
    assert torch.equal(cost.isfinite(), ~wrong) and (math.isinf(bad) or torch.equal(cost.isnan(), wrong))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_inputs_accumulate_in_float32(half, backend):
    x, y = torch.randn(8, 64).to(half), torch.randn(8, 64).to(half)
    M = metric("full", 64, torch.float32)
    for metric_dtype in (half, torch.float32):  # a float32 metric with half embeddings, as in mixed precision
        cost = ts.mahalanobis_cost(x, y, M.to(metric_dtype), backend=backend)
        assert cost.dtype == half
        assert torch.equal(cost, ts.mahalanobis_cost(x.float(), y.float(), M.to(metric_dtype).float(), backend=backend).to(half))


def test_autocast_and_tf32_do_not_decide():
    x, y, M = (t.requires_grad_() for t in (torch.randn(8, 64), torch.randn(9, 64), metric("full", 64, torch.float32)))
    plain = torch.autograd.grad(ts.mahalanobis_cost(x, y, M).sum(), (x, y, M))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = torch.autograd.grad(ts.mahalanobis_cost(x, y, M).sum(), (x, y, M))
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))
    assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32


def test_results_do_not_depend_on_the_threads():
    x, y, M = (t.requires_grad_() for t in (torch.randn(65, 40), torch.randn(70, 40), metric("full", 40, torch.float32)))
    op = _library.op("mahalanobis_cost_backward", "cpu", x)
    grad, cost = torch.randn(3, 65, 70), torch.rand(3, 65, 70)
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(op(grad, cost, False))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(results[0], r, strict=True))


def test_weights_and_their_sums(dtype, backend, tolerance):
    grad, cost = torch.randn(2, 19, 35, dtype=dtype), torch.rand(2, 19, 35, dtype=dtype)
    cost[:, 3, ::2] = 0
    cost[0, 7, 1] = math.nan
    for squared in (False, True):
        W, rows, columns = _library.op("mahalanobis_cost_backward", backend, cost)(grad, cost, squared)
        expected = torch.where(cost == 0, 0, grad if squared else 0.5 * grad / cost)
        torch.testing.assert_close(W, expected, equal_nan=True, **tolerance)
        torch.testing.assert_close(rows, expected.sum(2), equal_nan=True, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(columns, expected.sum(1), equal_nan=True, rtol=1e-4, atol=1e-4)


def test_second_derivatives_are_refused(backend):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for squared in (False, True):
        (grad,) = torch.autograd.grad(ts.mahalanobis_cost(x, x[:2] + 1, squared=squared, backend=backend).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="second derivatives"):
            grad.sum().backward()


def test_compiles_whole_and_maps():
    x, y, M = (t.requires_grad_() for t in (torch.randn(6, 8), torch.randn(7, 8), metric("full", 8, torch.float32)))
    compiled = torch.compile(ts.mahalanobis_cost, fullgraph=True, backend="aot_eager")
    for metric_ in (None, M, M.detach().diagonal().clone().requires_grad_()):
        inputs = (x, y) if metric_ is None else (x, y, metric_)
        got, expected = compiled(*inputs), ts.mahalanobis_cost(*inputs)
        torch.testing.assert_close(got, expected)
        G = torch.randn(6, 7)
        torch.testing.assert_close(torch.autograd.grad(got, inputs, G), torch.autograd.grad(expected, inputs, G))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap():
    x, y, M = torch.randn(3, 6, 8), torch.randn(3, 7, 8), metric("full", 8, torch.float32)
    torch.testing.assert_close(torch.func.vmap(ts.mahalanobis_cost, (0, 0, None))(x, y, M), ts.mahalanobis_cost(x, y, M))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (lambda: (torch.ones(3, 4), torch.ones(3, 5)), r"y: expected shape \(\.\.\., m, 4\).*\(3, 5\)"),
        (lambda: (torch.ones(4), torch.ones(3, 4)), r"x: expected at least 2 dimensions, got shape \(4,\)"),
        (lambda: (torch.ones(3, 4), torch.ones(3, 4).double()), "y: expected torch.float32 as x, got torch.float64"),
        (lambda: (torch.ones(3, 4).int(), torch.ones(3, 4)), "x: expected a floating dtype, got torch.int32"),
        (lambda: (torch.ones(3, 4), None), "y: expected a tensor, got None"),
        (lambda: (torch.ones(3, 4).to(torch.float8_e4m3fn), torch.ones(3, 4)), "x: .* got torch.float8_e4m3fn; taken are float64"),
        (lambda: (torch.ones(3, 4), torch.ones(3, 4), torch.ones(4, 3)), r"M: expected shape \(4, 4\) or \(4,\), got \(4, 3\)"),
        (lambda: (torch.ones(3, 4), torch.ones(3, 4), torch.ones(2, 4, 4)), r"M: expected shape \(4, 4\) or \(4,\), got \(2, 4, 4\)"),
        (lambda: (torch.ones(3, 4), torch.ones(3, 4), torch.ones(4, 4).int()), "M: expected a floating dtype"),
        (lambda: (torch.ones(3, 4), torch.ones(3, 4), torch.ones(4, 4, device="meta")), "M: expected device cpu as x, got meta"),
        (lambda: (torch.ones(2, 3, 4), torch.ones(3, 3, 4)), r"expected batch dimensions that broadcast, got \(2,\) and \(3,\)"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=f"mahalanobis_cost: {message}"):
        ts.mahalanobis_cost(*arguments())


@pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)  # the reference is only called with what was checked
def test_errors_of_the_ops_themselves(backend):
    z, G = torch.randn(2, 7, 5), torch.randn(2, 3, 4)
    for arguments in ((z[0], None, z, G, False), (z, None, z, G[:, :, :3], False), (z, None, z.double(), G, False)):
        with pytest.raises(RuntimeError, match="mahalanobis_cost: expected z, zM"):
            _library.op("mahalanobis_cost", backend, z)(*arguments)
    for arguments in ((G[0], G, False), (G.double(), G, False)):
        with pytest.raises(RuntimeError, match="mahalanobis_cost_backward: expected grad and cost"):
            _library.op("mahalanobis_cost_backward", backend, z)(*arguments)
