"""The angle of projected points; csrc/circular_projection.h has the arrays. One element of (R, P) a lane."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, launch
from .elementary import angle_turns

BLOCK = 1024


@triton.jit(do_not_specialize=["P"])
def _forward(xy_ptr, theta_ptr, total, P, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = i < total
    at = i // P * 2 * P + i % P                                                              # of x; y lies P further
    x = tl.load(xy_ptr + at, mask=live, other=0.0)
    y = tl.load(xy_ptr + at + P, mask=live, other=0.0)
    tl.store(theta_ptr + i, angle_turns(x, y), mask=live)


@triton.jit(do_not_specialize=["P"])
def _backward(grad_theta_ptr, xy_ptr, grad_xy_ptr, total, P, BLOCK: tl.constexpr):
    """d theta / d(x, y) = (-y, x) / (x^2 + y^2) / 2 pi, 0 at the origin."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = i < total
    at = i // P * 2 * P + i % P
    x = tl.load(xy_ptr + at, mask=live, other=0.0)
    y = tl.load(xy_ptr + at + P, mask=live, other=0.0)
    G = tl.load(grad_theta_ptr + i, mask=live, other=0.0)
    r2 = x * x + y * y
    scale = tl.where(r2 == 0.0, 0.0, G * 0.15915494309189535 / tl.where(r2 == 0.0, 1.0, r2))
    tl.store(grad_xy_ptr + at, -y * scale, mask=live)
    tl.store(grad_xy_ptr + at + P, x * scale, mask=live)


def circular_projection(xy: Tensor) -> Tensor:
    check(xy.dim() == 2 and xy.shape[1] % 2 == 0, "circular_projection: expected xy of shape (R, 2P)")
    xy = xy.contiguous()
    R, P = xy.shape[0], xy.shape[1] // 2
    theta = xy.new_empty(R, P)
    launch(_forward, triton.cdiv(R * P, BLOCK), xy, theta, R * P, P, BLOCK=BLOCK)
    return theta


def circular_projection_backward(grad_theta: Tensor, xy: Tensor) -> Tensor:
    grad_theta, xy = grad_theta.contiguous(), xy.contiguous()
    R, P = grad_theta.shape
    grad_xy = torch.empty_like(xy)
    launch(_backward, triton.cdiv(R * P, BLOCK), grad_theta, xy, grad_xy, R * P, P, BLOCK=BLOCK)
    return grad_xy
