"""The angle of projected points in plain PyTorch; csrc/circular_projection.h has the arrays."""

import torch
from torch import Tensor


def circular_projection(xy: Tensor) -> Tensor:
    x, y = xy.chunk(2, -1)                                                                   # (R, P)
    turns = torch.atan2(y, x) / (2 * torch.pi)
    turns = torch.where((x == 0) & (y == 0), torch.zeros_like(turns), turns)
    turns = torch.where(turns < 0, turns + 1, turns)
    return torch.where(turns >= 1, torch.zeros_like(turns), turns)


def circular_projection_backward(grad_theta: Tensor, xy: Tensor) -> Tensor:
    x, y = xy.chunk(2, -1)
    r2 = x * x + y * y
    scale = torch.where(r2 == 0, torch.zeros_like(r2), grad_theta / (2 * torch.pi * r2))
    return torch.cat([-y * scale, x * scale], -1)
