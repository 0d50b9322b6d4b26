"""vMF draws at the size of the ISMIR 2024 loss, beside `torch.randn` of the same shape, a correct eager sampler and scipy."""

import math

import torch
from harness import BOTH, FORWARD, Case, CheckFailed, Way, eager_and_compiled, optional, ours

import transphere as ts


def eager(mu, kappa, n_samples):
    """The same rejection in batched PyTorch, float32: what one would write without kernels. Its gradient in kappa is that of the accepted
    proposal."""
    d, n = mu.shape[-1], mu.shape[-1] - 1
    c = torch.hypot(2 * kappa, torch.full_like(kappa, n))[:, None]
    k = kappa[:, None]
    x0, omx0 = 2 * k / (n + c), 2 * n / (n + 2 * k + c)
    g = torch.randn(*mu.shape[:-1], n_samples, d, device=mu.device)
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
        fresh = torch.randn(*x.shape, 2, device=mu.device)
        x = fresh[..., 0] / (fresh[..., 0] ** 2 + 2 * torch._standard_gamma(torch.full_like(x, n / 2))).sqrt()
    s = 1 + x0 * kept
    w, v = (kept + x0) / s, (1 - kept**2) * omx0 * (1 + x0) / s**2
    tangent = torch.nn.functional.normalize(g - gm[..., None] * m, dim=-1)
    return w[..., None] * m + v.sqrt()[..., None] * tangent


def follows_the_law(mu, kappa):
    """A check for draws from another stream: unit length, the law's mean and variance of w = mu . z, gradients finite."""
    d = mu.shape[-1]
    A, variance = (f(kappa.double(), d, backend="reference") for f in (ts.vmf_mean_resultant, ts.vmf_variance))

    def check(z, gradients):
        z = z.detach().double()
        if (z.norm(dim=-1) - 1).abs().max() > 1e-5:
            raise CheckFailed("draws are not of unit length")
        score = ((z * mu[:, None].double()).sum(-1) - A[:, None]) / variance.sqrt()[:, None]
        count = score.numel()
        mean, spread = score.mean().item(), score.square().mean().item()
        if not (abs(mean) < 5 / math.sqrt(count) and abs(spread - 1) < 5 * math.sqrt(3 / count)):
            raise CheckFailed(f"standardised w has mean {mean:.3g} and second moment {spread:.3g} over {count} draws")
        if any(g is None or not g.isfinite().all() for g in gradients or ()):
            raise CheckFailed("a gradient is missing or not finite")

    return check


def cases(device, quick):
    stats = optional("scipy.stats")
    for B, L, d in [(24, 16, 512)] if quick else [(192, 16, 512), (4096, 16, 64)]:
        g = torch.Generator().manual_seed(0)
        mu = torch.nn.functional.normalize(torch.randn(B, d, generator=g), dim=-1).to(device)
        kappa = (64 + 64 * torch.rand(B, generator=g)).to(device)

        def scipy(mu, kappa, L=L):
            laws = zip(mu.double().numpy(), kappa.tolist(), strict=True)
            return torch.stack([torch.from_numpy(stats.vonmises_fisher(m / (m @ m) ** 0.5, k).rvs(L)) for m, k in laws])

        law = follows_the_law(mu, kappa)
        peers = eager_and_compiled(lambda mu, kappa, L=L: eager(mu, kappa, L), not quick, check=law)
        if stats and device.type == "cpu" and d == 512:
            peers["scipy"] = Way(scipy, differentiable=False, check=law)
        bytes_z = 4 * B * L * d
        yield Case(
            op="vmf_sample",
            shape=f"{B} laws, {L} draws each, d = {d}",
            inputs=(mu, kappa),
            ours=ours("vmf_sample", device, lambda mu, kappa, backend, L=L: ts.vmf_sample(mu, kappa, L, backend=backend)),
            reference=lambda mu, kappa, L=L: ts.vmf_sample(mu, kappa, L, backend="reference"),
            peers=peers,
            floors={
                "torch.randn of the shape": Way(
                    lambda mu, kappa, s=(B, L, d): torch.randn(s, device=mu.device), differentiable=False
                )
            },
            bytes_moved={FORWARD: bytes_z + 4 * B * d, BOTH: 3 * bytes_z + 4 * 3 * B * d},
        )
