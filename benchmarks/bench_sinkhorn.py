"""Plans of matched pairs at eps = .05, alone and in a batch, to an L1 error of 1e-6: late in training (noise .7), where plain iterations
need hundreds of steps, and in its middle (1.1), where they need tens.

A peer that takes a number of iterations instead of a tolerance gets the fewest, in coarse steps, with which its plan passes the check. The
floor is the work of one iteration as torch does it: two products with K.
"""

import math
import warnings

import torch
from harness import BOTH, FORWARD, Case, Way, optional, ours
from transport_costs import matched

import transphere as ts

EPS = 0.05


def iteration(C, g):
    n, m = C.shape[-2:]
    f = -torch.logsumexp((g[..., None, :] - C) / EPS, -1) * EPS - EPS * math.log(n)
    return f, -torch.logsumexp((f[..., :, None] - C) / EPS, -2) * EPS - EPS * math.log(m)


def log_domain(C, steps=300, iteration=iteration):
    """As one writes it: a fixed number of iterations, differentiated through."""
    g = torch.zeros_like(C[..., 0, :])
    for _ in range(steps):
        f, g = iteration(C, g)
    return ((f[..., :, None] + g[..., None, :] - C) / EPS).exp()


def eager(steps, compile, of=lambda plan: plan):
    """Plain torch and, on demand, with its iteration compiled: the whole loop takes torch.compile minutes."""
    ways = {"eager torch": Way(lambda C: of(log_domain(C, steps)))}
    if compile:
        compiled = torch.compile(iteration, dynamic=False)
        ways["torch.compile"] = Way(lambda C: of(log_domain(C, steps, compiled)), compiled=True)
    return ways


def pot(ot, C, tol):
    weights = C.new_full((C.shape[-1],), 1 / C.shape[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ot.bregman.sinkhorn_log(weights, weights, C, EPS, stopThr=tol, numItermax=5000)


def ott(C):
    """ott-jax, compiled; None where it is not installed."""
    if not optional("ott"):
        return None
    import jax
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    solve = Sinkhorn(threshold=1e-6, max_iterations=5000)
    plan = lambda C: solve(LinearProblem(Geometry(cost_matrix=C, epsilon=EPS))).matrix  # noqa: E731
    plan = jax.jit(plan if C.dim() == 2 else jax.vmap(plan))
    return Way(lambda C: torch.from_dlpack(plan(jax.dlpack.from_dlpack(C)).block_until_ready()), differentiable=False, compiled=True)


def geomloss(C, steps):
    from geomloss import ot

    return (ot.solve if C.dim() == 2 else ot.solve_batch)(C, reg=EPS, max_iter=steps).plan


LATE, LATER_HALF, MIDDLE = 0.7, 0.9, 1.1  # noise


def cases(device, quick):
    ot = optional("ot")
    # The large ones are easier, for the reference's sake: it takes plain iterations in float64.
    full = [(256, None, LATE), (256, None, MIDDLE), (1024, None, LATER_HALF), (64, 64, MIDDLE), (256, 64, LATER_HALF)]
    for b, batch, noise in [(64, None, MIDDLE)] if quick else full:
        C = matched(b, noise=noise, batch=batch).to(device)
        peers = eager(600 if noise == LATE else 300, compile=not quick and not batch and b == 256)
        if ot and batch:
            peers["POT, ot.batch"] = Way(lambda C: ot.batch.solve_batch(C, reg=EPS, tol=1e-6, max_iter=5000).plan, differentiable=False)
        elif ot:
            peers["POT, sinkhorn_log"] = Way(lambda C: pot(ot, C, 1e-6), differentiable=False)
            peers["POT, to 1e-7"] = Way(lambda C: pot(ot, C, 1e-7))  # what a gradient through its iterations needs
        if optional("geomloss"):
            peers["geomloss"] = Way(lambda C, steps=100 if noise == LATE else 1000: geomloss(C, steps), differentiable=False)
        if jax := ott(C):
            peers["ott-jax"] = jax
        v = C[..., 0, :, None].contiguous()
        yield Case(
            op="sinkhorn",
            shape=f"{batch or 1} x {b} x {b}, noise {noise}",
            inputs=(C,),
            ours=ours("sinkhorn", device, lambda C, backend: ts.sinkhorn(C, eps=EPS, backend=backend)[0]),
            reference=lambda C: ts.sinkhorn(C, eps=EPS, tol=1e-9, max_iter=5000, backend="reference")[0],
            peers=peers,
            floors={"one iteration's two products": Way(lambda C, v=v: (C @ v, C.mT @ v)[0], differentiable=False)},
            bytes_moved={FORWARD: 8 * C.numel(), BOTH: 16 * C.numel()},
            value_tolerance=1e-4,  # of the largest entry; POT stops at its own measure
            gradient_tolerance=3e-3,  # POT's through 400 iterations in float32: 2.2e-3
        )
