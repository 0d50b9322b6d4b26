"""Mahalanobis costs in plain PyTorch, from differences, in float64; csrc/mahalanobis_cost.h has the arrays."""

import torch
from torch import Tensor


def mahalanobis_cost(z: Tensor, M: Tensor | None, zM: Tensor, G: Tensor, squared: bool) -> Tensor:
    n = G.shape[1]
    cost = torch.empty_like(G, memory_format=torch.contiguous_format)
    points, images = z.double(), zM.double()                                                 # (B, n + m, d)
    for i in range(n):  # a row at a time: never (n, m, d)
        apart, image = points[:, i : i + 1] - points[:, n:], images[:, i : i + 1] - images[:, n:]
        q = (apart * image).sum(-1).clamp(min=0)                                             # (B, m)
        cost[:, i] = (q if squared else q.sqrt()).to(cost.dtype)
    return cost


def mahalanobis_cost_backward(grad: Tensor, cost: Tensor, squared: bool) -> tuple[Tensor, Tensor, Tensor]:
    slope = grad.double() if squared else 0.5 * grad.double() / cost.double()
    W = torch.where(cost == 0, 0.0, slope)
    return W.to(cost.dtype), W.sum(2).to(cost.dtype), W.sum(1).to(cost.dtype)
