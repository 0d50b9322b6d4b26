"""Entropic transport in plain PyTorch, in the log domain and float64: the definition that the kernels are tested against;
csrc/sinkhorn.h has the arrays, the forms and the formulas."""

import torch
from torch import Tensor

from .._checks import values_are_free
from .._linalg import solve


def sinkhorn(
    cost: Tensor, a: Tensor, b: Tensor, mass: Tensor | None, f0: Tensor | None, g0: Tensor | None, eps: float, max_iter: int, tol: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    a, b, s, tight_rows, tight_cols = targets(cost.dtype, a, b, mass)
    M = -(cost.double() / eps).masked_fill((a <= 0)[:, :, None] | (b <= 0)[:, None], 0)      # (B, n, m), log K
    neither = ~(tight_rows | tight_cols)                                                     # (B, 1)
    log_a, log_b, log_s = a.log(), b.log(), s.log()
    given = lambda x0, w: torch.zeros_like(w) if x0 is None else torch.nan_to_num(x0.double() / eps, 0, 0, 0)  # noqa: E731
    start = lambda x0, w: given(x0, w).masked_fill(w <= 0, -torch.inf)  # noqa: E731
    clip = lambda x, tight: torch.where(tight, x, x.clamp(max=0))  # noqa: E731
    f, g = clip(start(f0, a), tight_rows), clip(start(g0, b), tight_cols)                    # potentials over eps from here on
    scale = lambda f, g: torch.where(neither, log_s - (M + f[:, :, None] + g[:, None]).logsumexp((1, 2))[:, None], 0)  # noqa: E731
    h = scale(f, g)                                                                          # (B, 1)

    def plan_and_error(f: Tensor, g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        P = (M + f[:, :, None] + g[:, None] + h[:, None]).exp()
        row, col = P.sum(2), P.sum(1)
        moved = lambda sums, w, x: torch.minimum(w, torch.where(w > 0, sums * (-x).exp(), 0))  # noqa: E731
        miss = lambda sums, w, x, tight: (sums - torch.where(tight, w, moved(sums, w, x))).abs()  # noqa: E731
        error = miss(row, a, f, tight_rows).sum(1) + miss(col, b, g, tight_cols).sum(1)
        return P, error + torch.where(neither[:, 0], (row.sum(1) - s[:, 0]).abs(), 0)

    P, error = plan_and_error(f, g, h)
    iterations = torch.zeros(len(cost), dtype=torch.int32, device=cost.device)
    for _ in range(max_iter):
        going = error > tol * s[:, 0]
        if values_are_free(going) and not bool(going.any()):
            break
        keep = lambda new, old: torch.where(going[:, None], new, old)  # noqa: B023, E731
        f = keep(clip(log_a - (M + g[:, None]).logsumexp(2) - h, tight_rows), f)
        g = keep(clip(log_b - (M + f[:, :, None]).logsumexp(1) - h, tight_cols), g)
        h = keep(scale(f, g), h)
        P, error = plan_and_error(f, g, h)
        iterations += going
    # Balanced, a constant moves freely between f and g: <f, a> = <g, b>.
    dot = lambda w, x: (w * x.masked_fill(w <= 0, 0)).sum(1, keepdim=True)  # noqa: E731
    c = torch.where(tight_rows & tight_cols, (dot(b, g) - dot(a, f)) / (2 * s), 0)
    nan = error - error                                                                      # a NaN anywhere is one everywhere
    potentials = ((x * eps).to(cost.dtype) for x in (f + c + nan[:, None], g - c + nan[:, None], h[:, 0] + nan))
    return (P + nan[:, None, None]).to(cost.dtype), *potentials, error.to(cost.dtype), iterations, error <= tol * s[:, 0]


def targets(dtype: torch.dtype, a: Tensor, b: Tensor, mass: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """a, b and the mass (B, 1) as they count, in float64, and which sides are tight (B, 1)."""
    a, b = a.double(), b.double()
    A, B = a.sum(1, keepdim=True), b.sum(1, keepdim=True)
    if mass is None:
        return a, b * (A / B), A, torch.ones_like(A, dtype=torch.bool), torch.ones_like(A, dtype=torch.bool)
    slack = 1e-12 if dtype == torch.float64 else 1e-6
    s = mass.double()[:, None]
    tight_rows, tight_cols = s >= (1 - slack) * A, s >= (1 - slack) * B
    s = torch.where(tight_rows, A, torch.where(tight_cols, B, s))
    return a, torch.where(tight_rows & tight_cols, b * (A / B), b), s, tight_rows, tight_cols


def sinkhorn_backward(
    grad_log_plan: Tensor, plan: Tensor, a: Tensor, b: Tensor, mass: Tensor | None, f: Tensor, g: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    P, H = plan.double(), grad_log_plan.double()
    _, _, _, tight_rows, tight_cols = targets(plan.dtype, a, b, mass)
    neither = (~(tight_rows | tight_cols)).double()                                          # (B, 1)
    rows, cols = ((w > 0) & (tight | (x < 0)) for w, tight, x in ((a, tight_rows, f), (b, tight_cols, g)))
    r, c, s = P.sum(2), P.sum(1), P.sum((1, 2))[:, None]
    over_r = torch.where(rows & (r > 0), 1 / r, 0)                                           # (B, n), 0 off the active rows

    # Columns J and one more for rho, whose entry in row i is r_i; lam eliminated. What is not active has a 1 on the diagonal.
    Q = torch.cat([P * cols[:, None], (r * neither)[..., None]], 2)                          # (B, n, m + 1)
    diagonal = torch.diag_embed(torch.cat([torch.where(cols, c, 1), torch.where(neither > 0, s, 1)], 1))
    S = diagonal - Q.mT @ (over_r[..., None] * Q)
    edge = c * cols * neither                                                                # (B, m)
    S[:, :-1, -1] += edge
    S[:, -1, :-1] += edge
    # Balanced, the constant is in the kernel: c c' / s takes it out without moving the solution, which has c'mu = 0.
    free = c * (tight_rows & tight_cols)
    S[:, :-1, :-1] += free[:, :, None] * free[:, None] / s[..., None]
    S += 1e-14 * diagonal                                                                    # parts that no entry above rounding connects
    right = torch.cat([H.sum(1) * cols, H.sum((1, 2))[:, None] * neither], 1)
    right = right - (Q.mT @ (over_r * H.sum(2))[..., None])[..., 0]
    x = solve(S, right[..., None])[..., 0]
    mu, rho = x[:, :-1] * cols, x[:, -1:] * neither
    lam = over_r * (H.sum(2) - (P @ mu[..., None])[..., 0] - r * rho)
    grad_cost = (P * (lam[:, :, None] + mu[:, None] + rho[..., None]) - H) / eps
    return grad_cost.to(plan.dtype), lam.to(plan.dtype), mu.to(plan.dtype), rho[:, 0].to(plan.dtype)
