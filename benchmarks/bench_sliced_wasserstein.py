"""Spherical sliced Wasserstein at the size of the ISMIR 2024 loss: 192 pairs of 16 points in 512 dimensions on 100 circles.

The floor is the projection: the matrix product of all points. POT takes one pair at a time.
"""

import torch
from bench_circular_wasserstein import eager as eager_circle
from harness import Case, Way, eager_and_compiled, optional, ours

import transphere as ts


def cases(device, quick):
    ot = optional("ot")
    for B, n, d, P in [(24, 16, 512, 100)] if quick else [(192, 16, 512, 100), (64, 256, 128, 100)]:
        g = torch.Generator().manual_seed(0)
        x, y = (torch.nn.functional.normalize(torch.randn(B, n, d, generator=g), dim=-1).to(device) for _ in range(2))
        frames = ts.great_circles(P, d, generator=g).to(device)                              # (P, d, 2)
        flat = frames.permute(1, 2, 0).reshape(d, -1)                                        # (d, 2P)

        def eager(x, y, flat=flat, P=P):
            turns = [torch.atan2(xy[..., P:], xy[..., :P]) / (2 * torch.pi) % 1 for xy in (x @ flat, y @ flat)]
            return eager_circle(*(t.mT for t in turns)).mean(-1)

        def pot(x, y, frames=frames, P=P):
            pairs = zip(x, y, strict=True)
            return torch.stack([ot.sliced_wasserstein_sphere(a, b, n_projections=P, projections=frames, p=1) for a, b in pairs])

        peers = eager_and_compiled(eager, not quick)
        if ot and n == 16:  # a second or more a call at the larger size, on two cores
            peers["POT"] = Way(pot, differentiable=False)
        yield Case(
            op="sliced_wasserstein",
            shape=f"{B} pairs of {n} points, d = {d}, {P} circles",
            inputs=(x, y),
            ours=ours(
                "circular_wasserstein",
                device,
                lambda x, y, backend, f=frames: ts.sliced_wasserstein_sphere(x, y, projections=f, backend=backend),
            ),
            reference=lambda x, y, f=frames: ts.sliced_wasserstein_sphere(x, y, projections=f.double(), backend="reference"),
            peers=peers,
            floors={"the projection's products alone": Way(lambda x, y, flat=flat: torch.cat([x @ flat, y @ flat]))},
            # A gradient holds 1/r^2 of a projected point: the few that land near 0 carry the rounding of all.
            gradient_tolerance=2e-2,
        )
