"""Entropic transport; csrc/sinkhorn.h has the arrays, the forms and the formulas. A program a problem, of any size.

Forward: iterations in the log domain, in tiles; exponents are float64, for a float32 potential over a small eps has lost the digits that
exp needs. Vectors lie in a workspace; a barrier stands between a pass that writes one and one that reads it. The backward is in
_sinkhorn_backward.py.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, launch
from ._sinkhorn_backward import sinkhorn_backward  # noqa: F401  the backward's launcher is found beside the forward's
from ._sinkhorn_sides import check_problem, constants, sides, sizes, slack, weight_of

INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _potential(ptr, i, size):
    return tl.load(ptr + i, mask=i < size, other=-INFINITY)


@triton.jit
def _log_kernel(cost_ptr, a_ptr, b_ptr, i, j, n, m, per_eps):
    """-C / eps [I, J]; 0 where a weight is 0: the potential there is -inf."""
    live = (weight_of(a_ptr, i, n) > 0)[:, None] & (weight_of(b_ptr, j, m) > 0)[None, :]
    cost = tl.load(cost_ptr + i[:, None].to(tl.int64) * m + j[None, :], mask=live, other=0.0)
    return -cost.to(tl.float64) * per_eps


@triton.jit
def _add(top, total, x, axis: tl.constexpr, T: tl.constexpr):
    """Running max and sum of exp(x - max) along an axis; the max counts as 0 while all is -inf."""
    most = tl.maximum(top, tl.max(x, axis))
    shift = tl.where(most == -INFINITY, 0.0, most)
    terms = tl.exp((x - tl.expand_dims(shift, axis)).to(T)).to(tl.float64)
    return most, total * tl.exp(top - shift) + tl.sum(terms, axis)


@triton.jit
def _log_sum(top, total):
    return tl.where(top == -INFINITY, top, top + tl.log(tl.where(total == 0.0, 1.0, total)))


@triton.jit
def _clip(x, tight):
    return tl.where((x > 0.0) & (tight == 0), 0.0, x)


@triton.jit
def _miss(log_sum, potential, h, weight, tight):
    """How far the sum of a row or column is from what it should be, given the log of the sum without its own potential."""
    total = tl.where(potential == -INFINITY, 0.0, tl.exp(log_sum + potential + h))
    free = tl.where(weight > 0, tl.exp(log_sum + h), 0.0)
    return tl.abs(total - tl.where((tight == 0) & (free < weight), free, weight))


@triton.jit
def _start(ptr, given_ptr, weight_ptr, size, tight, per_eps, GIVEN: tl.constexpr, BLOCK: tl.constexpr):
    for first in range(0, size, BLOCK):
        i = first + tl.arange(0, BLOCK)
        x = tl.zeros([BLOCK], tl.float64)
        if GIVEN:
            x = weight_of(given_ptr, i, size) * per_eps
            x = _clip(tl.where(x - x == 0.0, x, 0.0), tight)
        tl.store(ptr + i, tl.where(weight_of(weight_ptr, i, size) > 0, x, -INFINITY), mask=i < size)


@triton.jit
def _columns(cost_ptr, a_ptr, b_ptr, F, lse_ptr, n, m, per_eps, T: tl.constexpr, I: tl.constexpr, J: tl.constexpr):
    """log sum_i exp(F_i - C_ij / eps)."""
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        top, total = tl.full([J], -INFINITY, tl.float64), tl.zeros([J], tl.float64)
        for row in range(0, n, I):
            i = row + tl.arange(0, I)
            x = _log_kernel(cost_ptr, a_ptr, b_ptr, i, j, n, m, per_eps) + _potential(F, i, n)[:, None]
            top, total = _add(top, total, x, 0, T)
        tl.store(lse_ptr + j, _log_sum(top, total), mask=j < m)


@triton.jit
def _rows(cost_ptr, a_ptr, b_ptr, F, G, lse_ptr, h, n, m, tight, per_eps, T: tl.constexpr, I: tl.constexpr, J: tl.constexpr):
    """log sum_j exp(G_j - C_ij / eps), and the error of the rows."""
    error = tl.zeros([I], tl.float64)
    for row in range(0, n, I):
        i = row + tl.arange(0, I)
        top, total = tl.full([I], -INFINITY, tl.float64), tl.zeros([I], tl.float64)
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            x = _log_kernel(cost_ptr, a_ptr, b_ptr, i, j, n, m, per_eps) + _potential(G, j, m)[None, :]
            top, total = _add(top, total, x, 1, T)
        lse = _log_sum(top, total)
        tl.store(lse_ptr + i, lse, mask=i < n)
        error += _miss(lse, _potential(F, i, n), h, weight_of(a_ptr, i, n), tight)
    return tl.sum(error, 0)


@triton.jit
def _update(ptr, lse_ptr, weight_ptr, h, scale, size, tight, BLOCK: tl.constexpr):
    for first in range(0, size, BLOCK):
        i = first + tl.arange(0, BLOCK)
        weight = weight_of(weight_ptr, i, size) * scale
        x = _clip(tl.log(tl.where(weight == 0.0, 1.0, weight)) - tl.load(lse_ptr + i, mask=i < size, other=0.0) - h, tight)
        tl.store(ptr + i, tl.where(weight > 0, x, -INFINITY), mask=i < size)


@triton.jit
def _column_state(G, lse_ptr, b_ptr, log_s, b_scale, m, tight, neither, J: tl.constexpr):
    """h, and the error of the columns and of the mass."""
    top, total = tl.full([1], -INFINITY, tl.float64), tl.zeros([1], tl.float64)
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        x = _potential(G, j, m)
        x += tl.where(x == -INFINITY, 0.0, tl.load(lse_ptr + j, mask=j < m, other=0.0))
        top, total = _add(top, total, x[None, :], 1, tl.float64)
    log_total = tl.sum(_log_sum(top, total), 0)
    h = tl.where(neither, log_s - log_total, 0.0)
    error = tl.zeros([J], tl.float64)
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        lse = tl.load(lse_ptr + j, mask=j < m, other=0.0)
        error += _miss(lse, _potential(G, j, m), h, weight_of(b_ptr, j, m) * b_scale, tight)
    return h, tl.sum(error, 0) + tl.where(neither, tl.abs(tl.exp(log_total + h) - tl.exp(log_s)), 0.0)


@triton.jit
def _weighted(ptr, weight_ptr, size, scale, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, size, BLOCK):
        i = first + tl.arange(0, BLOCK)
        weight = weight_of(weight_ptr, i, size) * scale
        x = _potential(ptr, i, size)
        total += weight * tl.where(weight > 0, x, 0.0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["n", "m", "max_iter"])
def _forward(
    cost_ptr, a_ptr, b_ptr, mass_ptr, f0_ptr, g0_ptr, plan_ptr, f_ptr, g_ptr, h_ptr, error_ptr, iterations_ptr, converged_ptr,
    workspace_ptr, constants_ptr, n, m, max_iter,
    PARTIAL: tl.constexpr, WARM: tl.constexpr, SLACK: tl.constexpr, I: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = cost_ptr.dtype.element_ty
    problem = tl.program_id(0).to(tl.int64)
    eps, tol = tl.load(constants_ptr), tl.load(constants_ptr + 1)
    per_eps = 1.0 / eps
    cost_ptr += problem * n * m
    plan_ptr += problem * n * m
    a_ptr += problem * n
    f_ptr += problem * n
    f0_ptr += problem * n
    b_ptr += problem * m
    g_ptr += problem * m
    g0_ptr += problem * m
    F = workspace_ptr + problem * 2 * (n + m)                                                # potentials over eps
    G = F + n
    row_lse = G + m
    column_lse = row_lse + n
    A, B, s, tight_rows, tight_cols = sides(a_ptr, b_ptr, mass_ptr, problem, n, m, PARTIAL, SLACK, I, J)
    neither, balanced = (tight_rows | tight_cols) == 0, (tight_rows & tight_cols) > 0
    b_scale = tl.where(balanced, A / B, 1.0)

    _start(F, f0_ptr, a_ptr, n, tight_rows, per_eps, WARM, I)
    _start(G, g0_ptr, b_ptr, m, tight_cols, per_eps, WARM, J)
    tl.debug_barrier()
    _columns(cost_ptr, a_ptr, b_ptr, F, column_lse, n, m, per_eps, T, I, J)
    tl.debug_barrier()
    h, column_error = _column_state(G, column_lse, b_ptr, tl.log(s), b_scale, m, tight_cols, neither, J)
    error = column_error + _rows(cost_ptr, a_ptr, b_ptr, F, G, row_lse, h, n, m, tight_rows, per_eps, T, I, J)
    iterations = 0
    while (error > tol * s) & (iterations < max_iter):
        tl.debug_barrier()
        _update(F, row_lse, a_ptr, h, 1.0, n, tight_rows, I)
        tl.debug_barrier()
        _columns(cost_ptr, a_ptr, b_ptr, F, column_lse, n, m, per_eps, T, I, J)
        tl.debug_barrier()
        _update(G, column_lse, b_ptr, h, b_scale, m, tight_cols, J)
        tl.debug_barrier()
        h, column_error = _column_state(G, column_lse, b_ptr, tl.log(s), b_scale, m, tight_cols, neither, J)
        error = column_error + _rows(cost_ptr, a_ptr, b_ptr, F, G, row_lse, h, n, m, tight_rows, per_eps, T, I, J)
        iterations += 1

    bad = error - error                                                                      # a NaN anywhere is one everywhere
    shift = bad + tl.where(balanced, (_weighted(G, b_ptr, m, b_scale, J) - _weighted(F, a_ptr, n, 1.0, I)) / (2.0 * s), 0.0)
    for row in range(0, n, I):
        i = row + tl.arange(0, I)
        f = _potential(F, i, n)
        tl.store(f_ptr + i, ((f + shift) * eps).to(T), mask=i < n)
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            x = _log_kernel(cost_ptr, a_ptr, b_ptr, i, j, n, m, per_eps) + f[:, None] + _potential(G, j, m)[None, :] + (h + bad)
            at = i[:, None].to(tl.int64) * m + j[None, :]
            tl.store(plan_ptr + at, tl.exp(x.to(T)), mask=(i < n)[:, None] & (j < m)[None, :])
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        tl.store(g_ptr + j, ((_potential(G, j, m) - shift) * eps).to(T), mask=j < m)
    tl.store(h_ptr + problem, ((h + bad) * eps).to(T))
    tl.store(error_ptr + problem, error.to(T))
    tl.store(iterations_ptr + problem, iterations)
    tl.store(converged_ptr + problem, error <= tol * s)


def sinkhorn(
    cost: Tensor, a: Tensor, b: Tensor, mass: Tensor | None, f0: Tensor | None, g0: Tensor | None, eps: float, max_iter: int, tol: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    name = "sinkhorn"
    check_problem(name, cost, a, b, mass)
    check((f0 is None) == (g0 is None), f"{name}: expected both potentials to start from or neither")
    check(f0 is None or (f0.shape == a.shape and g0.shape == b.shape), f"{name}: expected potentials of shapes (B, n) and (B, m)")
    check(f0 is None or f0.dtype == g0.dtype == cost.dtype, f"{name}: expected one dtype")
    B, n, m = cost.shape
    cost, a, b = cost.contiguous(), a.contiguous(), b.contiguous()
    mass_or, f0_or, g0_or = (y if x is None else x.contiguous() for x, y in ((mass, a), (f0, a), (g0, b)))
    plan, f, g, h, error = torch.empty_like(cost), torch.empty_like(a), torch.empty_like(b), cost.new_empty(B), cost.new_empty(B)
    iterations, converged = cost.new_empty(B, dtype=torch.int32), cost.new_empty(B, dtype=torch.bool)
    workspace = cost.new_empty(B, 2 * (n + m), dtype=torch.float64)
    launch(
        _forward, B, cost, a, b, mass_or, f0_or, g0_or, plan, f, g, h, error, iterations, converged, workspace, constants(cost, eps, tol),
        n, m, max_iter, PARTIAL=mass is not None, WARM=f0 is not None, SLACK=slack(cost.dtype), **sizes(n, m),
    )  # fmt: skip
    return plan, f, g, h, error, iterations, converged
