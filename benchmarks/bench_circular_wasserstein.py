"""W1 on the circle, 16 against 16 points as in the ISMIR 2024 loss: one distance for each of 192 pairs and 100 circles."""

import torch
from harness import BOTH, FORWARD, Case, Way, eager_and_compiled, optional, ours

import transphere as ts


def eager(u, v):
    """Batched PyTorch without kernels: one sort, a histogram of the levels for the median. n = m only."""
    n = u.shape[-1]
    t, order = torch.cat([u, v], -1).sort(-1)
    level = torch.where(order < n, 1, -1).cumsum(-1)
    gap = torch.cat([t[..., 1:], 1 + t[..., :1]], -1) - t
    mass = torch.zeros(*t.shape[:-1], 2 * n + 1, dtype=t.dtype, device=t.device).scatter_add_(-1, level + n, gap)
    median = (mass.cumsum(-1) < 0.5).sum(-1, keepdim=True) - n
    return (gap * (level - median).abs()).sum(-1) / n


def cases(device, quick):
    ot = optional("ot")
    for B, n in [(1920, 16)] if quick else [(19200, 16), (512, 1024)]:
        u, v = torch.rand(2, B, n, generator=torch.Generator().manual_seed(0)).to(device)
        peers = eager_and_compiled(eager, not quick)
        if ot:
            peers["POT"] = Way(lambda u, v: ot.wasserstein_circle(u.mT, v.mT, p=1), differentiable=False)
        yield Case(
            op="circular_wasserstein",
            shape=f"{B} pairs of {n} points",
            inputs=(u, v),
            ours=ours("circular_wasserstein", device, ts.circular_wasserstein),
            reference=lambda u, v: ts.circular_wasserstein(u, v, backend="reference"),
            peers=peers,
            bytes_moved={FORWARD: 4 * B * (2 * n + 1), BOTH: 4 * B * (2 * n + 1 + 2 * n)},
            # Where float32 merges two points, their slopes change by a whole step.
            gradient_tolerance=1e-2,
        )
