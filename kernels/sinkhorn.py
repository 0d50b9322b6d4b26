"""Entropic transport; csrc/sinkhorn.h has the arrays, the forms and the formulas. A program a problem, of any size.

The state is potentials over eps, F, G and H, in float64. K, in the plan's place, is exp(F1_i + G1_j + H1 - C_ij / eps) / (a_i b_j) of the
potentials F1, G1, H1 when it was built, so that u = a exp(F - F1) and v = b exp(G - G1 + H - H1) make the plan u K v. An iteration is a
pass over K for F and one for the columns' sums, which tell the error and the next G. When a potential has moved so far that what
underflowed in K might count, or sums overflow, both are updated in the log domain, which nothing can overflow, and K is built anew. Updates
of G are accelerated (_sinkhorn_mixing.py). Vectors lie in workspaces; a barrier stands between a pass that writes one and one that reads
it. The backward is in _sinkhorn_backward.py.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, launch
from ._sinkhorn_backward import sinkhorn_backward  # noqa: F401  the backward's launcher is found beside the forward's
from ._sinkhorn_mixing import GROWTH, KEPT, MOST_PATIENCE, PATIENCE, WORSE, coefficients, step
from ._sinkhorn_sides import check_problem, constants, sides, sizes, slack, weight_of

INFINITY = tl.constexpr(float("inf"))
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _potential(ptr, i, size):
    return tl.load(ptr + i, mask=i < size, other=-INFINITY)


@triton.jit
def _clip(x, tight):
    return tl.where((x > 0.0) & (tight == 0), 0.0, x)


@triton.jit
def _exp(x, T: tl.constexpr):
    """exp of a float64 of any size in T, to T's rounding: whole powers of 2 are exact."""
    x = tl.where(x < -2000.0, -2000.0, x) * LOG2_E
    whole = tl.floor(x)
    return tl.exp2((x - whole).to(T)) * tl.exp2(whole.to(T))


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
def _log_update(
    cost_ptr, own_ptr, weight_ptr, other_ptr, scale, H, moves, own_size, other_size, own_step, other_step, tight, per_eps,
    T: tl.constexpr, OWN: tl.constexpr, OTHER: tl.constexpr,
):  # fmt: skip
    """The potentials of one side from the other's, unless they are to stay; returns the log of the mass over exp(H)."""
    top_mass, mass = tl.full([1], -INFINITY, tl.float64), tl.full([1], 0.0, tl.float64)
    for first in range(0, own_size, OWN):
        i = first + tl.arange(0, OWN)
        weight = weight_of(weight_ptr, i, own_size) * scale
        live = weight > 0
        top, total = tl.full([OWN], -INFINITY, tl.float64), tl.full([OWN], 0.0, tl.float64)
        for second in range(0, other_size, OTHER):
            j = second + tl.arange(0, OTHER)
            y = _potential(other_ptr, j, other_size)
            at = (i.to(tl.int64) * own_step)[:, None] + (j.to(tl.int64) * other_step)[None, :]
            cost = tl.load(cost_ptr + at, mask=live[:, None] & (y > -INFINITY)[None, :], other=0.0)
            top, total = _add(top, total, y[None, :] - cost.to(tl.float64) * per_eps, 1, T)
        lse = _log_sum(top, total)
        x = _potential(own_ptr, i, own_size)
        if moves:
            x = tl.where(live, _clip(tl.log(tl.where(live, weight, 1.0)) - lse - H, tight), -INFINITY)
            tl.store(own_ptr + i, x, mask=i < own_size)
        top_mass, mass = _add(top_mass, mass, (x + lse)[None, :], 1, tl.float64)
    return tl.sum(_log_sum(top_mass, mass), 0)


@triton.jit
def _start(ptr, given_ptr, weight_ptr, size, tight, per_eps, GIVEN: tl.constexpr, BLOCK: tl.constexpr):
    for first in range(0, size, BLOCK):
        i = first + tl.arange(0, BLOCK)
        x = tl.full([BLOCK], 0.0, tl.float64)
        if GIVEN:
            x = weight_of(given_ptr, i, size) * per_eps
            x = _clip(tl.where(x - x == 0.0, x, 0.0), tight)
        tl.store(ptr + i, tl.where(weight_of(weight_ptr, i, size) > 0, x, -INFINITY), mask=i < size)


@triton.jit
def _build(
    cost_ptr, K_ptr, a_ptr, b_ptr, F, F1, u_ptr, G, G1, v_ptr, H, b_scale, n, m, per_eps,
    T: tl.constexpr, I: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        tl.store(G1 + j, _potential(G, j, m), mask=j < m)
        tl.store(v_ptr + j, weight_of(b_ptr, j, m) * b_scale, mask=j < m)
    for row in range(0, n, I):
        i = row + tl.arange(0, I)
        a, f = weight_of(a_ptr, i, n), _potential(F, i, n)
        tl.store(F1 + i, f, mask=i < n)
        tl.store(u_ptr + i, a, mask=i < n)
        f += H - tl.log(tl.where(a > 0, a, 1.0))
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            b = weight_of(b_ptr, j, m) * b_scale
            live = (a > 0)[:, None] & (b > 0)[None, :]
            at = i.to(tl.int64)[:, None] * m + j[None, :]
            cost = tl.load(cost_ptr + at, mask=live, other=0.0).to(tl.float64)
            x = f[:, None] + (_potential(G, j, m) - tl.log(tl.where(b > 0, b, 1.0)))[None, :] - cost * per_eps
            tl.store(K_ptr + at, tl.where(live, _exp(tl.where(live, x, 0.0), T), 0.0), mask=(i < n)[:, None] & (j < m)[None, :])


@triton.jit
def _sums(K_ptr, x_ptr, i, own_size, other_size, own_step, other_step, OWN: tl.constexpr, OTHER: tl.constexpr):
    """sum_j K_ij x_j in float64: where convergence is slow, float32 says nothing of where an update should lead."""
    own = K_ptr + i.to(tl.int64) * own_step
    total = tl.full([OWN], 0.0, tl.float64)
    for second in range(0, other_size, OTHER):
        j = second + tl.arange(0, OTHER)
        inside = (i < own_size)[:, None] & (j < other_size)[None, :]
        K = tl.load(own[:, None] + (j.to(tl.int64) * other_step)[None, :], mask=inside, other=0.0)
        total += tl.sum(K.to(tl.float64) * tl.load(x_ptr + j, mask=j < other_size, other=0.0)[None, :], 1)
    return total


@triton.jit
def _log_of(x):
    """Where a sum is 0, so little that the update goes out of range."""
    return tl.log(tl.where(x > 0.0, x, 1e-300))


@triton.jit
def _rows(K_ptr, a_ptr, F, F1, u_ptr, v_ptr, n, m, tight, limit, I: tl.constexpr, J: tl.constexpr):
    """The next F and u; 1 if one is out of range."""
    far = tl.full([I], 0, tl.int32)
    for row in range(0, n, I):
        i = row + tl.arange(0, I)
        a, f1 = weight_of(a_ptr, i, n), _potential(F1, i, n)
        f = _clip(f1 - _log_of(_sums(K_ptr, v_ptr, i, n, m, m, 1, I, J)), tight)
        move = tl.where(a > 0, f - f1, 0.0)
        far |= (tl.abs(move) > limit).to(tl.int32)
        tl.store(F + i, f, mask=i < n)
        tl.store(u_ptr + i, a * tl.exp(move), mask=i < n)
    return tl.max(far, 0)


@triton.jit
def _columns(
    K_ptr, b_ptr, G, G1, u_ptr, v_ptr, newest, H, H1, s, b_scale, m, n, tight, neither, limit,
    PARTIAL: tl.constexpr, I: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """By how much the next update changes G, and where it leads from G1; returns the error, the next H, and 1 if one is out of range."""
    far = tl.full([J], 0, tl.int32)
    error, mass, next_mass = tl.full([J], 0.0, tl.float64), tl.full([J], 0.0, tl.float64), tl.full([J], 0.0, tl.float64)
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        c = _sums(K_ptr, u_ptr, j, m, n, 1, m, J, I)
        b = weight_of(b_ptr, j, m) * b_scale
        g, g1 = tl.load(G + j, mask=b > 0, other=0.0), tl.load(G1 + j, mask=b > 0, other=0.0)
        total, goal = c * weight_of(v_ptr, j, m), b
        next_g = tl.where(b > 0, g1 + (H1 - H) - _log_of(c), 0.0)
        if PARTIAL:
            next_g = _clip(next_g, tight)
            mass += total
            next_mass += c * b * tl.exp(tl.where(next_g - g1 > limit, limit, next_g - g1))
            free = total * tl.exp(tl.minimum(-g, 700.0))
            goal = tl.where((tight == 0) & (free < b), free, b)
        error += tl.abs(total - goal)
        far |= (tl.abs(next_g - g1 + (H - H1)) > limit).to(tl.int32)
        tl.store(newest + j, next_g - g, mask=j < m)
        tl.store(newest + KEPT * (m + 1) + j, next_g - g1, mask=j < m)
    far, miss, next_H = tl.max(far, 0), tl.sum(error, 0), H
    if PARTIAL:
        next_H = tl.where(neither, H1 + tl.log(s) - _log_of(tl.sum(next_mass, 0)), 0.0)
        far |= (tl.abs(next_H - H1) > limit).to(tl.int32)
        miss += tl.where(neither, tl.abs(tl.sum(mass, 0) - s), 0.0)
    tl.store(newest + m, next_H - H)
    tl.store(newest + KEPT * (m + 1) + m, next_H - H1)
    return miss, next_H, far


@triton.jit
def _move(b_ptr, G, G1, v_ptr, history, newest, mixed, c, shift, b_scale, m, tight, J: tl.constexpr):
    """The next G and v, `shift` being H - H1."""
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        b = weight_of(b_ptr, j, m) * b_scale
        g1 = tl.load(G1 + j, mask=b > 0, other=0.0)
        move = tl.load(newest + KEPT * (m + 1) + j, mask=j < m, other=0.0)
        if mixed:
            move += step(history, newest, c, j, m + 1)
        g = g1 + move
        g = tl.where((g > 0.0) & (tight == 0), 0.0, g)
        tl.store(G + j, g, mask=b > 0)
        tl.store(v_ptr + j, b * tl.exp(g - g1 + shift), mask=j < m)


@triton.jit
def _weighted(ptr, weight_ptr, size, scale, BLOCK: tl.constexpr):
    total = tl.full([BLOCK], 0.0, tl.float64)
    for first in range(0, size, BLOCK):
        i = first + tl.arange(0, BLOCK)
        weight = weight_of(weight_ptr, i, size) * scale
        total += weight * tl.load(ptr + i, mask=weight > 0, other=0.0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["n", "m", "max_iter"])
def _forward(
    cost_ptr, a_ptr, b_ptr, mass_ptr, f0_ptr, g0_ptr, plan_ptr, f_ptr, g_ptr, h_ptr, error_ptr, iterations_ptr, converged_ptr,
    workspace_ptr, constants_ptr, n, m, max_iter,
    PARTIAL: tl.constexpr, WARM: tl.constexpr, SLACK: tl.constexpr, I: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = cost_ptr.dtype.element_ty
    problem = tl.program_id(0).to(tl.int64)
    eps, tol, limit = tl.load(constants_ptr), tl.load(constants_ptr + 1), tl.load(constants_ptr + 2)
    per_eps = 1.0 / eps
    cost_ptr += problem * n * m
    plan_ptr += problem * n * m
    a_ptr += problem * n
    f_ptr += problem * n
    f0_ptr += problem * n
    b_ptr += problem * m
    g_ptr += problem * m
    g0_ptr += problem * m
    F = workspace_ptr + problem * (3 * n + 3 * m + 2 * KEPT * (m + 1))
    F1, u, G = F + n, F + 2 * n, F + 3 * n
    G1, v, history = G + m, G + 2 * m, G + 3 * m                                             # history: (2, KEPT, m + 1)
    A, B, s, tight_rows, tight_cols = sides(a_ptr, b_ptr, mass_ptr, problem, n, m, PARTIAL, SLACK, I, J)
    neither, balanced = (tight_rows | tight_cols) == 0, (tight_rows & tight_cols) > 0
    b_scale = tl.where(balanced, A / B, 1.0)

    _start(F, f0_ptr, a_ptr, n, tight_rows, per_eps, WARM, I)
    _start(G, g0_ptr, b_ptr, m, tight_cols, per_eps, WARM, J)
    tl.debug_barrier()
    H, H1, next_H, error = s * 0.0, s * 0.0, s * 0.0, s * 0.0
    zero = tl.full([], 0, tl.int32)
    iterations, far, going = zero, zero + 1, zero + 1
    count, patience, coefficient = zero, zero + PATIENCE, tl.full([8], 0.0, tl.float64)
    last, lowest = s * 0.0 + INFINITY, s * 0.0 + INFINITY
    while going > 0:
        grew, newest = zero, history + count % KEPT * (m + 1)
        if far > 0:
            log_mass = _log_update(cost_ptr, G, b_ptr, F, b_scale, H, iterations > 0, m, n, 1, m, tight_cols, per_eps, T, J, I)
            if PARTIAL:
                H = tl.where(neither, tl.log(s) - log_mass, 0.0)
            tl.debug_barrier()
        else:
            mixed = ((count >= patience) & ((count - patience) % 2 == 0) & (iterations + 1 < max_iter)).to(tl.int32)
            if mixed > 0:
                coefficient, square = coefficients(history, newest, m + 1)
                grew = ((square > GROWTH * last) | (neither & (error > WORSE * lowest))).to(tl.int32)
                last = square
            H = next_H
            if PARTIAL:
                if (mixed > 0) & (grew == 0):
                    H += tl.sum(step(history, newest, coefficient, m + tl.arange(0, 1), m + 1), 0)
            _move(b_ptr, G, G1, v, history, newest, (mixed > 0) & (grew == 0), coefficient, H - H1, b_scale, m, tight_cols, J)
            tl.debug_barrier()
            far = _rows(plan_ptr, a_ptr, F, F1, u, v, n, m, tight_rows, limit, I, J)
        if far > 0:
            tl.debug_barrier()
            _log_update(cost_ptr, F, a_ptr, G, 1.0, H, True, n, m, m, 1, tight_rows, per_eps, T, I, J)
            tl.debug_barrier()
            _build(cost_ptr, plan_ptr, a_ptr, b_ptr, F, F1, u, G, G1, v, H, b_scale, n, m, per_eps, T, I, J)
            H1 = H
        restart = (far + grew) > 0
        patience = tl.where(restart & (count >= patience), tl.minimum(2 * patience, MOST_PATIENCE), patience)
        last, lowest = tl.where(restart, INFINITY, last), tl.where(restart, INFINITY, lowest)
        count = tl.where(restart, 0, count) + 1
        tl.debug_barrier()
        error, next_H, far = _columns(
            plan_ptr, b_ptr, G, G1, u, v, history + count % KEPT * (m + 1), H, H1, s, b_scale, m, n, tight_cols, neither, limit, PARTIAL,
            I, J,
        )  # fmt: skip
        tl.debug_barrier()
        lowest = tl.minimum(lowest, error)
        iterations += 1
        going = ((error > tol * s) & (iterations < max_iter)).to(tl.int32)

    bad = error - error                                                                      # a NaN anywhere is one everywhere
    shift = bad + tl.where(balanced, (_weighted(G, b_ptr, m, b_scale, J) - _weighted(F, a_ptr, n, 1.0, I)) / (2.0 * s), 0.0)
    for row in range(0, n, I):
        i = row + tl.arange(0, I)
        tl.store(f_ptr + i, ((_potential(F, i, n) + shift) * eps).to(T), mask=i < n)
        for first in range(0, m, J):
            j = first + tl.arange(0, J)
            at, inside = i.to(tl.int64)[:, None] * m + j[None, :], (i < n)[:, None] & (j < m)[None, :]
            K = tl.load(plan_ptr + at, mask=inside, other=0.0).to(tl.float64)
            x = weight_of(u, i, n)[:, None] * weight_of(v, j, m)[None, :] * K
            tl.store(plan_ptr + at, (x + bad).to(T), mask=inside)
    for first in range(0, m, J):
        j = first + tl.arange(0, J)
        tl.store(g_ptr + j, ((_potential(G, j, m) - shift) * eps).to(T), mask=j < m)
    tl.store(h_ptr + problem, ((H + bad) * eps).to(T))
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
    check(max_iter > 0, f"{name}: expected at least one iteration")
    B, n, m = cost.shape
    cost, a, b = cost.contiguous(), a.contiguous(), b.contiguous()
    mass_or, f0_or, g0_or = (y if x is None else x.contiguous() for x, y in ((mass, a), (f0, a), (g0, b)))
    plan, f, g, h, error = torch.empty_like(cost), torch.empty_like(a), torch.empty_like(b), cost.new_empty(B), cost.new_empty(B)
    iterations, converged = cost.new_empty(B, dtype=torch.int32), cost.new_empty(B, dtype=torch.bool)
    workspace = cost.new_empty(B, 3 * n + 3 * m + 2 * KEPT.value * (m + 1), dtype=torch.float64)
    numbers = constants(cost, eps, tol, 20.0 if cost.dtype == torch.float32 else 200.0)
    launch(
        _forward, B, cost, a, b, mass_or, f0_or, g0_or, plan, f, g, h, error, iterations, converged, workspace, numbers,
        n, m, max_iter, PARTIAL=mass is not None, WARM=f0 is not None, SLACK=slack(cost.dtype), **sizes(n, m),
    )  # fmt: skip
    return plan, f, g, h, error, iterations, converged
