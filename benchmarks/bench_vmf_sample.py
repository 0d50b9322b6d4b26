"""vMF draws at the size of the ISMIR 2024 loss and at small d, beside `torch.randn` of the same shape, a correct eager sampler, the sampler
that is widely copied, scipy, and the Power Spherical law, the rejection-free relative."""

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


def reflected(w, mu):
    """Draws with cosine w to mu, (B, L): tangents at e1 from normals, carried to mu by a Householder reflection, as copied code does."""
    d = mu.shape[-1]
    tangent = torch.nn.functional.normalize(torch.randn(*w.shape, d - 1, device=mu.device), dim=-1)
    x = torch.cat([w[..., None], (1 - w * w).clamp(min=1e-10).sqrt()[..., None] * tangent], -1)
    e1 = torch.zeros_like(mu)
    e1[:, 0] = 1
    u = torch.nn.functional.normalize(e1 - mu, dim=-1)[:, None]
    return x - 2 * (x * u).sum(-1, keepdim=True) * u


def copied(mu, kappa, n_samples):
    """Written from the formulas of code in wide use: Wood's test by beta draws in float64, its b in first order above kappa = 11. The law
    is wrong at large d (docs/mathematics.md)."""
    n, k = mu.shape[-1] - 1, kappa.double()[:, None]
    c = (4 * k**2 + n**2).sqrt()
    blend = (k - 10).clamp(0, 1)
    b = (1 - blend) * (c - 2 * k) / n + blend * n / (4 * k)
    a = (n + 2 * k + c) / 4
    constant = 4 * a * b / (1 + b) - n * math.log(n)
    w = torch.zeros(len(mu), n_samples, dtype=torch.float64, device=mu.device)
    pending = torch.ones_like(w, dtype=torch.bool)
    beta = torch.distributions.Beta(torch.tensor(n / 2, dtype=torch.float64), torch.tensor(n / 2, dtype=torch.float64))
    while pending.any():
        e = beta.sample(w.shape).to(mu.device)
        D = 1 - (1 - b) * e
        t = 2 * a * b / D
        accept = n * t.log() - t + constant >= torch.rand_like(w).log()
        w = torch.where(pending & accept, (1 - (1 + b) * e) / D, w)
        pending = pending & ~accept
    return reflected(w.to(mu.dtype), mu)


def power_spherical(mu, kappa, n_samples):
    """Another law, which needs no rejection: w = 2 Beta((d-1)/2 + kappa, (d-1)/2) - 1 (De Cao & Aziz 2020)."""
    half = (mu.shape[-1] - 1) / 2
    w = 2 * torch.distributions.Beta(half + kappa, torch.full_like(kappa, half), validate_args=False).rsample((n_samples,)).mT - 1
    return reflected(w, mu)


def are_unit(z, gradients):
    """All that can be asked of draws from another law."""
    if not (z.detach().double().norm(dim=-1) - 1).abs().max() < 1e-5:
        raise CheckFailed("draws are not of unit length")


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
    for B, L, d in [(24, 16, 512)] if quick else [(192, 16, 512), (192, 16, 3), (192, 16, 32), (4096, 16, 3), (4096, 16, 64)]:
        g = torch.Generator().manual_seed(0)
        mu = torch.nn.functional.normalize(torch.randn(B, d, generator=g), dim=-1).to(device)
        kappa = (64 + 64 * torch.rand(B, generator=g)).to(device)

        def scipy(mu, kappa, L=L):
            laws = zip(mu.double().numpy(), kappa.tolist(), strict=True)
            return torch.stack([torch.from_numpy(stats.vonmises_fisher(m / (m @ m) ** 0.5, k).rvs(L)) for m, k in laws])

        law = follows_the_law(mu, kappa)
        peers = eager_and_compiled(lambda mu, kappa, L=L: eager(mu, kappa, L), not quick, check=law)
        peers["copied sampler, wrong law"] = Way(lambda mu, kappa, L=L: copied(mu, kappa, L), check=are_unit)
        peers["Power Spherical, another law"] = Way(lambda mu, kappa, L=L: power_spherical(mu, kappa, L), check=are_unit)
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
