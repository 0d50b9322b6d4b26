"""Entropic transport; csrc/sinkhorn.h has the arrays, the forms and the formulas. A program a problem, of any size.

Forward: iterations in the log domain, in tiles; exponents are float64, for a float32 potential over a small eps has lost the digits that
exp needs. Backward: conjugate gradients in float64, two passes over the plan a product. Vectors lie in a workspace; a barrier stands
between a pass that writes one and one that reads it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, launch, power_of_2

TILE = 512  # entries, 4 a thread: exponentials in float64 take many registers
INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _weight(ptr, i, size):
    return tl.load(ptr + i, mask=i < size, other=0.0).to(tl.float64)


@triton.jit
def _potential(ptr, i, size):
    return tl.load(ptr + i, mask=i < size, other=-INFINITY)


@triton.jit
def _log_kernel(cost_ptr, a_ptr, b_ptr, i, j, n, m, per_eps):
    """-C / eps [I, J]; 0 where a weight is 0: the potential there is -inf."""
    live = (_weight(a_ptr, i, n) > 0)[:, None] & (_weight(b_ptr, j, m) > 0)[None, :]
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
            x = _weight(given_ptr, i, size) * per_eps
            x = _clip(tl.where(x - x == 0.0, x, 0.0), tight)
        tl.store(ptr + i, tl.where(_weight(weight_ptr, i, size) > 0, x, -INFINITY), mask=i < size)


@triton.jit
def _sum(ptr, size, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, size, BLOCK):
        total += _weight(ptr, first + tl.arange(0, BLOCK), size)
    return tl.sum(total, 0)


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
        error += _miss(lse, _potential(F, i, n), h, _weight(a_ptr, i, n), tight)
    return tl.sum(error, 0)


@triton.jit
def _update(ptr, lse_ptr, weight_ptr, h, scale, size, tight, BLOCK: tl.constexpr):
    for first in range(0, size, BLOCK):
        i = first + tl.arange(0, BLOCK)
        weight = _weight(weight_ptr, i, size) * scale
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
        error += _miss(lse, _potential(G, j, m), h, _weight(b_ptr, j, m) * b_scale, tight)
    return h, tl.sum(error, 0) + tl.where(neither, tl.abs(tl.exp(log_total + h) - tl.exp(log_s)), 0.0)


@triton.jit
def _sides(a_ptr, b_ptr, mass_ptr, problem, n, m, PARTIAL: tl.constexpr, SLACK: tl.constexpr, I: tl.constexpr, J: tl.constexpr):
    """Sums A and B, the mass, and which sides are tight."""
    A, B = _sum(a_ptr, n, I), _sum(b_ptr, m, J)
    if PARTIAL:
        given = tl.load(mass_ptr + problem).to(tl.float64)
        tight_rows, tight_cols = (given >= (1.0 - SLACK) * A).to(tl.int32), (given >= (1.0 - SLACK) * B).to(tl.int32)
        s = tl.where(tight_rows > 0, A, tl.where(tight_cols > 0, B, given))
    else:
        tight_rows, tight_cols = (A == A).to(tl.int32) | 1, (B == B).to(tl.int32) | 1
        s = A
    return A, B, s, tight_rows, tight_cols


@triton.jit
def _weighted(ptr, weight_ptr, size, scale, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, size, BLOCK):
        i = first + tl.arange(0, BLOCK)
        weight = _weight(weight_ptr, i, size) * scale
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
    A, B, s, tight_rows, tight_cols = _sides(a_ptr, b_ptr, mass_ptr, problem, n, m, PARTIAL, SLACK, I, J)
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


def _sizes(n: int, m: int) -> dict[str, int]:
    columns = power_of_2(m, 256)
    return {"I": power_of_2(n, TILE // columns), "J": columns, "num_warps": 4}


def _slack(dtype: torch.dtype) -> float:
    return 1e-12 if dtype == torch.float64 else 1e-6


def _constants(like: Tensor, *values: float) -> Tensor:
    """Numbers in float64, which a launch would pass in float32; made on the device, for a graph may not copy them from the host."""
    x = like.new_empty(len(values), dtype=torch.float64)
    for i, value in enumerate(values):
        x[i : i + 1].fill_(value)
    return x


def sinkhorn(
    cost: Tensor, a: Tensor, b: Tensor, mass: Tensor | None, f0: Tensor | None, g0: Tensor | None, eps: float, max_iter: int, tol: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    name = "sinkhorn"
    _check(name, cost, a, b, mass)
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
        _forward, B, cost, a, b, mass_or, f0_or, g0_or, plan, f, g, h, error, iterations, converged, workspace, _constants(cost, eps, tol),
        n, m, max_iter, PARTIAL=mass is not None, WARM=f0 is not None, SLACK=_slack(cost.dtype), **_sizes(n, m),
    )  # fmt: skip
    return plan, f, g, h, error, iterations, converged


def _check(name: str, matrix: Tensor, a: Tensor, b: Tensor, mass: Tensor | None) -> None:
    check(matrix.dim() == 3 and min(matrix.shape[1:]) > 0, f"{name}: expected matrices (B, n, m) with n, m >= 1")
    B, n, m = matrix.shape
    check(a.shape == (B, n) and b.shape == (B, m), f"{name}: expected weights of shapes (B, n) and (B, m)")
    check(mass is None or mass.shape == (B,), f"{name}: expected mass of shape (B)")
    check(a.dtype == b.dtype == matrix.dtype and (mass is None or mass.dtype == matrix.dtype), f"{name}: expected one dtype")


@triton.jit
def _tile(ptr, i, j, n, m):
    at = i[:, None].to(tl.int64) * m + j[None, :]
    return tl.load(ptr + at, mask=(i < n)[:, None] & (j < m)[None, :], other=0.0).to(tl.float64)


@triton.jit
def _row_products(P, over_r_ptr, r_ptr, p_ptr, z_ptr, p_rho, n, m, I: tl.constexpr, J: tl.constexpr):
    """z = (P p + r p_rho) / r on the active rows, and r'z."""
    along = tl.zeros([I], tl.float64)
    for row in range(0, n, I):
        i = row + tl.arange(0, I)
        total = tl.zeros([I], tl.float64)
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            total += tl.sum(_tile(P, i, j, n, m) * _weight(p_ptr, j, m)[None, :], 1)
        r = _weight(r_ptr, i, n)
        z = _weight(over_r_ptr, i, n) * (total + r * p_rho)
        tl.store(z_ptr + i, z, mask=i < n)
        along += r * z
    return tl.sum(along, 0)


@triton.jit(do_not_specialize=["n", "m", "most"])
def _backward(
    H_ptr, P, a_ptr, b_ptr, mass_ptr, f_ptr, g_ptr, grad_cost_ptr, grad_a_ptr, grad_b_ptr, grad_mass_ptr, workspace_ptr, constants_ptr,
    n, m, most, PARTIAL: tl.constexpr, SLACK: tl.constexpr, I: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = P.dtype.element_ty
    TINY: tl.constexpr = 1e-14  # keeps apart what no entry above rounding connects
    problem = tl.program_id(0).to(tl.int64)
    per_eps, tolerance = 1.0 / tl.load(constants_ptr), tl.load(constants_ptr + 1)
    H_ptr += problem * n * m
    P += problem * n * m
    grad_cost_ptr += problem * n * m
    a_ptr += problem * n
    f_ptr += problem * n
    grad_a_ptr += problem * n
    b_ptr += problem * m
    g_ptr += problem * m
    grad_b_ptr += problem * m
    r_ptr = workspace_ptr + problem * (4 * n + 6 * m)                                        # P1
    over_r_ptr, h_ptr, z_ptr = r_ptr + n, r_ptr + 2 * n, r_ptr + 3 * n                       # 1 / r on the active rows; H1; a product
    c_ptr = r_ptr + 4 * n                                                                    # P'1 on the active columns
    d_ptr, x_ptr, p_ptr = c_ptr + m, c_ptr + 2 * m, c_ptr + 3 * m                            # diagonal; mu; direction
    res_ptr, y_ptr = c_ptr + 4 * m, c_ptr + 5 * m                                            # residual; a product
    A, B, s, tight_rows, tight_cols = _sides(a_ptr, b_ptr, mass_ptr, problem, n, m, PARTIAL, SLACK, I, J)
    neither, balanced = (tight_rows | tight_cols) == 0, (tight_rows & tight_cols) > 0

    total, res_rho, d_rho = tl.zeros([I], tl.float64), tl.zeros([I], tl.float64), tl.zeros([I], tl.float64)
    for row in range(0, n, I):
        i = row + tl.arange(0, I)
        r, h = tl.zeros([I], tl.float64), tl.zeros([I], tl.float64)
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            r += tl.sum(_tile(P, i, j, n, m), 1)
            h += tl.sum(_tile(H_ptr, i, j, n, m), 1)
        active = (_weight(a_ptr, i, n) > 0) & ((tight_rows > 0) | (_weight(f_ptr, i, n) < 0)) & (r > 0)
        tl.store(r_ptr + i, r, mask=i < n)
        tl.store(h_ptr + i, h, mask=i < n)
        tl.store(over_r_ptr + i, tl.where(active, 1.0 / tl.where(active, r, 1.0), 0.0), mask=i < n)
        total += r
        res_rho += tl.where(active, 0.0, h)
        d_rho += tl.where(active, 0.0, r)
    whole = tl.sum(total, 0)
    res_rho = tl.where(neither, tl.sum(res_rho, 0), 0.0)
    d_rho = tl.where(neither, tl.sum(d_rho, 0) + TINY * whole, 1.0)
    tl.debug_barrier()
    excess = tl.zeros([J], tl.float64)
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        c, d, right = tl.zeros([J], tl.float64), tl.zeros([J], tl.float64), tl.zeros([J], tl.float64)
        for row in range(0, n, I):
            i = row + tl.arange(0, I)
            tile, over_r = _tile(P, i, j, n, m), _weight(over_r_ptr, i, n)
            c += tl.sum(tile, 0)
            d += tl.sum(tile * tile * over_r[:, None], 0)
            right += tl.sum(_tile(H_ptr, i, j, n, m) - tile * (over_r * _weight(h_ptr, i, n))[:, None], 0)
        active = (_weight(b_ptr, j, m) > 0) & ((tight_cols > 0) | (_weight(g_ptr, j, m) < 0)) & (c > 0)
        c, right = tl.where(active, c, 0.0), tl.where(active, right, 0.0)
        tl.store(c_ptr + j, c, mask=j < m)
        tl.store(d_ptr + j, tl.where(active, tl.where(d < c, c - d, 0.0) + TINY * c, 1.0), mask=j < m)
        tl.store(res_ptr + j, right, mask=j < m)
        excess += right
    # Balanced it is 0 but for rounding, which the constant in the system's kernel would multiply.
    excess = tl.where(balanced, tl.sum(excess, 0) / whole, 0.0)
    tl.debug_barrier()
    norm = tl.zeros([J], tl.float64)
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        right, d = _weight(res_ptr, j, m) - excess * _weight(c_ptr, j, m), tl.load(d_ptr + j, mask=j < m, other=1.0)
        tl.store(res_ptr + j, right, mask=j < m)
        tl.store(p_ptr + j, right / d, mask=j < m)
        tl.store(x_ptr + j, tl.zeros([J], tl.float64), mask=j < m)
        norm += right * right / d
    z2 = tl.sum(norm, 0) + res_rho * res_rho / d_rho
    p_rho, rho = res_rho / d_rho, res_rho * 0.0
    enough = tolerance * tolerance * z2
    step = 0
    going = z2 > enough
    while going:
        tl.debug_barrier()
        rows_rho = _row_products(P, over_r_ptr, r_ptr, p_ptr, z_ptr, p_rho, n, m, I, J)
        tl.debug_barrier()
        bend, cols_rho = tl.zeros([J], tl.float64), tl.zeros([J], tl.float64)
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            product = tl.zeros([J], tl.float64)
            for row in range(0, n, I):
                i = row + tl.arange(0, I)
                product += tl.sum(_tile(P, i, j, n, m) * _weight(z_ptr, i, n)[:, None], 0)
            c, p = _weight(c_ptr, j, m), _weight(p_ptr, j, m)
            product = tl.where(c > 0, c * ((1.0 + TINY) * p + p_rho) - product, 0.0)
            tl.store(y_ptr + j, product, mask=j < m)
            bend += p * product
            cols_rho += c * p
        y_rho = tl.where(neither, (1.0 + TINY) * whole * p_rho + tl.sum(cols_rho, 0) - rows_rho, 0.0)
        curvature = tl.sum(bend, 0) + p_rho * y_rho
        bends = curvature > 0
        along = tl.where(bends, z2 / tl.where(bends, curvature, 1.0), 0.0)
        tl.debug_barrier()
        norm = tl.zeros([J], tl.float64)
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            rest = _weight(res_ptr, j, m) - along * _weight(y_ptr, j, m)
            tl.store(x_ptr + j, _weight(x_ptr, j, m) + along * _weight(p_ptr, j, m), mask=j < m)
            tl.store(res_ptr + j, rest, mask=j < m)
            norm += rest * rest / tl.load(d_ptr + j, mask=j < m, other=1.0)
        rho += along * p_rho
        res_rho -= along * y_rho
        next_z2 = tl.sum(norm, 0) + res_rho * res_rho / d_rho
        back = next_z2 / z2
        z2 = next_z2
        tl.debug_barrier()
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            p = _weight(res_ptr, j, m) / tl.load(d_ptr + j, mask=j < m, other=1.0) + back * _weight(p_ptr, j, m)
            tl.store(p_ptr + j, p, mask=j < m)
        p_rho = res_rho / d_rho + back * p_rho
        step += 1
        going = bends & (z2 > enough) & (step < most)

    tl.debug_barrier()
    shift = tl.zeros([J], tl.float64)
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        shift += _weight(c_ptr, j, m) * _weight(x_ptr, j, m)
    shift = tl.where(balanced, tl.sum(shift, 0) / whole, 0.0)                                # the solution with c'mu = 0
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        x = tl.where(_weight(c_ptr, j, m) > 0, _weight(x_ptr, j, m) - shift, 0.0)
        tl.store(y_ptr + j, x, mask=j < m)
        tl.store(grad_b_ptr + j, x.to(T), mask=j < m)
    tl.debug_barrier()
    for row in range(0, n, I):
        i = row + tl.arange(0, I)
        dot = tl.zeros([I], tl.float64)
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            dot += tl.sum(_tile(P, i, j, n, m) * _weight(y_ptr, j, m)[None, :], 1)
        lam = _weight(over_r_ptr, i, n) * (_weight(h_ptr, i, n) - dot - _weight(r_ptr, i, n) * rho)
        tl.store(grad_a_ptr + i, lam.to(T), mask=i < n)
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            grad = _tile(P, i, j, n, m) * (lam[:, None] + _weight(y_ptr, j, m)[None, :] + rho) - _tile(H_ptr, i, j, n, m)
            at = i[:, None].to(tl.int64) * m + j[None, :]
            tl.store(grad_cost_ptr + at, (grad * per_eps).to(T), mask=(i < n)[:, None] & (j < m)[None, :])
    tl.store(grad_mass_ptr + problem, rho.to(T))


def sinkhorn_backward(
    grad_log_plan: Tensor, plan: Tensor, a: Tensor, b: Tensor, mass: Tensor | None, f: Tensor, g: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    name = "sinkhorn_backward"
    _check(name, plan, a, b, mass)
    _check(name, grad_log_plan, f, g, mass)
    check(grad_log_plan.shape == plan.shape and grad_log_plan.dtype == plan.dtype, f"{name}: expected a gradient like the plan")
    B, n, m = plan.shape
    H, plan, a, b, f, g = (x.contiguous() for x in (grad_log_plan, plan, a, b, f, g))
    mass_or = a if mass is None else mass.contiguous()
    grad_cost, grad_a, grad_b, grad_mass = torch.empty_like(plan), torch.empty_like(a), torch.empty_like(b), plan.new_empty(B)
    workspace = plan.new_empty(B, 4 * n + 6 * m, dtype=torch.float64)
    constants = _constants(plan, eps, 1e-13 if plan.dtype == torch.float64 else 1e-9)
    launch(
        _backward, B, H, plan, a, b, mass_or, f, g, grad_cost, grad_a, grad_b, grad_mass, workspace, constants,
        n, m, 4 * min(n, m) + 100, PARTIAL=mass is not None, SLACK=_slack(plan.dtype), **_sizes(n, m),
    )  # fmt: skip
    return grad_cost, grad_a, grad_b, grad_mass
