"""Entropic transport of a global batch whose rows are spread over the ranks of a process group."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .._checks import check_floating, check_min_dim, check_values, compute_dtype, values_are_free
from ._anderson import Anderson
from .sinkhorn import SAME_MASS, SinkhornResult, summary, warn_unless_converged


def sinkhorn_sharded(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    eps: float,
    max_iter: int = 1000,
    tol: float = 1e-6,
    group: dist.ProcessGroup | None = None,
) -> SinkhornResult:
    r"""`sinkhorn` of the cost whose rows are those of all ranks of `group`, each of which holds its own.

    One all-reduce of a column vector an iteration, and of its backward; all ranks stop together. Iterations are in float64 and accelerated
    by Anderson's method, on the columns, which all ranks hold, so that it sends nothing. On a GPU, where nothing is read back, all
    `max_iter` are taken.

    Args:
        cost: this rank's rows of C, (..., n_rank, m), m and the batch dimensions equal on all ranks; n_rank may differ.
        a: this rank's weights, (..., n_rank). Default 1/n with n the rows of all ranks.
        b: the weights of the columns, (..., m), the same on all ranks. Default 1/m.
        eps, max_iter, tol: as in `sinkhorn`.
        group: the process group; None for the default one.

    Returns:
        A `SinkhornResult` with this rank's rows of `plan` and `f`; all else is of the whole problem and equal on all ranks. Differentiable
        as `sinkhorn`: every rank takes part in a backward through `plan` or `transport_cost`. Losses in a rank's rows of `plan` count as
        summed over the ranks, one in `value` or `transport_cost` as one.

    Raises, Warns:
        As `sinkhorn`.
    """
    name = "sinkhorn_sharded"
    dtype = check_floating(name, cost=cost, a=a, b=b)
    check_min_dim(name, cost=(cost, 2))
    n, m = cost.shape[-2:]
    if m == 0:
        raise ValueError(f"{name}: cost: expected at least one column, got shape {tuple(cost.shape)}")
    if not (isinstance(eps, (int, float)) and 0 < eps < float("inf")):
        raise ValueError(f"{name}: eps: expected a finite number > 0, got {eps!r}")
    if not (isinstance(max_iter, int) and max_iter >= 1):
        raise ValueError(f"{name}: max_iter: expected an integer >= 1, got {max_iter!r}")
    if not (isinstance(tol, (int, float)) and tol >= 0):
        raise ValueError(f"{name}: tol: expected a number >= 0, got {tol!r}")
    compute, batch = compute_dtype(dtype), cost.shape[:-2]
    rows = _sum(torch.tensor(float(n), dtype=torch.float64, device=cost.device), group)
    if a is None:
        a = (torch.ones(n, dtype=torch.float64, device=cost.device) / rows).to(compute)
    if b is None:
        b = cost.new_full((m,), 1 / m, dtype=compute)
    for label, w, size in (("a", a, n), ("b", b, m)):
        if w.shape[-1:] != (size,) or len(w.shape) > len(batch) + 1:
            raise ValueError(f"{name}: {label}: expected shape (..., {size}) for cost of shape {tuple(cost.shape)}, got {tuple(w.shape)}")
        check_values(name, label, w, lambda w: (w >= 0) & w.isfinite(), "finite weights >= 0")
    a, b = (w.to(compute).expand(*batch, w.shape[-1]).reshape(batch.numel(), w.shape[-1]) for w in (a, b))
    sums = _sum(a.detach().sum(1, dtype=torch.float64), group)
    same = SAME_MASS.get(dtype, 2e-2)
    check_values(name, "a, b", sums / b.detach().sum(1, dtype=torch.float64), lambda x: (x - 1).abs() <= same, "sums of ratio 1")

    C, tol = cost.to(compute).reshape(batch.numel(), n, m), max(tol, 8 * torch.finfo(compute).eps)
    P, f, g, error, iterations, converged = _Plan.apply(C, a, b, float(eps), max_iter, tol, group)
    warn_unless_converged(name, converged, error, max_iter)
    zero = torch.zeros_like(error)
    own, paid = summary(C, a, b, None, P, f, g, zero, float(eps))
    columns = (g.masked_fill(b <= 0, 0) * b).sum(1).detach()
    everyone = _sum(torch.stack([own.detach() - columns, paid.detach()]), group)
    value, transport_cost = everyone[0] + columns + (own - own.detach()), everyone[1] + (paid - paid.detach())
    shaped = lambda x: x.reshape((*batch, *x.shape[1:])).to(dtype if x.is_floating_point() else x.dtype)  # noqa: E731
    return SinkhornResult(*map(shaped, (P, f, g, value, transport_cost, error, iterations, converged, zero)))


def _sum(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    x = x.contiguous()
    dist.all_reduce(x, group=group)
    return x


class _Plan(torch.autograd.Function):
    """Kernel-domain iterations in float64, since near permutations a few large entries hide the rest, which decides; K is formed anew after
    1, 2, 4, ... of them, which no rank has to ask for."""

    @staticmethod
    def forward(ctx: Any, C: Tensor, a: Tensor, b: Tensor, eps: float, max_iter: int, tol: float, group: Any) -> tuple[Tensor, ...]:
        dtype, (C, a, b) = C.dtype, (x.double() for x in (C, a, b))
        off = (a <= 0)[:, :, None] | (b <= 0)[:, None]
        total = _sum(a.sum(1, keepdim=True), group)                                          # (B, 1)
        b = b * (total / b.sum(1, keepdim=True))
        over = lambda x, y: torch.where(x > 0, x / y, 0)  # noqa: E731
        finite = lambda x: torch.where(x.isfinite(), x, 0)  # noqa: E731
        shifted = C.masked_fill(off, torch.inf)
        f = finite(shifted.amin(2)) if C.shape[1] else a                                     # (B, n)
        g = (shifted - f[:, :, None]).amin(1) if C.shape[1] else torch.full_like(b, torch.inf)
        dist.all_reduce(g, dist.ReduceOp.MIN, group=group)
        g = finite(g)                                                                        # (B, m)
        kernel = lambda: ((f[:, :, None] + g[:, None] - C) / eps).exp().masked_fill(off, 0)  # noqa: E731
        log = lambda x: torch.where(x <= 0, 1, x).log()  # noqa: E731

        K, u, v = kernel(), (a > 0).to(a.dtype), (b > 0).to(b.dtype)
        error = torch.full_like(total, torch.inf)
        iterations = torch.zeros_like(total, dtype=torch.int32)
        rows = _sum((a > 0).sum(1, keepdim=True), group)
        anderson = Anderson(b, torch.minimum(rows, (b > 0).sum(1, keepdim=True)) - 1)
        for k in range(1, max_iter + 1):
            going = error > 0.5 * tol * total
            u_next = over(a, (K @ v[:, :, None])[:, :, 0])
            # The one vector, and how many ranks have not done: they all have to stop at once, though their roundings may differ.
            sums = _sum(torch.cat([(u_next[:, None] @ K)[:, 0], going.to(a.dtype)], 1), group)
            sums, anyone = sums[:, :-1], sums[:, -1:]                                        # (B, m), (B, 1)
            if values_are_free(going) and not bool(anyone.any()):
                break
            going = anyone > 0
            v_next = over(b, sums)
            error = torch.where(going, ((v - v_next).abs() * sums).sum(1, keepdim=True), error)
            step = log(v_next) - log(v)
            further = going & (error > 0.5 * tol * total)  # it ends with a plain update
            if k < max_iter:
                move = torch.where(further, anderson.move(log(v_next), step, error), 0)
                v_next = v_next * move.exp()
            u, v = torch.where(going, u_next, u), torch.where(going, v_next, v)
            iterations += going
            if k & (k - 1) == 0:
                f, g = f + eps * log(u), g + eps * log(v)
                anderson.moved(log(v))
                K, u, v = kernel(), (a > 0).to(a.dtype), (b > 0).to(b.dtype)
        P = u[:, :, None] * K * v[:, None]
        miss = (P.sum(2) - a).abs().sum(1)
        apart = _sum(torch.cat([P.sum(1), miss[:, None]], 1), group)
        error = apart[:, -1] + (apart[:, :-1] - b).abs().sum(1)
        f, g = (f + eps * log(u)).masked_fill(a <= 0, -torch.inf), (g + eps * log(v)).masked_fill(b <= 0, -torch.inf)
        dots = _sum((f.masked_fill(a <= 0, 0) * a).sum(1, keepdim=True), group)
        shift = ((g.masked_fill(b <= 0, 0) * b).sum(1, keepdim=True) - dots) / (2 * total)
        converged = error <= tol * total[:, 0]
        P, f, g, error, a, b = (x.to(dtype) for x in (P, f + shift, g - shift, error, a, b))
        ctx.save_for_backward(P, a, b)
        ctx.eps, ctx.group = eps, group
        result = f, g, error, iterations[:, 0], converged
        ctx.mark_non_differentiable(*result)
        return P, *result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, G: Tensor, *_: Tensor) -> tuple:
        P, a, b = ctx.saved_tensors
        group, r = ctx.group, P.sum(2)
        H = P * G
        over_r = torch.where((a > 0) & (r > 0), 1 / r, 0)                                    # (B, n)
        right = _columns(P, H.sum(2) * over_r)
        c, right = _sum(torch.stack([P.sum(1), H.sum(1) - right]), group)                    # (B, m)
        on = ((b > 0) & (c > 0)).to(P.dtype)
        mu = _conjugate_gradients(lambda x: c * x - _sum(_columns(P, over_r * (P @ x[:, :, None])[:, :, 0]), group), right * on, c, on)
        lam = over_r * (H.sum(2) - (P @ mu[:, :, None])[:, :, 0])
        return (P * (lam[:, :, None] + mu[:, None]) - H) / ctx.eps, lam, mu, *(None,) * 4


def _columns(P: Tensor, weights: Tensor) -> Tensor:
    return (weights[:, None] @ P)[:, 0]


def _conjugate_gradients(apply: Any, right: Tensor, c: Tensor, on: Tensor, most: int = 500) -> Tensor:
    """Solves the Laplacian system, preconditioned by its diagonal c, for the x with c'x = 0. All ranks hold the same vectors."""
    total = (c * on).sum(1, keepdim=True)
    centre = lambda x: x - on * c * (x.sum(1, keepdim=True) / total)  # noqa: E731
    condition = lambda x: on * (x / torch.where(on > 0, c, 1) - x.sum(1, keepdim=True) / total)  # noqa: E731
    dot = lambda x, y: (x * y).sum(1, keepdim=True)  # noqa: E731
    x, residual = torch.zeros_like(right), centre(right)
    direction = z = condition(residual)
    product = dot(residual, z)
    enough = product * (32 * torch.finfo(right.dtype).eps) ** 2
    for _ in range(most):
        going = (product > enough) & (product > 0)
        if values_are_free(going) and not bool(going.any()):
            break
        image = on * apply(direction)
        curvature = dot(direction, image)
        going = going & (curvature > 0)
        length = torch.where(going, product / torch.where(going, curvature, 1), 0)
        x, residual = x + length * direction, centre(residual - length * image)
        z = condition(residual)
        product_next = torch.where(going, dot(residual, z), 0)
        direction = z + torch.where(going, product_next / torch.where(product > 0, product, 1), 0) * direction
        product = product_next
    return x - on * dot(c, x) / total
