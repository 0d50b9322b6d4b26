"""Mahalanobis costs around their matrix products; csrc/mahalanobis_cost.h has the arrays and the formulas."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, launch, power_of_2

CANCELLED = tl.constexpr(1 / 256)
STRIP = 8


@triton.jit(do_not_specialize=["d"])
def _norms(z_ptr, zM_ptr, norms_ptr, points, d, BLOCK: tl.constexpr):
    """A program a point: p = sum z zM and a = sum |z zM|."""
    i = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK)
    p = tl.zeros([BLOCK], z_ptr.dtype.element_ty)
    a = tl.zeros([BLOCK], z_ptr.dtype.element_ty)
    for base in range(0, d, BLOCK):
        live = base + k < d
        z = tl.load(z_ptr + i * d + base + k, mask=live, other=0.0)
        term = z * tl.load(zM_ptr + i * d + base + k, mask=live, other=0.0)
        p += term
        a += tl.abs(term)
    tl.store(norms_ptr + i, tl.sum(p, 0))
    tl.store(norms_ptr + points + i, tl.sum(a, 0))


@triton.jit(do_not_specialize=["n", "m", "d"])
def _forward(
    z_ptr, zM_ptr, G_ptr, norms_ptr, cost_ptr, points, n, m, d, SQUARED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):  # fmt: skip
    """A tile [R, C] of one problem. A tile in which an entry cancelled computes all of its own again, from differences."""
    tiles_across = tl.cdiv(m, COLUMNS)
    tile = tl.program_id(0).to(tl.int64)
    tiles = tl.cdiv(n, ROWS) * tiles_across
    b, tile = tile // tiles, tile % tiles
    row = tile // tiles_across * ROWS + tl.arange(0, ROWS)                                   # [R]
    column = tile % tiles_across * COLUMNS + tl.arange(0, COLUMNS)                           # [C]
    x, y = b * (n + m) + row, b * (n + m) + n + column
    in_x, in_y = row < n, column < m
    live = in_x[:, None] & in_y[None, :]
    at = (b * n + row)[:, None] * m + column[None, :]
    p = tl.load(norms_ptr + x, mask=in_x, other=0.0)[:, None] + tl.load(norms_ptr + y, mask=in_y, other=0.0)[None, :]
    a = tl.load(norms_ptr + points + x, mask=in_x, other=0.0)[:, None] + tl.load(norms_ptr + points + y, mask=in_y, other=0.0)[None, :]
    value = p - 2 * tl.load(G_ptr + at, mask=live, other=0.0)
    size = CANCELLED * a
    safe = tl.where(value > size, value, 0.0)
    lost = live & ~((value > size) | (value < -size))                                    # also where it is NaN
    if tl.max(tl.max(lost.to(tl.int32), 1), 0) > 0:
        exact = tl.zeros([ROWS, COLUMNS], z_ptr.dtype.element_ty)
        for base in range(0, d, DEPTH):
            k = base + tl.arange(0, DEPTH)
            x_at, y_at = x[:, None] * d + k[None, :], y[:, None] * d + k[None, :]            # [R, K], [C, K]
            x_live, y_live = in_x[:, None] & (k < d)[None, :], in_y[:, None] & (k < d)[None, :]
            apart = tl.load(z_ptr + x_at, mask=x_live, other=0.0)[:, None, :] - tl.load(z_ptr + y_at, mask=y_live, other=0.0)[None, :, :]
            x_M = tl.load(zM_ptr + x_at, mask=x_live, other=0.0)[:, None, :]
            y_M = tl.load(zM_ptr + y_at, mask=y_live, other=0.0)[None, :, :]
            exact += tl.sum(apart * (x_M - y_M), 2)
        safe = tl.where(lost, tl.where(exact < 0.0, 0.0, exact), safe)
    tl.store(cost_ptr + at, safe if SQUARED else tl.sqrt(safe), mask=live)


@triton.jit(do_not_specialize=["n", "m", "strips"])
def _backward(
    grad_ptr, cost_ptr, W_ptr, rows_ptr, partial_ptr, n, m, strips, SQUARED: tl.constexpr, STRIP: tl.constexpr, BLOCK: tl.constexpr
):
    """A strip of rows a program, all columns: W, its row sums and the strip's column sums."""
    strip = tl.program_id(0).to(tl.int64)
    b, row = strip // strips, strip % strips * STRIP + tl.arange(0, STRIP)
    total = tl.zeros([STRIP, BLOCK], cost_ptr.dtype.element_ty)
    for base in range(0, m, BLOCK):
        column = base + tl.arange(0, BLOCK)
        live = (row < n)[:, None] & (column < m)[None, :]
        at = (b * n + row)[:, None] * m + column[None, :]
        grad = tl.load(grad_ptr + at, mask=live, other=0.0)
        cost = tl.load(cost_ptr + at, mask=live, other=0.0)
        at_kink = cost == 0.0
        W = grad if SQUARED else 0.5 * grad / tl.where(at_kink, 1.0, cost)
        W = tl.where(at_kink, 0.0, W)
        tl.store(W_ptr + at, W, mask=live)
        tl.store(partial_ptr + strip * m + column, tl.sum(W, 0), mask=column < m)
        total += W
    tl.store(rows_ptr + b * n + row, tl.sum(total, 1), mask=row < n)


@triton.jit(do_not_specialize=["m", "strips"])
def _columns(partial_ptr, columns_ptr, total, m, strips, BLOCK: tl.constexpr):
    """The strips' column sums, added in order."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = i < total
    at = i // m * strips * m + i % m
    sums = tl.zeros([BLOCK], partial_ptr.dtype.element_ty)
    for s in range(strips):
        sums += tl.load(partial_ptr + at + s * m, mask=live, other=0.0)
    tl.store(columns_ptr + i, sums, mask=live)


def mahalanobis_cost(z: Tensor, M: Tensor | None, zM: Tensor, G: Tensor, squared: bool) -> Tensor:
    name = "mahalanobis_cost"
    check(z.dim() == G.dim() == 3 and zM.shape == z.shape, f"{name}: expected z, zM (B, n + m, d) and G (B, n, m)")
    (B, N, d), (n, m) = z.shape, G.shape[1:]
    check(G.shape[0] == B and n + m == N, f"{name}: expected z, zM (B, n + m, d) and G (B, n, m)")
    check(z.dtype == zM.dtype == G.dtype, f"{name}: expected z, zM and G of one dtype")
    z, zM, G = z.contiguous(), zM.contiguous(), G.contiguous()
    cost, norms = torch.empty_like(G), z.new_empty(2, B, N)
    rows = columns = 16
    launch(_norms, B * N, z, zM, norms, B * N, d, BLOCK=power_of_2(d, 1024))
    launch(
        _forward, B * triton.cdiv(n, rows) * triton.cdiv(m, columns), z, zM, G, norms, cost, B * N, n, m, d,
        SQUARED=squared, ROWS=rows, COLUMNS=columns, DEPTH=16,
    )  # fmt: skip
    return cost


def mahalanobis_cost_backward(grad: Tensor, cost: Tensor, squared: bool) -> tuple[Tensor, Tensor, Tensor]:
    name = "mahalanobis_cost_backward"
    check(cost.dim() == 3 and grad.shape == cost.shape, f"{name}: expected grad and cost (B, n, m)")
    check(grad.dtype == cost.dtype, f"{name}: expected grad and cost of one dtype")
    grad, cost = grad.contiguous(), cost.contiguous()
    B, n, m = cost.shape
    strips, block = triton.cdiv(n, STRIP), power_of_2(m, 256)
    W, rows, columns, partial = torch.empty_like(cost), cost.new_empty(B, n), cost.new_empty(B, m), cost.new_empty(B, strips, m)
    launch(_backward, B * strips, grad, cost, W, rows, partial, n, m, strips, SQUARED=squared, STRIP=STRIP, BLOCK=block)
    launch(_columns, triton.cdiv(B * m, 256), partial, columns, B * m, m, strips, BLOCK=256)
    return W, rows, columns
