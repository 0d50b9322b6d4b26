"""The loss of minibatch learning to match."""

import math
from typing import Any

import torch
from torch import Tensor

from .._checks import check_floating, check_values
from .._library import op
from .sinkhorn import prepare, warn_unless_converged


def learning_to_match(
    cost: Tensor,
    target: Tensor | None = None,
    *,
    eps: float,
    mass: float | Tensor | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    backend: str | None = None,
) -> Tensor:
    r"""How far the entropic plan of a cost is from a target: :math:`KL(T\,\|\,P)=\sum T(\log T-\log P)` (m-LTM, Luong et al. 2024).

    P is the plan of `sinkhorn` between the target's own marginals or, with a `mass`, that of `partial_sinkhorn`. Since T has the marginals
    of P, the balanced gradient is :math:`(T-P)/\varepsilon` exactly: no differentiation through Sinkhorn. The partial one takes one linear
    system. log P comes from the potentials: the loss is finite where P underflows.

    Args:
        cost: (..., n, m).
        target: T, (..., n, m), >= 0, a constant; its batch dimensions broadcast with the cost's. Default I/n, which needs n = m.
        eps: the regularisation, > 0, in the unit of the cost.
        mass: None for the balanced plan, or the mass of a partial one, (...) or a number. P then has less mass than T, and the smallest
            value is log(1 / mass) for T of sum 1, not 0.
        tol, max_iter, backend: as in `sinkhorn`.

    Returns:
        Losses (...), differentiable once in cost and mass. The authors' code has the constant log n more, for T = I/n.

    Raises, Warns:
        As `sinkhorn` and `partial_sinkhorn`.
    """
    name = "learning_to_match"
    check_floating(name, cost=cost, target=target)
    a = b = None
    if target is not None:
        if target.shape[-2:] != cost.shape[-2:]:
            raise ValueError(f"{name}: target: expected the last dimensions of cost {tuple(cost.shape)}, got {tuple(target.shape)}")
        target = target.detach()
        check_values(name, "target", target, lambda t: (t >= 0) & t.isfinite(), "finite entries >= 0")
        wide = target.double()
        a, b = wide.sum(-1).to(cost.dtype), wide.sum(-2).to(cost.dtype)
    elif cost.dim() >= 2 and cost.shape[-1] != cost.shape[-2]:
        raise ValueError(f"{name}: target: expected one, since its default I/n needs a square cost, got shape {tuple(cost.shape)}")
    dtype, batch, problem, _ = prepare(name, cost, mass, a, b, eps, max_iter, tol, None)
    if target is not None:
        target = target.to(problem[0].dtype).expand(*batch, *cost.shape[-2:]).reshape(problem[0].shape)
    loss, *_ = _Match.apply(*problem, target, float(eps), max_iter, tol, backend)
    return loss.reshape(batch).to(dtype)


class _Match(torch.autograd.Function):
    """The losses (B), and what their gradient takes: the plan and its potentials."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        cost: Tensor, a: Tensor, b: Tensor, mass: Tensor | None, target: Tensor | None, eps: float, max_iter: int, tol: float,
        backend: str | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tol = max(tol, 8 * torch.finfo(cost.dtype).eps)
        plan, f, g, h, error, _, converged = op("sinkhorn", backend, cost)(cost, a, b, mass, None, None, eps, max_iter, tol)
        warn_unless_converged("learning_to_match", converged, error, max_iter, stacklevel=5)
        n = cost.shape[1]
        if target is None:  # on the diagonal alone
            log_plan = (f + g + h[:, None] - cost.diagonal(dim1=1, dim2=2)) / eps            # (B, n)
            return -log_plan.mean(1) - math.log(n), plan, f, g
        log_plan = (f[:, :, None] + g[:, None] + h[:, None, None] - cost) / eps
        return torch.where(target > 0, torch.xlogy(target, target) - target * log_plan, 0).sum((1, 2)), plan, f, g

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        _, a, b, mass, target, ctx.eps, _, _, ctx.backend = inputs
        _, plan, f, g = output
        ctx.save_for_backward(plan, a, b, mass, f, g, target)
        ctx.mark_non_differentiable(plan, f, g)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple:
        plan, a, b, mass, f, g, target = ctx.saved_tensors
        scale = grad[:, None, None] / ctx.eps
        if mass is None:
            if target is not None:
                grad_cost = (target - plan) * scale
            else:
                grad_cost = plan * -scale
                grad_cost.diagonal(dim1=1, dim2=2).add_(scale[:, 0] / plan.shape[1])
            return grad_cost, *(None,) * 8
        if target is None:
            target = torch.eye(plan.shape[1], dtype=plan.dtype, device=plan.device) / plan.shape[1]
        grad_log_plan = (-grad[:, None, None] * target).expand(plan.shape).contiguous()
        grad_cost, _, _, grad_mass = op("sinkhorn_backward", ctx.backend, plan)(grad_log_plan, plan, a, b, mass, f, g, ctx.eps)
        return grad_cost, None, None, grad_mass, *(None,) * 5
