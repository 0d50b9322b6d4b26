"""From projected points to Wasserstein-1 on every circle in plain PyTorch; csrc/sliced_wasserstein.h has the arrays."""

import math

import torch
from torch import Tensor

from .circular_projection import circular_projection, circular_projection_backward
from .circular_wasserstein import circular_wasserstein


def sliced_wasserstein(u: Tensor, v: Tensor, max_grad: float) -> tuple[Tensor, Tensor]:
    theta = (circular_projection(z.flatten(0, 1)).unflatten(0, z.shape[:2]) for z in (u, v))  # (B, n, P)
    cost, *slopes, _, _ = circular_wasserstein(*theta, None, None)
    rises = torch.cat(slopes, 1) > 0                                                         # (B, 2n, P)
    rises = torch.nn.functional.pad(rises, (0, 0, 0, -rises.shape[1] % 8)).unflatten(1, (-1, 8))
    bit = 1 << torch.arange(8, dtype=torch.uint8, device=u.device)[:, None]
    return cost, (rises * bit).sum(2, dtype=torch.uint8)


def sliced_wasserstein_backward(
    grad_cost: Tensor, cost: Tensor, rises: Tensor, u: Tensor, v: Tensor, max_grad: float
) -> tuple[Tensor, Tensor]:
    n = u.shape[1]
    bits = rises[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=u.device)[:, None] & 1
    sign = 2 * bits.flatten(1, 2)[:, : 2 * n].to(u.dtype) - 1                                # (B, 2n, P)
    # A cost that is NaN has NaN for its gradients.
    grad_theta = (grad_cost + 0 * cost)[:, None] * (sign / n)
    grads = []
    for z, grad in zip((u, v), grad_theta.split(n, 1), strict=True):
        if max_grad < math.inf:
            grad = grad * (2 * math.pi * max_grad * torch.hypot(*z.chunk(2, -1))).clamp(max=1)
        grads.append(circular_projection_backward(grad.flatten(0, 1), z.flatten(0, 1)).view(z.shape))
    return tuple(grads)
