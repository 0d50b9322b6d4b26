"""Differences of log Gamma and digamma between arguments that may be far apart or close, float64, differentiable."""

import torch
from torch import Tensor

SHIFT = 10  # Stirling's series is used from there on: nine terms leave 1e-17
# B_{2j} / (2j (2j - 1)): log Gamma(x) = (x - 1/2) log x - x + log(2 pi)/2 + sum_j STIRLING[j] x^(1 - 2j)
STIRLING = [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400, 43867 / 244188]


def _stirling(x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for c in reversed(STIRLING):
        total = total / (x * x) + c
    return total / x


def log_gamma_ratio(x: Tensor, k: Tensor) -> Tensor:
    """log Gamma(x + k) - log Gamma(x), x > 0, k >= 0."""
    shift = torch.arange(SHIFT, dtype=x.dtype, device=x.device)
    below = torch.log1p(k[..., None] / (x[..., None] + shift)).sum(-1)
    x = x + SHIFT
    return (x - 0.5) * torch.log1p(k / x) + k * (torch.log(x + k) - 1) + _stirling(x + k) - _stirling(x) - below


def digamma_difference(x: Tensor, k: Tensor) -> Tensor:
    """psi(x + k) - psi(x), x > 0, k >= 0."""
    shift = torch.arange(SHIFT, dtype=x.dtype, device=x.device)
    low = x[..., None] + shift
    below = (k[..., None] / (low * (low + k[..., None]))).sum(-1)
    x = x + SHIFT
    tail = torch.zeros_like(x)
    for j in reversed(range(len(STIRLING))):  # psi(x) = log x - 1/2x - sum_j (2j - 1) STIRLING[j] x^(-2j)
        c = (2 * j + 1) * STIRLING[j]
        tail = tail + c * (x ** (-2 * j - 2) - (x + k) ** (-2 * j - 2))
    return torch.log1p(k / x) + 0.5 * k / (x * (x + k)) + tail + below
