"""Spherical sliced Wasserstein at the size of the ISMIR 2024 loss: 192 pairs of 16 points in 512 dimensions on 100 circles; then larger
sets, and clouds of 100 000 points on the ordinary sphere.

The floor is the projection: the matrix product of all points. POT takes one pair at a time.
"""

import torch
from bench_circular_wasserstein import eager as eager_circle
from harness import Case, Way, eager_and_compiled, optional, ours

import transphere as ts

SIZES = [(192, 16, 512, 100), (64, 128, 128, 100), (64, 256, 128, 100), (1, 100_000, 3, 50)]  # pairs, n, d, circles


def case(device, B, n, d, P, compile=True, pot=True):
    ot = optional("ot")
    g = torch.Generator().manual_seed(0)
    x, y = (torch.nn.functional.normalize(torch.randn(B, n, d, generator=g), dim=-1).to(device) for _ in range(2))
    frames = ts.great_circles(P, d, generator=g).to(device)                                  # (P, d, 2)
    flat = frames.permute(1, 2, 0).reshape(d, -1)                                            # (d, 2P)

    def eager(x, y):
        turns = [torch.atan2(xy[..., P:], xy[..., :P]) / (2 * torch.pi) % 1 for xy in (x @ flat, y @ flat)]
        return eager_circle(*(t.mT for t in turns)).mean(-1)

    def pot_loop(x, y):
        pairs = zip(x, y, strict=True)
        return torch.stack([ot.sliced_wasserstein_sphere(a, b, n_projections=P, projections=frames, p=1) for a, b in pairs])

    peers = eager_and_compiled(eager, compile)
    if ot and pot:
        peers["POT"] = Way(pot_loop, differentiable=False)
    return Case(
        op="sliced_wasserstein",
        shape=f"{B} pair{'s' * (B > 1)} of {n} points, d = {d}, {P} circles",
        inputs=(x, y),
        ours=ours(
            "circular_wasserstein",
            device,
            lambda x, y, backend: ts.sliced_wasserstein_sphere(x, y, projections=frames, backend=backend),
        ),
        reference=lambda x, y: ts.sliced_wasserstein_sphere(x, y, projections=frames.double(), backend="reference"),
        peers=peers,
        floors={"the projection's products alone": Way(lambda x, y: torch.cat([x @ flat, y @ flat]))},
        # A gradient holds 1/r^2 of a projected point: the few that land near 0 carry the rounding of all.
        gradient_tolerance=2e-2,
    )


def cases(device, quick):
    for B, n, d, P in [(24, 16, 512, 100)] if quick else SIZES:
        yield case(device, B, n, d, P, compile=not quick, pot=n == 16)  # at the larger sizes POT takes seconds, at the last a minute
