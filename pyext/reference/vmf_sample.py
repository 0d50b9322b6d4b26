"""von Mises-Fisher draws and their gradients in plain PyTorch; csrc/vmf_sample.h and csrc/wood.h have the formulas. All arithmetic in
float64."""

import torch
from torch import Tensor

from .philox import MASK, normals, philox, uniform

MAX_ATTEMPTS = 32
LARGEST = 1e300  # a concentration beyond is infinite
MAX_STEPS = 116  # of tau's recurrence, at kappa = 1000


def vmf_sample(
    mu: Tensor, kappa: Tensor, seed: Tensor, n_samples: int, pathwise: bool, offset: int = 0, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    B, d = mu.shape
    m, k = mu.double()[:, None], kappa.double()[:, None]                                     # (B, 1, d), (B, 1)
    key = (seed[0], seed[1])
    samples = offset + torch.arange(B * n_samples, device=mu.device).reshape(B, n_samples)   # (B, L)
    g = normals(key, samples, d)                                                             # (B, L, d)

    rest2, norm2 = g[..., 1:].square().sum(-1), g.square().sum(-1)                           # (B, L)
    w, v = _draw_w(key, samples, k, d, g[..., 0] / norm2.sqrt(), rest2 / norm2)              # (B, L)

    # z' = (w, r g_1..) in the frame of e1, carried to mu by the reflection that swaps e1 and -sign(mu0) mu
    sign = torch.where(m[..., 0] < 0, -1.0, 1.0)                                             # (B, 1)
    r = (v / rest2).sqrt()
    dot = (g[..., 1:] * m[..., 1:]).sum(-1)
    along = w + sign * r * dot / (1 + m[..., 0].abs())
    z = along[..., None] * m - (sign * r)[..., None] * g
    z = torch.cat([(w * m[..., 0] + r * dot)[..., None], z[..., 1:]], -1)
    z = torch.where((k > LARGEST)[..., None], m, z)
    return z.to(dtype or mu.dtype), w.to(mu.dtype), v.to(mu.dtype)


def _draw_w(key: tuple[Tensor, Tensor], samples: Tensor, k: Tensor, d: int, x: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
    """w and 1 - w^2 by Wood's rejection; x and x2 = 1 - x^2 belong to the first proposal."""
    n = d - 1
    c = torch.hypot(2 * k, torch.full_like(k, n))
    x0, one_minus_x0 = 2 * k / (n + c), 2 * n / (n + 2 * k + c)
    w, v = torch.ones_like(x), torch.zeros_like(x)
    pending = (k <= LARGEST).expand_as(x)
    for attempt in range(MAX_ATTEMPTS):
        words = philox(key, torch.full_like(samples, attempt), torch.ones_like(samples), samples & MASK, samples >> 32)
        if attempt:  # Ulrich's symmetric beta
            log_p = 2 / (n - 1) * uniform(words[1]).log() if n > 1 else torch.full_like(x, -torch.inf)
            turn = 2 * torch.pi * uniform(words[2])
            x = (-torch.expm1(log_p)).sqrt() * turn.cos()
            x2 = log_p.exp() + -torch.expm1(log_p) * turn.sin().square()
        small = x2 / (1 + x.abs())
        s = torch.where(x >= 0, 1 + x, small) - one_minus_x0 * x
        t = x0 * x
        accept = -torch.log(1 - uniform(words[0])) > n * (s.log() - t / s)
        w = torch.where(pending, 1 - torch.where(x >= 0, small, 1 - x) * one_minus_x0 / s, w)
        v = torch.where(pending, x2 * one_minus_x0 * (1 + x0) / (s * s), v)
        pending = pending & ~accept
        if x.device.type == "cpu" and not pending.any():  # elsewhere the answer would cost a sync
            break
    return w, v


def vmf_sample_backward(
    grad_z: Tensor, z: Tensor, w: Tensor, v: Tensor, mu: Tensor, kappa: Tensor, pathwise: bool
) -> tuple[Tensor, Tensor]:
    G, z_, w_, v_ = grad_z.double(), z.double(), w.double(), v.double()                      # (B, L, d), (B, L)
    m, k = mu.double()[:, None], kappa.double()[:, None]
    along = (G * m).sum(-1)                                                                  # (B, L)
    across = (G * (z_ - w_[..., None] * m)).sum(-1)
    grad_mu = (w_[..., None] * G - along[..., None] * z_).sum(1)                             # (B, d)
    grad_mu = grad_mu - (grad_mu * m[:, 0]).sum(-1, keepdim=True) * m[:, 0]
    slope = vmf_tau(w_, v_, k, mu.shape[1], pathwise)
    grad_kappa = torch.where(v_ > 0, slope * (along - w_ / v_ * across), 0.0).sum(1)
    return grad_mu.to(mu.dtype), grad_kappa.to(kappa.dtype)


def vmf_tau(w: Tensor, v: Tensor, k: Tensor, d: int, pathwise: bool) -> Tensor:
    """dw/dkappa: (1/p(w)) int_w^1 (t - A) p(t) dt by its recurrence in d, or that of the accepted proposal. v = 1 - w^2; all (B, L) against
    k (B, 1); see csrc/vmf_tau.h."""
    finite = torch.where(k > LARGEST, 0.0, k)
    if pathwise:
        tau = v / _length(finite, d)
    else:
        steps = torch.where(finite < 1000, (6 + 3.5 * (2 * finite * finite / (d - 1 + _length(finite, d))).sqrt()).floor(), 0.0)
        tau, B = _start_of_tau(w, v, finite, d + 2 * steps)                                  # B = 1 - A, (B, 1)
        below = torch.where(w > 0, v / (1 + w), 1 - w)                                       # 1 - w
        for i in reversed(range(MAX_STEPS)):
            e, active = d + 2 * i, i < steps
            scale = 1 / (e + finite * (1 - B))
            B = torch.where(active, (e - finite * B) * scale, B)
            tau = torch.where(active, v / (e - 1) * (B + finite * scale * (below - finite * tau)), tau)
    return torch.where(k > LARGEST, 0.0, tau)


def _length(k: Tensor, d: Tensor | int) -> Tensor:
    """c = hypot(2k, d - 1)."""
    return torch.hypot(2 * k, torch.zeros_like(k) + d - 1)


def _start_of_tau(w: Tensor, v: Tensor, k: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    n, c = D - 1, _length(k, D)
    x0, g = 2 * k / (n + c), k * w + 0.5 * (n + c)
    tau = v / g * (1 + k / (g * g) * (w + x0 + n * x0 * (c + g) / (c * c)))
    return tau, 2 * n / (n + 2 * k + c) + x0 * n / (c * c)
