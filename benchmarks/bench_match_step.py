"""A training step of m-LTM on 256 pairs in 1024 dimensions with a learned full metric: cost, plan, loss, backward; and with the step on M
and its projection.

Peers are the cost by matrix products with POT's Sinkhorn, which autograd unrolls, and the released formulation, which makes two tensors
of n m d numbers and reads the diagonal of M alone, so that its result is not compared. The floor is the products of the cost, forward and
backward.
"""

import torch
from bench_mahalanobis_cost import Products, differences, gemms, uncompared
from harness import BOTH, FORWARD, Case, Way, optional

import transphere as ts

EPS, RATE = 0.05, 0.1


def ours(x, y, M, backend=None):
    cost = ts.mahalanobis_cost(x, y, M, backend=backend)
    return ts.learning_to_match(cost / cost.max(), eps=EPS, backend=backend)


def with_pot(ot, cost_of):
    def loss(x, y, M):
        cost = cost_of(x, y, M)
        n = len(x)
        uniform = torch.full((n,), 1 / n, dtype=x.dtype, device=x.device)
        plan = ot.sinkhorn(uniform, uniform, cost / cost.max(), EPS, warn=False)
        return -torch.log(n * plan.diagonal()).mean()

    return loss


def unrolled(x, y, M):
    """The reference: 300 steps in the log domain through autograd, in float64."""
    cost = gemms(x, y, M)
    n, scaled = len(x), cost / cost.max() / EPS
    f = g = torch.zeros(n, dtype=x.dtype, device=x.device)
    for _ in range(300):
        f = -torch.logsumexp(g[None] - scaled, 1)
        g = -torch.logsumexp(f[:, None] - scaled, 0)
    return -(f + g - scaled.diagonal()).mean()


def stepped(loss, project):
    """M after a gradient step and its projection."""

    def run(x, y, M):
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_() for t in (x, y, M)]
            grads = torch.autograd.grad(loss(*leaves), leaves)
        return project(M - RATE * grads[2])

    return run


def clamped(M):
    values, V = torch.linalg.eigh(0.5 * (M + M.mT))
    return (V * values.clamp(min=0)) @ V.mT


def cases(device, quick):
    ot = optional("ot")
    n, d = (64, 128) if quick else (256, 1024)
    g = torch.Generator().manual_seed(0)
    x, y, A = (torch.randn(*s, generator=g) for s in ((n, d), (n, d), (d, d)))
    x, y = (torch.nn.functional.normalize(t, dim=-1).to(device) for t in (x, x + y))  # matched pairs are nearest
    M = (A @ A.mT / d).to(device)
    losses = {}
    if ot:
        losses = {"GEMMs + POT": (with_pot(ot, gemms), None), "as released, + POT": (with_pot(ot, differences), uncompared)}
    common = dict(op="match_step", inputs=(x, y, M), floors={"the cost's GEMMs": Way(Products.apply)}, gradient_tolerance=1e-3)
    yield Case(
        shape=f"{n} pairs, d = {d}: loss",
        ours={"ours": Way(ours)},
        reference=unrolled,
        peers={name: Way(loss, check=check) for name, (loss, check) in losses.items()},
        value_tolerance=1e-4,
        modes=(BOTH,),
        **common,
    )
    if quick:
        return
    yield Case(
        shape=f"{n} pairs, d = {d}: loss, backward, step on M, projection",
        ours={"ours": Way(stepped(ours, ts.psd_project), differentiable=False)},
        reference=stepped(unrolled, clamped),
        peers={name: Way(stepped(loss, clamped), differentiable=False, check=check) for name, (loss, check) in losses.items()},
        modes=(FORWARD,),
        **common,
    )
