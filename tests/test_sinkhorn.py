"""Entropic transport: plans against loops run to the end and POT, gradients against unrolled loops, masks, batches, starts."""

import math
import warnings

import ot
import pytest
import torch
from transport import embeddings, loop, over_backends, partial_loop, weights

import transphere as ts

pytestmark = over_backends


@pytest.mark.parametrize("n, m", [(1, 1), (1, 5), (4, 4), (7, 5), (5, 16), (33, 17), (64, 64)])
def test_is_the_plan_of_a_converged_loop(n, m, dtype, backend, size):
    C, a, b = torch.rand(size(3, 2), n, m, dtype=torch.float64), weights(n), weights(m)
    tol, atol = (1e-13, 1e-12) if dtype == torch.float64 else (1e-6, 5e-6)
    r = ts.sinkhorn(C.to(dtype), a.to(dtype), b.to(dtype), eps=0.2, tol=tol, max_iter=3000, backend=backend)
    P = loop(C, a, b, 0.2, 1500)
    assert r.plan.dtype == dtype and r.converged.all() and r.iterations.dtype == torch.int32
    assert (r.plan - P).abs().sum((-2, -1)).max() < 3 * atol
    torch.testing.assert_close(r.transport_cost.double(), (P * C).sum((-2, -1)), atol=atol, rtol=0)
    torch.testing.assert_close(r.value.double(), (P * C + 0.2 * P * (P.log() - 1)).sum((-2, -1)), atol=atol, rtol=0)
    recovered = ((r.f[..., :, None] + r.g[..., None, :] - C.to(dtype)) / 0.2).exp()
    torch.testing.assert_close(recovered, r.plan, atol=1e-6 if dtype == torch.float32 else 1e-13, rtol=2e-5)
    error = (r.plan.sum(-1) - a.to(dtype)).abs().sum(-1) + (r.plan.sum(-2) - b.to(dtype)).abs().sum(-1)
    torch.testing.assert_close(r.error, error, atol=1e-6 if dtype == torch.float32 else 1e-14, rtol=0)
    assert (r.h == 0).all()


def test_is_pots_plan(backend):
    C, a, b = torch.rand(6, 9, dtype=torch.float64), weights(6), weights(9)
    P = ot.bregman.sinkhorn_log(a.cpu().numpy(), b.cpu().numpy(), C.cpu().numpy(), 0.1, numItermax=20000, stopThr=1e-14)
    r = ts.sinkhorn(C, a, b, eps=0.1, tol=1e-13, max_iter=5000, backend=backend)
    torch.testing.assert_close(r.plan.cpu(), torch.from_numpy(P), atol=1e-12, rtol=0)
    P = ot.partial.entropic_partial_wasserstein(a.cpu().numpy(), b.cpu().numpy(), C.cpu().numpy(), 0.1, 0.6, numItermax=5000, stopThr=1e-15)
    r = ts.partial_sinkhorn(C, 0.6, a, b, eps=0.1, tol=1e-13, max_iter=5000, backend=backend)
    torch.testing.assert_close(r.plan.cpu(), torch.from_numpy(P), atol=1e-12, rtol=0)


@pytest.mark.parametrize("n, m", [(4, 4), (7, 5), (5, 18), (40, 40)])
def test_partial_is_the_plan_of_a_converged_loop(n, m, dtype, backend, size):
    C, a, b = torch.rand(3, n, m, dtype=torch.float64), weights(n), 1.3 * weights(m)
    mass = torch.tensor([0.2, 0.6, 0.85], dtype=torch.float64)
    tol, atol = (1e-13, 3e-12) if dtype == torch.float64 else (1e-6, 1e-5)
    r = ts.partial_sinkhorn(*(x.to(dtype) for x in (C, mass, a, b)), eps=0.2, tol=tol, max_iter=5000, backend=backend)
    P = partial_loop(C, mass, a, b, 0.2, 4000)
    assert r.converged.all() and (r.f <= 0).all() and (r.g <= 0).all()
    assert (r.plan - P).abs().sum((-2, -1)).max() < 3 * atol
    torch.testing.assert_close(r.plan.double().sum((-2, -1)), mass, atol=atol, rtol=0)
    recovered = ((r.f[..., :, None] + r.g[..., None, :] + r.h[..., None, None] - C.to(dtype)) / 0.2).exp()
    torch.testing.assert_close(recovered, r.plan, atol=1e-6 if dtype == torch.float32 else 1e-13, rtol=2e-5)
    torch.testing.assert_close(r.value.double(), (P * C + 0.2 * P * (P.log() - 1)).sum((-2, -1)), atol=2 * atol, rtol=0)


def test_the_mass_of_a_side_is_the_balanced_or_the_one_sided_problem(dtype, backend):
    C, a, b = torch.rand(6, 9, dtype=dtype), weights(6, dtype=dtype), weights(9, dtype=dtype)
    tol = dict(tol=1e-12 if dtype == torch.float64 else 1e-6, max_iter=5000, eps=0.1, backend=backend)
    balanced, atol = ts.sinkhorn(C, a, b, **tol), 1e-10 if dtype == torch.float64 else 5e-6
    for mass in (1.0, 1 + 5e-7):
        torch.testing.assert_close(ts.partial_sinkhorn(C, mass, a, b, **tol).plan, balanced.plan, atol=atol, rtol=0)
    for C_, a_, b_ in ((C, a, 1.5 * b), (C.T, 1.5 * b, a)):
        r = ts.partial_sinkhorn(C_, 1.0, a_, b_, **tol)
        near = ts.partial_sinkhorn(C_, 1 - 1e-5, a_, b_, **tol | dict(max_iter=50000))
        assert r.converged and r.h == 0
        torch.testing.assert_close(r.plan.sum((0, 1)), torch.tensor(1.0, dtype=dtype), atol=atol, rtol=0)
        assert (r.plan - near.plan).abs().sum() < 1e-3
        tight, slack = (r.g, r.f) if a_ is not a else (r.f, r.g)
        assert (slack <= 0).all() and (tight != 0).any()


@pytest.mark.parametrize("n, m", [(4, 4), (5, 3), (3, 6)])
def test_gradients(n, m, backend, size, gradcheck):
    eps = size(0.4, 0.8)
    C, a, b = torch.rand(2, n, m, dtype=torch.float64), weights(n), weights(m)
    inputs = [x.requires_grad_() for x in (C, a, b)]

    def balanced(C, a, b):
        r = ts.sinkhorn(C, a, b * (a.sum() / b.sum()), eps=eps, tol=1e-14, max_iter=1000, backend=backend)
        return r.plan, r.value, r.transport_cost

    assert gradcheck(balanced, inputs)
    mass = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)

    def partial(C, a, b, mass):
        r = ts.partial_sinkhorn(C, mass, a, b, eps=eps, tol=1e-14, max_iter=2000, backend=backend)
        return r.plan, r.value, r.transport_cost

    assert gradcheck(partial, [*inputs, mass])


def test_gradients_are_those_of_an_unrolled_loop(backend):
    n, m = 12, 17
    C, a, b = torch.rand(n, m, dtype=torch.float64), weights(n), weights(m)
    G, mass = torch.randn(n, m, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    options = dict(eps=0.1, tol=1e-14, max_iter=5000, backend=backend)
    for run, expected, inputs in (
        (lambda C, a, b: ts.sinkhorn(C, a, b, **options), lambda C, a, b: loop(C, a, b, 0.1, 2000), (C, a, b)),
        (
            lambda C, a, b, s: ts.partial_sinkhorn(C, s, a, b, **options),
            lambda C, a, b, s: partial_loop(C, s, a, b, 0.1, 4000),
            (C, a, b, mass),
        ),
    ):
        leaves = [x.clone().requires_grad_() for x in inputs]
        got = torch.autograd.grad(run(*leaves).plan, leaves, G)
        want = torch.autograd.grad(expected(*leaves), leaves, G)
        torch.testing.assert_close(got[0], want[0], atol=1e-10, rtol=1e-8)
        for k in (1, 2):  # balanced, up to a constant
            centre = (lambda x: x - x.mean()) if len(leaves) == 3 else (lambda x: x)
            torch.testing.assert_close(centre(got[k]), centre(want[k]), atol=1e-9, rtol=1e-7)
        if len(leaves) == 4:
            torch.testing.assert_close(got[3], want[3], atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("mass", [None, 0.9])
def test_backward_in_float32(mass, backend, size):
    n = size(256, 24)
    C, G = embeddings("1.5", n), torch.randn(n, n, dtype=torch.float64)
    grads = []
    for dtype in (torch.float64, torch.float32):
        x = C.to(dtype).requires_grad_()
        options = dict(eps=0.03, tol=1e-12 if dtype == torch.float64 else 1e-6, max_iter=5000, backend=backend)
        r = ts.sinkhorn(x, **options) if mass is None else ts.partial_sinkhorn(x, mass, **options)
        grads.append(torch.autograd.grad(r.plan, x, G.to(dtype))[0].double())
    assert (grads[1] - grads[0]).norm() < 1e-3 * grads[0].norm()


@pytest.mark.parametrize("eps", [0.1, 0.01, 1e-3])
def test_small_eps_in_float32(eps, backend, size):
    """No NaN, no underflow to a wrong plan: the cost of the plan is that of the exact one to eps log n."""
    n = size(64, 12)
    C = torch.rand(2, n, n)
    tol = dict(tol=1e-6 if backend == "cpu" else 1e-4, max_iter=5000 if backend == "cpu" else 300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        r = ts.sinkhorn(C, eps=eps, backend=backend, **tol)
        p = ts.partial_sinkhorn(C, 0.5, eps=eps, backend=backend, **tol)
    assert r.plan.isfinite().all() and p.plan.isfinite().all() and (p.plan.sum((1, 2)) - 0.5).abs().max() < 1e-3
    if backend == "cpu":
        assert r.converged.all()
        assert (p.error <= 2e-6).all()  # 1e-6 of half a mass is float32's rounding: one in ten problems ends a little above, up to 1.9e-6
    uniform = torch.full((n,), 1 / n).cpu().double().numpy()
    for k in range(2):
        exact = ot.emd2(uniform, uniform, C[k].cpu().double().numpy())
        least = exact - 1e-4 - r.error[k].item()  # mass that is not where it should be can cost less, by at most max C = 1 each
        assert least <= r.transport_cost[k].item() <= exact + eps * 2 * math.log(n) + 1e-3


def test_masked_rows_and_columns(dtype, backend, size):
    n, m = 6, 9
    a, b = weights(2, n), weights(2, m)
    a[0, [1, 4]] = 0
    b[1, [0, 7, 8]] = 0
    a, b = ((w / w.sum(-1, keepdim=True)).to(dtype).requires_grad_() for w in (a.detach(), b.detach()))
    C = torch.rand(2, n, m, dtype=dtype, requires_grad=True)
    options = dict(eps=0.1, tol=1e-12 if dtype == torch.float64 else 1e-6, max_iter=5000, backend=backend)
    for r in (ts.sinkhorn(C, a, b, **options), ts.partial_sinkhorn(C, 0.7, a, b, **options)):
        assert r.converged.all()
        assert (r.plan[0, [1, 4]] == 0).all() and (r.plan[1][:, [0, 7, 8]] == 0).all()
        assert (r.f[0, [1, 4]] == -math.inf).all() and r.f[0, 0].isfinite()
        grads = torch.autograd.grad(r.plan.square().sum() + r.value.sum() + r.transport_cost.sum(), (C, a, b))
        assert all(g.isfinite().all() for g in grads) and (grads[0][0, [1, 4]] == 0).all() and (grads[1][0, [1, 4]] == 0).all()
    kept = [0, 2, 3, 5]
    small = ts.sinkhorn(C[0, kept], a[0, kept], b[0], **options)
    atol = 1e-10 if dtype == torch.float64 else 3e-6
    torch.testing.assert_close(ts.sinkhorn(C, a, b, **options).plan[0, kept], small.plan, atol=atol, rtol=0)


def test_what_is_masked_is_not_read(backend):
    C, a = torch.rand(5, 4, dtype=torch.float64), weights(5)
    a[2] = 0
    a /= a.sum()
    clean = ts.sinkhorn(C, a, eps=0.1, backend=backend)
    for poison in (math.nan, math.inf, -math.inf):
        C[2] = poison
        r = ts.sinkhorn(C, a, eps=0.1, backend=backend)
        assert r.converged and r.transport_cost.isfinite() and torch.equal(r.plan, clean.plan)


def test_an_infinite_cost_forbids_a_pair(backend):
    C = torch.rand(5, 5, dtype=torch.float64)
    C[0, 1] = C[3, 3] = math.inf
    r = ts.sinkhorn(C, eps=0.1, tol=1e-12, max_iter=3000, backend=backend)
    assert r.converged and r.plan[0, 1] == 0 and r.plan[3, 3] == 0 and r.transport_cost.isfinite()


@pytest.mark.parametrize("poison", [math.nan, -math.inf])
@pytest.mark.parametrize("mass", [None, 0.6])
def test_nan_stays_in_its_own_problem(poison, mass, dtype, backend):
    C = torch.rand(3, 6, 17, dtype=dtype)
    options = dict(eps=0.1, backend=backend)
    solve = lambda C: ts.sinkhorn(C, **options) if mass is None else ts.partial_sinkhorn(C, mass, **options)  # noqa: E731
    clean = solve(C)
    C[1, 2, 3] = poison
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        r = solve(C)
    assert not r.converged[1] and r.error[1].isnan() and r.plan[1].isnan().all()
    for k in (0, 2):
        assert all(torch.equal(x[k], y[k]) for x, y in zip(r, clean, strict=True))


@pytest.mark.parametrize("shape", [(4, 4), (16, 16), (30, 47), (130, 64)])
@pytest.mark.parametrize("mass", [None, 0.8])
def test_batches_equal_single_problems(shape, mass, dtype, backend, size):
    """Bit for bit: neighbours, and how many threads there are, do not matter."""
    if size(0, 1) and shape[0] > 40:
        shape = (20, 33)
    C = torch.rand(size(5, 3), *shape, dtype=dtype, requires_grad=True)
    C.data[1] = C.data[1].round(decimals=1)
    options = dict(eps=size(0.02, 0.05), max_iter=size(1000, 80), backend=backend)

    def solve(C):
        r = ts.sinkhorn(C, **options) if mass is None else ts.partial_sinkhorn(C, mass, **options)
        return *r, *torch.autograd.grad(r.plan.square().sum(), C)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = solve(C)
        for k in (0, 1, len(C) - 1):
            alone = solve(C.detach()[k].requires_grad_())
            if backend == "reference":  # torch's own sums depend on the shape
                continue
            assert all(torch.equal(x[k], y) for x, y in zip(batch, alone, strict=True))


def test_warm_start(dtype, backend):
    C = torch.rand(2, 12, 9, dtype=dtype)
    for solve in (ts.sinkhorn, lambda C, **options: ts.partial_sinkhorn(C, 0.7, **options)):
        cold = solve(C, eps=0.05, backend=backend)
        again = solve(C, eps=0.05, init=cold, backend=backend)
        assert (again.iterations <= 2).all() and (cold.iterations > 4).any()
        torch.testing.assert_close(again.plan, cold.plan, atol=1e-6, rtol=0)
        moved = solve(C + 0.001 * torch.rand_like(C), eps=0.05, init=(cold.f, cold.g), backend=backend)
        assert moved.converged.all()
        odd = solve(C, eps=0.05, init=(torch.full_like(cold.f, math.nan), torch.full_like(cold.g, -math.inf)), backend=backend)
        torch.testing.assert_close(odd.plan, cold.plan, atol=3e-6, rtol=0)


def test_broadcasting(backend):
    C, a, b = torch.rand(4, 1, 5, 6, dtype=torch.float64), weights(3, 5), weights(6)
    r = ts.sinkhorn(C, a, b, eps=0.3, backend=backend)
    assert r.plan.shape == (4, 3, 5, 6) and r.f.shape == (4, 3, 5) and r.g.shape == (4, 3, 6)
    assert r.value.shape == r.error.shape == r.converged.shape == r.iterations.shape == (4, 3)
    torch.testing.assert_close(r.plan[2, 1], ts.sinkhorn(C[2, 0], a[1], b, eps=0.3, backend=backend).plan)
    p = ts.partial_sinkhorn(C[:, 0], torch.tensor([[0.3], [0.5]], dtype=torch.float64), eps=0.3, backend=backend)
    assert p.plan.shape == (2, 4, 5, 6)
    none = ts.sinkhorn(torch.rand(0, 3, 4), eps=0.1, backend=backend)
    assert none.plan.shape == (0, 3, 4) and none.value.shape == (0,)


def test_non_contiguous_and_half(backend, size):
    C = torch.rand(size(8, 2), 6, 5)
    view = C.permute(2, 1, 0)
    assert torch.equal(ts.sinkhorn(view, eps=0.1, backend=backend).plan, ts.sinkhorn(view.contiguous(), eps=0.1, backend=backend).plan)
    for dtype in (torch.bfloat16, torch.float16):
        half = C.to(dtype).requires_grad_()
        r = ts.sinkhorn(half, eps=0.1, backend=backend)
        exact = ts.sinkhorn(half.float(), eps=0.1, backend=backend)
        assert r.plan.dtype == r.value.dtype == r.f.dtype == dtype
        torch.testing.assert_close(r.plan, exact.plan.to(dtype))
        assert torch.autograd.grad(r.transport_cost.sum(), half)[0].dtype == dtype
        assert ts.learning_to_match(half[:, :5], eps=0.1, backend=backend).dtype == dtype


def test_not_converged_is_said(backend):
    C = torch.rand(3, 8, 8)
    if C.device.type == "cpu":
        with pytest.warns(RuntimeWarning, match="sinkhorn: 3 of 3 problems did not converge in 2 iterations: error"):
            r = ts.sinkhorn(C, eps=0.01, max_iter=2, backend=backend)
        assert not r.converged.any() and (r.iterations == 2).all() and (r.error > 1e-6).all()
