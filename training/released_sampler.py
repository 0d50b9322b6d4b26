"""The sampler that goes round in released code in the place of a von Mises-Fisher one, for an ablation: it draws from another law.

Wood's rejection proposes w = (x + x0)/(1 + x0 x), x the first coordinate of a uniform point of the sphere, x0 = (1 - b)/(1 + b), and its
test makes the law of w that of mu.z only for b = n/(2k + c), n = d - 1, c = hypot(2k, n). The released code replaces b by its first-order
form n/(4k) where k > 11 (between 10 and 11 by a blend of both) and leaves the test as it is. At d = 512 and k = 64/96/128 the mean of w is
then -.332/-.141/+.002 where it should be .123/.181/.236: draws lie on the far side of the sphere from their mean direction, and an item
with a larger k is nearer to the uniform law. The gradient in k is that of the proposal under the same b. docs/mathematics.md.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .seeding import derive

_FROM, _TO = 10.0, 11.0  # k from which on b is no longer exact, and to where it is blended


def vmf_sample_released(mu: Tensor, kappa: Tensor, n_samples: int, *, seed: int | None = None, offset: int = 0) -> Tensor:
    """(..., n_samples, d) unit vectors that are no von Mises-Fisher draws for kappa > 10; mu (..., d), kappa (...), as of `vmf_sample`.

    seed: the draws are a function of it and `offset`, for one shape and device; None: of torch's own generator. No backend is fast here:
    plain torch, in float64 for w.
    """
    if mu.shape[-1] < 2 or kappa.shape != mu.shape[:-1] or n_samples < 1:
        shapes = f"{tuple(mu.shape)}, {tuple(kappa.shape)}, {n_samples}"
        raise ValueError(f"vmf_sample_released: expected mu (..., d), d >= 2, kappa (...), n_samples >= 1, got {shapes}")
    source = None if seed is None else torch.Generator(mu.device).manual_seed(derive(seed, "released", offset))
    k, n = kappa.double()[..., None], mu.shape[-1] - 1                                        # (..., 1)
    c = torch.hypot(2 * k, torch.full_like(k, n))
    share = ((k - _FROM) / (_TO - _FROM)).clamp(0, 1)
    b = (1 - share) * n / (2 * k + c) + share * n / (4 * k).clamp(min=1e-300)
    x = _accepted(b.detach(), (n + 2 * k + c).detach() / 4, n, n_samples, source)             # (..., L)
    x0 = (1 - b) / (1 + b)
    s = 1 + x0 * x
    w, v = (x + x0) / s, (1 - x * x) * (1 - x0 * x0) / (s * s)                                # v = 1 - w^2
    g = torch.randn(*x.shape, n + 1, dtype=mu.dtype, device=mu.device, generator=source)      # (..., L, d)
    m = mu[..., None, :]
    tangent = torch.nn.functional.normalize(g - (g * m).sum(-1, keepdim=True) * m, dim=-1)
    return w.to(mu.dtype)[..., None] * m + v.sqrt().to(mu.dtype)[..., None] * tangent


def _accepted(b: Tensor, a: Tensor, n: int, n_samples: int, source: torch.Generator | None) -> Tensor:
    """x (..., L) of the accepted proposals: n log(T/s) - T/s + T - n log n >= log u, with s = 1 + x0 x and T = 4ab/(1 + b), n for the
    exact b."""
    x0, T = (1 - b) / (1 + b), 4 * a * b / (1 + b)                                            # (..., 1)
    x = b.new_zeros(*b.shape[:-1], n_samples)
    pending = (x == 0) & b.isfinite()  # of a NaN nothing is ever accepted
    while pending.any():
        u = torch.rand(3, *x.shape, dtype=x.dtype, device=x.device, generator=source)
        proposed = (1 - u[0] ** (2 / (n - 1) if n > 1 else math.inf)).sqrt() * torch.cos(2 * math.pi * u[1])  # Ulrich's symmetric beta
        ratio = T / (1 + x0 * proposed)
        accept = n * ratio.log() - ratio + T - n * math.log(n) >= u[2].log()
        x = torch.where(pending & accept, proposed, x)
        pending &= ~accept
    return x
