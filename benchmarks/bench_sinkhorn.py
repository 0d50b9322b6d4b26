"""Plans of matched pairs at eps = .05, alone and in a batch, to an L1 error of 1e-6.

The floor is the work of one iteration as torch does it: two products with K.
"""

import warnings

import torch
from harness import BOTH, FORWARD, Case, Way, eager_and_compiled, optional, ours
from transport_costs import matched

import transphere as ts

EPS = 0.05


def log_domain(C, steps=300):
    """As one writes it: a fixed number of iterations, differentiated through."""
    n, m = C.shape[-2:]
    g = torch.zeros_like(C[..., 0, :])
    for _ in range(steps):
        f = -torch.logsumexp((g[..., None, :] - C) / EPS, -1) * EPS - EPS * torch.log(torch.tensor(float(n)))
        g = -torch.logsumexp((f[..., :, None] - C) / EPS, -2) * EPS - EPS * torch.log(torch.tensor(float(m)))
    return ((f[..., :, None] + g[..., None, :] - C) / EPS).exp()


def pot(ot, C):
    weights = C.new_full((C.shape[-1],), 1 / C.shape[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ot.bregman.sinkhorn_log(weights, weights, C, EPS, stopThr=1e-6)


def cases(device, quick):
    ot = optional("ot")
    for b, batch in [(64, None)] if quick else [(256, None), (1024, None), (64, 64), (256, 64)]:
        C = matched(b, batch=batch).to(device)
        peers = eager_and_compiled(log_domain, not quick and not batch and b == 256)
        if ot and batch:
            peers["POT, ot.batch"] = Way(lambda C: ot.batch.solve_batch(C, reg=EPS, tol=1e-7).plan, differentiable=False)
        elif ot:
            peers["POT, sinkhorn_log"] = Way(lambda C: pot(ot, C))
        v = C[..., 0, :, None].contiguous()
        yield Case(
            op="sinkhorn",
            shape=f"{batch or 1} x {b} x {b}",
            inputs=(C,),
            ours=ours("sinkhorn", device, lambda C, backend: ts.sinkhorn(C, eps=EPS, backend=backend)[0]),
            reference=lambda C: ts.sinkhorn(C, eps=EPS, tol=1e-9, max_iter=5000, backend="reference")[0],
            peers=peers,
            floors={"one iteration's two products": Way(lambda C, v=v: (C @ v, C.mT @ v)[0], differentiable=False)},
            bytes_moved={FORWARD: 8 * C.numel(), BOTH: 16 * C.numel()},
            value_tolerance=1e-4,  # of the largest entry; POT stops at its own measure
            gradient_tolerance=2e-3,
        )
