"""From projected points to Wasserstein-1 on every circle; csrc/sliced_wasserstein.h has the arrays. The forward counts levels in the kernel
of circular_wasserstein; the backward has a program a tile of points and neighbouring planes."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, launch, power_of_2
from .circular_wasserstein import ROWS, _count

MAX_POINTS = 128  # a set
BLOCK = 512  # points times planes a program


def sliced_wasserstein(u: Tensor, v: Tensor, max_grad: float) -> tuple[Tensor, Tensor]:
    check(u.dim() == 3 and u.shape == v.shape and u.shape[2] % 2 == 0, "sliced_wasserstein: expected u and v of one shape (B, n, 2P)")
    check(u.dtype == v.dtype, "sliced_wasserstein: expected u and v of one dtype")
    check(0 < u.shape[1] <= MAX_POINTS, f"sliced_wasserstein: expected between 1 and {MAX_POINTS} points a set")
    u, v = u.contiguous(), v.contiguous()
    B, n, P = u.shape[0], u.shape[1], u.shape[2] // 2
    cost, rises = u.new_empty(B, P), u.new_empty(B, (2 * n + 7) // 8, P, dtype=torch.uint8)
    index_bits = max(3, (2 * n - 1).bit_length())
    launch(
        _count, triton.cdiv(B * P, ROWS), u, v, cost, u, u, rises, B * P, n, n, P, 1, 1, (2 * n).bit_length(),
        COORDINATES=True, INDEX_BITS=index_bits, ROWS=ROWS, num_warps=max(1, (1 << index_bits) >> (7 - u.element_size() // 4)),
    )  # fmt: skip
    return cost, rises


@triton.jit(do_not_specialize=["rows", "n", "max_grad"])
def _backward(
    grad_cost_ptr, cost_ptr, rises_ptr, u_ptr, v_ptr, grad_u_ptr, grad_v_ptr, rows, n, P, max_grad,
    BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    tiles = (P + BLOCK_P - 1) // BLOCK_P
    row = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)[None, :]
    live, b, at = (row < rows) & (p < P), row // n, row * 2 * P + p                          # [R, P]
    grad = tl.load(grad_cost_ptr + b * P + p, mask=live, other=0.0)
    cost = tl.load(cost_ptr + b * P + p, mask=live, other=0.0)
    slope = (grad + 0.0 * cost) / n
    _of_set(rises_ptr, u_ptr, grad_u_ptr, slope, b, row % n, at, p, live, n, P, max_grad)
    _of_set(rises_ptr, v_ptr, grad_v_ptr, slope, b, row % n + n, at, p, live, n, P, max_grad)


@triton.jit
def _of_set(rises_ptr, z_ptr, grad_ptr, slope, b, point, at, p, live, n, P, max_grad):
    x = tl.load(z_ptr + at, mask=live, other=0.0)
    y = tl.load(z_ptr + at + P, mask=live, other=0.0)
    byte = tl.load(rises_ptr + (b * ((2 * n + 7) // 8) + point // 8) * P + p, mask=live, other=0).to(tl.int32)
    rises = (byte >> (point % 8).to(tl.int32)) & 1
    r2 = x * x + y * y
    radius = tl.sqrt(r2)
    safe = tl.where(r2 == 0.0, 1.0, r2)
    steepness = 0.15915494309189535 / safe
    steepness = tl.where(steepness * radius > max_grad, max_grad / tl.sqrt(safe), steepness)
    scale = tl.where(r2 == 0.0, 0.0, tl.where(rises == 1, slope, -slope) * steepness)
    tl.store(grad_ptr + at, -y * scale, mask=live)
    tl.store(grad_ptr + at + P, x * scale, mask=live)


def sliced_wasserstein_backward(
    grad_cost: Tensor, cost: Tensor, rises: Tensor, u: Tensor, v: Tensor, max_grad: float
) -> tuple[Tensor, Tensor]:
    grad_cost, cost, rises, u, v = (x.contiguous() for x in (grad_cost, cost, rises, u, v))
    (B, n), P = u.shape[:2], u.shape[2] // 2
    grad_u, grad_v = torch.empty_like(u), torch.empty_like(v)
    block_p = power_of_2(P, 256)
    block_r = BLOCK // block_p
    launch(
        _backward, triton.cdiv(B * n, block_r) * triton.cdiv(P, block_p),
        grad_cost, cost, rises, u, v, grad_u, grad_v, B * n, n, P, max_grad, BLOCK_R=block_r, BLOCK_P=block_p,
    )  # fmt: skip
    return grad_u, grad_v
