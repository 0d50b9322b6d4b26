"""Entropic transport: problems that plain iterations do not solve, large ones, and what is refused."""

import math

import pytest
import torch
from transport import embeddings

import transphere as ts

HARD = [("0.7", 0.02), ("1.0", 0.02), ("1.5", 0.01), ("1.5", 0.03), ("2.0", 0.01)]
HARD += [("clustered", 0.05), ("clustered", 0.03), ("clustered", 0.01)]


@pytest.mark.parametrize("kind, eps", HARD)
def test_hard_problems_converge(kind, eps, dtype):
    """Near permutations and clusters, within what 150 plain iterations cost and a few."""
    C = embeddings(kind).cpu().to(dtype)
    r = ts.sinkhorn(C, eps=eps)
    assert r.converged and r.error <= 1e-6 and r.iterations <= 180
    assert (r.plan.double().sum(1) - 1 / 256).abs().sum() < 1.1e-6
    assert (r.plan.double().sum(0) - 1 / 256).abs().sum() < 1.1e-6


@pytest.mark.parametrize("mass", [0.5, 0.95, 0.99, 0.9999])
@pytest.mark.parametrize("kind, eps", [("1.5", 0.03), ("clustered", 0.03), ("clustered", 0.01)])
def test_hard_partial_problems_converge(kind, eps, mass, dtype):
    r = ts.partial_sinkhorn(embeddings(kind).cpu().to(dtype), mass, eps=eps)
    assert r.converged and r.error <= 1e-6
    assert r.plan.double().sum(1).max() < 1 / 256 + 1e-6 and abs(r.plan.double().sum() - mass) < 1e-6


def test_threads_leave_the_bits_alone():
    """A problem large enough for its rows to be split."""
    C = torch.rand(900, 700)
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        x = C.clone().requires_grad_()
        r = ts.sinkhorn(x, eps=0.05)
        results.append((r.plan, r.f, r.g, r.error, r.iterations, *torch.autograd.grad(r.plan, x, C)))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_retrieval_scores():
    """The plan of a whole test set, 957 x 4785, in bounded memory (its own, and one of half its size for Newton's method)."""
    x, y = torch.nn.functional.normalize(torch.randn(957, 64), dim=-1), torch.randn(4785, 64)
    C = torch.cdist(x, torch.nn.functional.normalize(x.repeat_interleave(5, 0) + 0.2 * y, dim=-1))
    r = ts.sinkhorn(C / C.max(), eps=0.03)
    assert isinstance(r, ts.SinkhornResult) and r.converged and r.plan.shape == (957, 4785)
    assert (r.plan.argmax(0) == torch.arange(957).repeat_interleave(5)).float().mean() > 0.5


REFUSED = [
    (dict(eps=0.0), "eps: expected a finite number > 0, got 0.0"),
    (dict(eps=math.nan), "eps: expected a finite number > 0"),
    (dict(eps="small"), "eps: expected a finite number > 0, got 'small'"),
    (dict(max_iter=0), "max_iter: expected an integer >= 1, got 0"),
    (dict(tol=-1.0), "tol: expected a number >= 0, got -1.0"),
    (dict(a=torch.tensor([0.5, 0.7, -0.2])), "a: expected finite weights >= 0, got -0.2"),
    (dict(b=torch.tensor([0.5, math.nan, 0.2, 0.3])), "b: expected finite weights >= 0, got nan"),
    (dict(a=torch.zeros(3)), "a: expected rows with a positive sum, got 0"),
    (dict(a=torch.full((3,), 0.4)), "a, b: expected equal sums, got 1.2"),
    (dict(a=torch.ones(4) / 4), r"a: expected shape \(..., 3\)"),
    (dict(a=torch.ones(3, dtype=torch.float64) / 3), "a: expected torch.float32 as cost"),
    (dict(a=torch.ones(2, 3) / 3, b=torch.ones(5, 4) / 4), "expected batch dimensions that broadcast"),
    (dict(init=(torch.zeros(4), torch.zeros(4))), r"init f: expected shape \(..., 3\)"),
    (dict(init="warm"), r"init: expected a SinkhornResult or potentials \(f, g\), got str"),
    (dict(cost=torch.rand(3)), "cost: expected at least 2 dimensions"),
    (dict(cost=None), "cost: expected a tensor, got NoneType"),
    (dict(cost=torch.rand(0, 4)), "cost: expected at least one row and one column"),
    (dict(cost=torch.ones(3, 4, dtype=torch.int64)), "cost: expected a floating dtype"),
    (dict(backend="fast"), "backend: expected None"),
]


@pytest.mark.parametrize("wrong, message", REFUSED)
def test_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ts.sinkhorn(**dict(cost=torch.rand(3, 4), eps=0.1) | wrong)


@pytest.mark.parametrize("mass", [0.0, -0.5, 1.01, math.nan, math.inf])
def test_mass_out_of_range(mass):
    with pytest.raises(ValueError, match=r"partial_sinkhorn: mass: expected a number in \(0, min\(sum a, sum b\)\], here at most 1"):
        ts.partial_sinkhorn(torch.rand(3, 4), mass, eps=0.1)
    with pytest.raises(ValueError, match="mass: expected a number or a tensor, got None"):
        ts.partial_sinkhorn(torch.rand(3, 4), None, eps=0.1)
