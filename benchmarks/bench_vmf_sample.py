"""vMF draws at the size of the ISMIR 2024 loss, beside `torch.randn` of the same shape and a correct eager sampler."""

import math

import pytest
import torch

import transphere as ts
from transphere import _library

B, L, D = 192, 16, 512


def laws():
    torch.manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(B, D), dim=-1).requires_grad_(), (64 + 64 * torch.rand(B)).requires_grad_()


def eager(mu, kappa, n_samples):
    """The same rejection in batched PyTorch, float32: what one would write without kernels."""
    d, n = mu.shape[-1], mu.shape[-1] - 1
    c = torch.hypot(2 * kappa, torch.full_like(kappa, n))[:, None]
    k = kappa[:, None]
    x0, omx0 = 2 * k / (n + c), 2 * n / (n + 2 * k + c)
    g = torch.randn(*mu.shape[:-1], n_samples, d)
    m = mu[:, None]
    gm, norm = (g * m).sum(-1), g.norm(dim=-1)
    x = gm / norm
    pending = torch.ones_like(x, dtype=torch.bool)
    kept = x
    while pending.any():
        t = x0 * x
        accept = -torch.rand_like(x).log() > n * (torch.log1p(t) - t / (1 + t))
        kept = torch.where(pending & accept, x, kept)
        pending = pending & ~accept
        fresh = torch.randn(*x.shape, 2)
        x = fresh[..., 0] / (fresh[..., 0] ** 2 + 2 * torch._standard_gamma(torch.full_like(x, n / 2))).sqrt()
    s = 1 + x0 * kept
    w, v = (kept + x0) / s, (1 - kept**2) * omx0 * (1 + x0) / s**2
    tangent = torch.nn.functional.normalize(g - gm[..., None] * m, dim=-1)
    return w[..., None] * m + v.sqrt()[..., None] * tangent


def test_eager_sampler_is_correct():
    mu, kappa = laws()
    with torch.no_grad():
        w = (eager(mu, kappa, 200) * mu[:, None]).sum(-1).mean(-1)
        assert (w - ts.vmf_mean_resultant(kappa, D)).abs().max() < 6 / math.sqrt(200 * D)


WAYS = {
    "ours": lambda mu, kappa: ts.vmf_sample(mu, kappa, L),
    "eager": lambda mu, kappa: eager(mu, kappa, L),
    "reference": lambda mu, kappa: ts.vmf_sample(mu, kappa, L, backend="reference"),
    "randn": lambda mu, kappa: torch.randn(B, L, D),
}


@pytest.mark.parametrize("way", WAYS)
def test_forward(benchmark, way):
    mu, kappa = laws()
    with torch.no_grad():
        benchmark(WAYS[way], mu, kappa)


@pytest.mark.parametrize("way", ["ours", "eager", "reference"])
def test_forward_and_backward(benchmark, way):
    assert _library.has_kernel("vmf_sample", "cpu")
    mu, kappa = laws()
    G = torch.randn(B, L, D)
    benchmark(lambda: torch.autograd.grad(WAYS[way](mu, kappa), (mu, kappa), G, allow_unused=True))
