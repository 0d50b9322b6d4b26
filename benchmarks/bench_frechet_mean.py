"""Karcher means of 192 sets of 16 points in 512 dimensions, beside the usual fixed-point iteration differentiated through its steps.

The floor is the chordal mean: one pass over the points.
"""

import torch
from harness import BOTH, FORWARD, Case, Way, eager_and_compiled

import transphere as ts


def karcher(z, steps=12):
    """m <- exp_m(mean of log_m z), from the normalised average."""
    m = torch.nn.functional.normalize(z.mean(-2), dim=-1)
    for _ in range(steps):
        c = (z @ m[..., None])[..., 0].clamp(-1, 1)                                          # (B, n)
        away = z - c[..., None] * m[..., None, :]
        s = away.norm(dim=-1)
        t = (torch.atan2(s, c) / s)[..., None] * away                                        # log_m z
        t = t.mean(-2)
        length = t.norm(dim=-1, keepdim=True) + 1e-30
        m = torch.nn.functional.normalize(length.cos() * m + length.sin() / length * t, dim=-1)
    return m


def cases(device, quick):
    for B, n, d in [(24, 16, 512)] if quick else [(192, 16, 512), (4096, 16, 3)]:
        g = torch.Generator().manual_seed(0)
        normalize = torch.nn.functional.normalize
        centre = normalize(torch.randn(B, 1, d, generator=g), dim=-1)
        z = normalize(centre + 0.7 * normalize(torch.randn(B, n, d, generator=g), dim=-1), dim=-1).to(device)
        yield Case(
            op="frechet_mean",
            shape=f"{B} sets of {n} points, d = {d}",
            inputs=(z,),
            ours={"ours": Way(ts.frechet_mean)},
            reference=lambda z: karcher(z, 40),
            peers=eager_and_compiled(karcher, not quick),
            floors={"the chordal mean": Way(ts.chordal_mean)},
            bytes_moved={FORWARD: 4 * B * (n + 1) * d, BOTH: 4 * B * (3 * n + 2) * d},
        )
