"""The loss of minibatch learning to match, of a global batch whose rows are spread over the ranks of a process group."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .._checks import check_floating, check_min_dim, check_values, compute_dtype
from .sinkhorn_sharded import sinkhorn_sharded


def learning_to_match_sharded(
    cost: Tensor,
    target: Tensor | None = None,
    *,
    eps: float,
    tol: float = 1e-6,
    max_iter: int = 1000,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    r"""`learning_to_match`, balanced, of the cost whose rows are those of all ranks of `group`, each of which holds its own.

    With the potentials of `sinkhorn_sharded` a rank has :math:`\log P_{ij}=(f_i+g_j-C_{ij})/\varepsilon` of its rows, the terms of them
    in :math:`KL(T\,\|\,P)=\sum T(\log T-\log P)`, whose sum over the ranks is the loss, and their gradient :math:`(T-P)/\varepsilon`
    exactly: the backward sends nothing.

    Args:
        cost: this rank's rows of C, (..., n_rank, m), m and the batch dimensions equal on all ranks; n_rank may differ, and be 0.
        target: this rank's rows of T, of the cost's shape, >= 0, a constant. Default I/m, the ranks' rows one below the other: all ranks
            together have m of them then.
        eps, tol, max_iter: as in `sinkhorn`.
        group: the process group; None for the default one.

    Returns:
        The losses of the whole problem, (...), equal on all ranks and differentiable once in cost. They count once: each rank's backward
        leaves at its cost the gradient of that one loss. What all ranks share in front of it, say M, has the sum of theirs.

    Raises, Warns:
        As `sinkhorn_sharded`; ValueError where a default target does not fit the rows of all ranks.
    """
    name = "learning_to_match_sharded"
    dtype = check_floating(name, cost=cost, target=target)
    check_min_dim(name, cost=(cost, 2))
    *batch, n, m = cost.shape
    if target is None:
        target = _diagonal(name, n, m, cost, group)
    elif target.shape != cost.shape:
        raise ValueError(f"{name}: target: expected the shape of cost {tuple(cost.shape)}, got {tuple(target.shape)}")
    check_values(name, "target", target, lambda t: (t >= 0) & t.isfinite(), "finite entries >= 0")
    compute = compute_dtype(dtype)
    C, T = cost.to(compute), target.detach().to(compute).expand(*batch, n, m)
    return _Match.apply(C, T, eps, max_iter, tol, group).to(dtype)


def _diagonal(name: str, n: int, m: int, cost: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """This rank's rows (n, m) of I/m."""
    counts = torch.zeros(dist.get_world_size(group), dtype=torch.int64, device=cost.device)
    counts[dist.get_rank(group)] = n
    dist.all_reduce(counts, group=group)
    # How many rows there are is not on the host: on a CPU it is looked at, on a GPU a wrong number gives another target.
    check_values(name, "target", counts.sum(), lambda rows: rows == m, f"one, since its default I/n needs {m} rows on all ranks together")
    first = (counts.cumsum(0) - counts)[dist.get_rank(group)]
    own = first + torch.arange(n, device=cost.device)
    return (own[:, None] == torch.arange(m, device=cost.device)).to(cost.dtype) / m


class _Match(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, C: Tensor, T: Tensor, eps: float, max_iter: int, tol: float, group: Any) -> Tensor:
        wide = T.double()
        a, b = wide.sum(-1), wide.sum(-2)
        dist.all_reduce(b, group=group)
        found = sinkhorn_sharded(C, a.to(C.dtype), b.to(C.dtype), eps=eps, max_iter=max_iter, tol=tol, group=group)
        log_plan = (found.f[..., :, None] + found.g[..., None, :] - C) / eps
        loss = torch.where(T > 0, torch.xlogy(T, T) - T * log_plan, 0).sum((-2, -1))
        dist.all_reduce(loss, group=group)
        ctx.save_for_backward(found.plan, T)
        ctx.eps = eps
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        plan, T = ctx.saved_tensors
        return (T - plan) * (grad[..., None, None] / ctx.eps), *(None,) * 5
