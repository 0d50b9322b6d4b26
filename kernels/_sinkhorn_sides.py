"""What the two kernels of sinkhorn share: the sides of a problem, and how it is cut into tiles."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, power_of_2

TILE = 2048  # entries, 8 a thread: sums in float64 take two registers each


@triton.jit
def weight_of(ptr, i, size):
    return tl.load(ptr + i, mask=i < size, other=0.0).to(tl.float64)


@triton.jit
def sum_of(ptr, size, BLOCK: tl.constexpr):
    total = tl.full([BLOCK], 0.0, tl.float64)
    for first in range(0, size, BLOCK):
        total += weight_of(ptr, first + tl.arange(0, BLOCK), size)
    return tl.sum(total, 0)


@triton.jit
def sides(a_ptr, b_ptr, mass_ptr, problem, n, m, PARTIAL: tl.constexpr, SLACK: tl.constexpr, I: tl.constexpr, J: tl.constexpr):
    """Sums A and B, the mass, and which sides are tight."""
    A, B = sum_of(a_ptr, n, I), sum_of(b_ptr, m, J)
    if PARTIAL:
        given = tl.load(mass_ptr + problem).to(tl.float64)
        tight_rows, tight_cols = (given >= (1.0 - SLACK) * A).to(tl.int32), (given >= (1.0 - SLACK) * B).to(tl.int32)
        s = tl.where(tight_rows > 0, A, tl.where(tight_cols > 0, B, given))
    else:
        tight_rows, tight_cols = (A == A).to(tl.int32) | 1, (B == B).to(tl.int32) | 1
        s = A
    return A, B, s, tight_rows, tight_cols


def sizes(n: int, m: int) -> dict[str, int]:
    columns = power_of_2(m, 256)
    rows = power_of_2(n, TILE // columns)
    return {"I": rows, "J": columns, "num_warps": 8 if rows * columns == TILE else 4}


def slack(dtype: torch.dtype) -> float:
    return 1e-12 if dtype == torch.float64 else 1e-6


def constants(like: Tensor, *values: float) -> Tensor:
    """Numbers in float64, which a launch would pass in float32; made on the device, for a graph may not copy them from the host."""
    x = like.new_empty(len(values), dtype=torch.float64)
    for i, value in enumerate(values):
        x[i : i + 1].fill_(value)
    return x


def check_problem(name: str, matrix: Tensor, a: Tensor, b: Tensor, mass: Tensor | None) -> None:
    check(matrix.dim() == 3 and min(matrix.shape[1:]) > 0, f"{name}: expected matrices (B, n, m) with n, m >= 1")
    B, n, m = matrix.shape
    check(a.shape == (B, n) and b.shape == (B, m), f"{name}: expected weights of shapes (B, n) and (B, m)")
    check(mass is None or mass.shape == (B,), f"{name}: expected mass of shape (B)")
    check(a.dtype == b.dtype == matrix.dtype and (mass is None or mass.dtype == matrix.dtype), f"{name}: expected one dtype")
