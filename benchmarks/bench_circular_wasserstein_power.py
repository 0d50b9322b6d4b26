"""W2 on the circle, 16 against 16 points: one distance for each of 192 pairs and 100 circles; and larger sets of unequal size."""

import torch
from harness import BOTH, FORWARD, Case, Way, eager_and_compiled, optional, ours

import transphere as ts


def eager(u, v):
    """Batched PyTorch without kernels: the best of all rotations of one sorted set against the other. n = m only."""
    n = u.shape[-1]
    x, y = (t.sort(-1).values for t in (u, v))
    turned = torch.cat([y - 1, y, y + 1], -1).unfold(-1, n, 1)                               # (B, 2n + 1, n)
    return (x[:, None] - turned).square().mean(-1).min(-1).values.sqrt()


def cases(device, quick):
    ot = optional("ot")
    for B, n, m in [(1920, 16, 16)] if quick else [(19200, 16, 16), (512, 1000, 700)]:
        g = torch.Generator().manual_seed(0)
        u, v = (torch.rand(B, k, generator=g).to(device) for k in (n, m))
        peers = eager_and_compiled(eager, not quick) if n == m else {}
        if ot:
            peers["POT"] = Way(lambda u, v: ot.wasserstein_circle(u.mT, v.mT, p=2).sqrt(), differentiable=False)
        yield Case(
            op="circular_wasserstein_power",
            shape=f"p = 2, {B} pairs of {n} and {m} points",
            inputs=(u, v),
            ours=ours("circular_wasserstein_power", device, lambda u, v, backend: ts.circular_wasserstein(u, v, p=2, backend=backend)),
            reference=lambda u, v: ts.circular_wasserstein(u, v, p=2, backend="reference"),
            peers=peers,
            bytes_moved={FORWARD: 4 * B * (n + m + 1), BOTH: 4 * B * (2 * (n + m) + 1)},
        )
