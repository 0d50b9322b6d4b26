"""Spherical sliced Wasserstein at the size of the ISMIR 2024 loss: 192 pairs of 16 points in 512 dimensions on 100 circles.

The floor is the projection: one matrix product of all points. POT takes one pair at a time.
"""

import ot
import pytest
import torch

import transphere as ts

PAIRS, N, D, P = 192, 16, 512, 100


def points():
    torch.manual_seed(0)
    return tuple(torch.nn.functional.normalize(torch.randn(PAIRS, N, D), dim=-1).requires_grad_() for _ in range(2))


def eager(x, y, frames):
    """Batched PyTorch without kernels: one product, one sort, a histogram for the median. n = m only."""
    u, v = (torch.einsum("bnd,pdk->bpnk", z, frames) for z in (x, y))
    angle = torch.cat([torch.atan2(t[..., 1], t[..., 0]) / (2 * torch.pi) % 1 for t in (u, v)], -1)
    t, order = angle.sort(-1)
    level = torch.where(order < N, 1, -1).cumsum(-1)
    gap = torch.cat([t[..., 1:], 1 + t[..., :1]], -1) - t
    mass = torch.zeros(*t.shape[:-1], 2 * N + 1).scatter_add_(-1, level + N, gap)
    median = (mass.cumsum(-1) < 0.5).sum(-1, keepdim=True) - N
    return (gap * (level - median).abs()).sum(-1).mean(-1) / N


def pot(x, y, frames):
    return torch.stack([ot.sliced_wasserstein_sphere(a, b, P, projections=frames, p=1) for a, b in zip(x, y, strict=True)])


def project(x, y, frames):
    flat = frames.permute(1, 2, 0).reshape(D, -1)
    return (x.reshape(-1, D) @ flat).sum() + (y.reshape(-1, D) @ flat).sum()


WAYS = {
    "ours": lambda x, y, f: ts.sliced_wasserstein_sphere(x, y, projections=f),
    "eager": eager,
    "projection alone": project,
}


def test_ways_agree():
    x, y = points()
    frames = ts.great_circles(P, D)
    ours = WAYS["ours"](x, y, frames)
    torch.testing.assert_close(eager(x, y, frames), ours, atol=2e-6, rtol=0)
    torch.testing.assert_close(pot(x[:3], y[:3], frames), ours[:3], atol=2e-5, rtol=0)


@pytest.mark.parametrize("way", WAYS)
def test_forward(benchmark, way):
    x, y = points()
    frames = ts.great_circles(P, D)
    with torch.no_grad():
        benchmark(WAYS[way], x, y, frames)


@pytest.mark.parametrize("way", WAYS)
def test_forward_and_backward(benchmark, way):
    x, y = points()
    frames = ts.great_circles(P, D)
    benchmark(lambda: torch.autograd.grad(WAYS[way](x, y, frames).sum(), (x, y)))


def test_forward_pot(benchmark):
    x, y = points()
    frames = ts.great_circles(P, D)
    with torch.no_grad():
        benchmark.pedantic(pot, (x[:10], y[:10], frames), rounds=3)
