"""The angle of projected points; csrc/circular_projection.h has the arrays. A program a tile of rows and neighbouring planes."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, launch, power_of_2
from .elementary import angle_turns

BLOCK = 512  # of a tile


@triton.jit
def _tile(R, P, BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr):
    """The program's (row, plane) pairs: which there are, their place in (R, P), and that of x in (R, 2P); y lies P further."""
    tiles = (P + BLOCK_P - 1) // BLOCK_P
    row = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)[None, :]
    return (row < R) & (p < P), row * P + p, row * 2 * P + p


@triton.jit(do_not_specialize=["R"])
def _forward(xy_ptr, theta_ptr, R, P, BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr):
    live, i, at = _tile(R, P, BLOCK_R, BLOCK_P)
    x = tl.load(xy_ptr + at, mask=live, other=0.0)
    y = tl.load(xy_ptr + at + P, mask=live, other=0.0)
    tl.store(theta_ptr + i, angle_turns(x, y), mask=live)


@triton.jit(do_not_specialize=["R"])
def _backward(grad_theta_ptr, xy_ptr, grad_xy_ptr, R, P, BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr):
    """d theta / d(x, y) = (-y, x) / (x^2 + y^2) / 2 pi, 0 at the origin."""
    live, i, at = _tile(R, P, BLOCK_R, BLOCK_P)
    x = tl.load(xy_ptr + at, mask=live, other=0.0)
    y = tl.load(xy_ptr + at + P, mask=live, other=0.0)
    G = tl.load(grad_theta_ptr + i, mask=live, other=0.0)
    r2 = x * x + y * y
    scale = tl.where(r2 == 0.0, 0.0, G * 0.15915494309189535 / tl.where(r2 == 0.0, 1.0, r2))
    tl.store(grad_xy_ptr + at, -y * scale, mask=live)
    tl.store(grad_xy_ptr + at + P, x * scale, mask=live)


def _grid(R: int, P: int) -> tuple[int, dict[str, int]]:
    block_p = power_of_2(P, 256)
    block_r = BLOCK // block_p
    return triton.cdiv(R, block_r) * triton.cdiv(P, block_p), dict(BLOCK_R=block_r, BLOCK_P=block_p)


def circular_projection(xy: Tensor) -> Tensor:
    check(xy.dim() == 2 and xy.shape[1] % 2 == 0, "circular_projection: expected xy of shape (R, 2P)")
    xy = xy.contiguous()
    R, P = xy.shape[0], xy.shape[1] // 2
    theta = xy.new_empty(R, P)
    programs, blocks = _grid(R, P)
    launch(_forward, programs, xy, theta, R, P, **blocks)
    return theta


def circular_projection_backward(grad_theta: Tensor, xy: Tensor) -> Tensor:
    grad_theta, xy = grad_theta.contiguous(), xy.contiguous()
    R, P = grad_theta.shape
    grad_xy = torch.empty_like(xy)
    programs, blocks = _grid(R, P)
    launch(_backward, programs, grad_theta, xy, grad_xy, R, P, **blocks)
    return grad_xy
