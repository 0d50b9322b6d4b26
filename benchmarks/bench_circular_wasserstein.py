"""W1 on the circle: 16 against 16 points as in the ISMIR 2024 loss, one distance for each of 192 pairs and 100 circles; then fewer and
larger sets, unequal and weighted ones."""

import torch
from harness import BOTH, FORWARD, Case, Way, eager_and_compiled, optional, ours

import transphere as ts

SIZES = [  # pairs, n, m, weighted
    (19200, 16, 16, False),
    (8192, 64, 64, False),
    (512, 1024, 1024, False),
    (512, 1024, 768, False),
    (512, 1024, 1024, True),
    (8, 100_000, 100_000, False),
    (1, 1_000_000, 1_000_000, False),
]


def eager(u, v, a=None, b=None):
    """Batched PyTorch without kernels: one sort; the median by a histogram of the levels, or where they are too many by a second sort."""
    n, m = u.shape[-1], v.shape[-1]
    t, order = torch.cat([u, v], -1).sort(-1)
    gap = torch.cat([t[..., 1:], 1 + t[..., :1]], -1) - t
    if n == m and a is None:
        level = torch.where(order < n, 1, -1).cumsum(-1)
        mass = torch.zeros(*t.shape[:-1], 2 * n + 1, dtype=t.dtype, device=t.device).scatter_add_(-1, level + n, gap)
        median = (mass.cumsum(-1) < 0.5).sum(-1, keepdim=True) - n
        return (gap * (level - median).abs()).sum(-1) / n
    if a is None:
        level = torch.where(order < n, 1 / n, -1 / m).double().cumsum(-1).to(t.dtype)
    else:
        level = torch.cat([a / a.sum(-1, keepdim=True), -b / b.sum(-1, keepdim=True)], -1).gather(-1, order).cumsum(-1)
    ordered, by_level = level.sort(-1)
    below = (gap.gather(-1, by_level).cumsum(-1) < 0.5).sum(-1, keepdim=True).clamp(max=n + m - 1)
    return (gap * (level - ordered.gather(-1, below)).abs()).sum(-1)


def points(B, *counts):
    """Sets (B, n) of distinct points: slopes are compared, and where points coincide each way may take another order."""
    g = torch.Generator().manual_seed(0)
    if max(counts) <= 1024:
        rows = [torch.rand(B, sum(counts), generator=g)]
    else:
        rows = [torch.randperm(1 << 24, generator=g)[None, : sum(counts)] / float(1 << 24) for _ in range(B)]
    return torch.cat(rows).split(counts, -1)


def case(device, B, n, m, weighted=False, compile=True, pot=True):
    ot = optional("ot")
    sets = [x.contiguous().to(device) for x in points(B, n, m)]
    weights = [torch.rand(x.shape, generator=torch.Generator().manual_seed(1)).to(device) + 0.1 for x in sets] if weighted else []
    peers = eager_and_compiled(eager, compile)
    if ot and pot and n == m <= 1024:  # with n != m it can be wrong, and larger sets take it seconds
        names = ("u_weights", "v_weights")
        peers["POT"] = Way(
            lambda u, v, *w: ot.wasserstein_circle(
                u.mT, v.mT, p=1, **{k: (x / x.sum(-1, keepdim=True)).mT for k, x in zip(names, w, strict=False)}
            ),
            differentiable=False,
        )

    def run(u, v, *w, backend):
        return ts.circular_wasserstein(u, v, backend=backend, **dict(zip(("u_weights", "v_weights"), w, strict=False)))

    moved = 4 * B * ((1 + weighted) * (n + m) + 1)
    return Case(
        op="circular_wasserstein",
        shape=f"{B} pair{'s' * (B > 1)} of {n} points" + (f" and {m}" if n != m else "") + (", weighted" if weighted else ""),
        inputs=(*sets, *weights),
        ours=ours("circular_wasserstein", device, run),
        reference=lambda *inputs: run(*inputs, backend="reference"),
        peers=peers,
        bytes_moved={FORWARD: moved, BOTH: moved + 4 * B * (1 + weighted) * (n + m)},
        # Where float32 merges two points, their slopes change by a whole step.
        gradient_tolerance=1e-2,
    )


def cases(device, quick):
    for B, n, m, weighted in [(1920, 16, 16, False)] if quick else SIZES:
        yield case(device, B, n, m, weighted, compile=not quick)
