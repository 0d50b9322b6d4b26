"""The backward of sinkhorn: conjugate gradients in float64, two passes over the plan a product."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, launch
from ._sinkhorn_sides import check_problem, constants, sides, sizes, slack, weight_of


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
            total += tl.sum(_tile(P, i, j, n, m) * weight_of(p_ptr, j, m)[None, :], 1)
        r = weight_of(r_ptr, i, n)
        z = weight_of(over_r_ptr, i, n) * (total + r * p_rho)
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
    A, B, s, tight_rows, tight_cols = sides(a_ptr, b_ptr, mass_ptr, problem, n, m, PARTIAL, SLACK, I, J)
    neither, balanced = (tight_rows | tight_cols) == 0, (tight_rows & tight_cols) > 0

    total, res_rho, d_rho = tl.zeros([I], tl.float64), tl.zeros([I], tl.float64), tl.zeros([I], tl.float64)
    for row in range(0, n, I):
        i = row + tl.arange(0, I)
        r, h = tl.zeros([I, J], tl.float64), tl.zeros([I, J], tl.float64)  # Triton 3.6 cannot compile sums that are added up, here
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            r += _tile(P, i, j, n, m)
            h += _tile(H_ptr, i, j, n, m)
        r, h = tl.sum(r, 1), tl.sum(h, 1)
        active = (weight_of(a_ptr, i, n) > 0) & ((tight_rows > 0) | (weight_of(f_ptr, i, n) < 0)) & (r > 0)
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
            tile, over_r = _tile(P, i, j, n, m), weight_of(over_r_ptr, i, n)
            c += tl.sum(tile, 0)
            d += tl.sum(tile * tile * over_r[:, None], 0)
            right += tl.sum(_tile(H_ptr, i, j, n, m) - tile * (over_r * weight_of(h_ptr, i, n))[:, None], 0)
        active = (weight_of(b_ptr, j, m) > 0) & ((tight_cols > 0) | (weight_of(g_ptr, j, m) < 0)) & (c > 0)
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
        right, d = weight_of(res_ptr, j, m) - excess * weight_of(c_ptr, j, m), tl.load(d_ptr + j, mask=j < m, other=1.0)
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
                product += tl.sum(_tile(P, i, j, n, m) * weight_of(z_ptr, i, n)[:, None], 0)
            c, p = weight_of(c_ptr, j, m), weight_of(p_ptr, j, m)
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
            rest = weight_of(res_ptr, j, m) - along * weight_of(y_ptr, j, m)
            tl.store(x_ptr + j, weight_of(x_ptr, j, m) + along * weight_of(p_ptr, j, m), mask=j < m)
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
            p = weight_of(res_ptr, j, m) / tl.load(d_ptr + j, mask=j < m, other=1.0) + back * weight_of(p_ptr, j, m)
            tl.store(p_ptr + j, p, mask=j < m)
        p_rho = res_rho / d_rho + back * p_rho
        step += 1
        going = bends & (z2 > enough) & (step < most)

    tl.debug_barrier()
    shift = tl.zeros([J], tl.float64)
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        shift += weight_of(c_ptr, j, m) * weight_of(x_ptr, j, m)
    shift = tl.where(balanced, tl.sum(shift, 0) / whole, 0.0)                                # the solution with c'mu = 0
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        x = tl.where(weight_of(c_ptr, j, m) > 0, weight_of(x_ptr, j, m) - shift, 0.0)
        tl.store(y_ptr + j, x, mask=j < m)
        tl.store(grad_b_ptr + j, x.to(T), mask=j < m)
    tl.debug_barrier()
    for row in range(0, n, I):
        i = row + tl.arange(0, I)
        dot = tl.zeros([I], tl.float64)
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            dot += tl.sum(_tile(P, i, j, n, m) * weight_of(y_ptr, j, m)[None, :], 1)
        lam = weight_of(over_r_ptr, i, n) * (weight_of(h_ptr, i, n) - dot - weight_of(r_ptr, i, n) * rho)
        tl.store(grad_a_ptr + i, lam.to(T), mask=i < n)
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            grad = _tile(P, i, j, n, m) * (lam[:, None] + weight_of(y_ptr, j, m)[None, :] + rho) - _tile(H_ptr, i, j, n, m)
            at = i[:, None].to(tl.int64) * m + j[None, :]
            tl.store(grad_cost_ptr + at, (grad * per_eps).to(T), mask=(i < n)[:, None] & (j < m)[None, :])
    tl.store(grad_mass_ptr + problem, rho.to(T))


def sinkhorn_backward(
    grad_log_plan: Tensor, plan: Tensor, a: Tensor, b: Tensor, mass: Tensor | None, f: Tensor, g: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    name = "sinkhorn_backward"
    check_problem(name, plan, a, b, mass)
    check_problem(name, grad_log_plan, f, g, mass)
    check(grad_log_plan.shape == plan.shape and grad_log_plan.dtype == plan.dtype, f"{name}: expected a gradient like the plan")
    B, n, m = plan.shape
    H, plan, a, b, f, g = (x.contiguous() for x in (grad_log_plan, plan, a, b, f, g))
    mass_or = a if mass is None else mass.contiguous()
    grad_cost, grad_a, grad_b, grad_mass = torch.empty_like(plan), torch.empty_like(a), torch.empty_like(b), plan.new_empty(B)
    workspace = plan.new_empty(B, 4 * n + 6 * m, dtype=torch.float64)
    numbers = constants(plan, eps, 1e-13 if plan.dtype == torch.float64 else 1e-9)
    launch(
        _backward, B, H, plan, a, b, mass_or, f, g, grad_cost, grad_a, grad_b, grad_mass, workspace, numbers,
        n, m, 4 * min(n, m) + 100, PARTIAL=mass is not None, SLACK=slack(plan.dtype), **sizes(n, m),
    )  # fmt: skip
    return grad_cost, grad_a, grad_b, grad_mass
