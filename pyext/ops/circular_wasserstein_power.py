"""Wasserstein-p on the circle for p > 1; `circular_wasserstein` is its public function. Both ops have the same results and gradient."""

from typing import Any

from torch import Tensor
from torch.autograd.function import once_differentiable

from .._library import define
from ..reference.circular_wasserstein_power import circular_wasserstein_power as _reference


def fake(u: Tensor, v: Tensor, u_weights: Tensor | None, v_weights: Tensor | None, p: float = 1.0) -> tuple[Tensor, ...]:
    potentials = (u.new_empty(0), v.new_empty(0)) if u_weights is None else (u.new_empty(u.shape), v.new_empty(v.shape))
    return u.new_empty(u.shape[0], u.shape[2]), u.new_empty(u.shape), v.new_empty(v.shape), *potentials


def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def backward(op: Any, ctx: Any, grad_distance: Tensor, *_: Tensor) -> tuple:
    grad, wanted = grad_distance[:, None], ctx.needs_input_grad                              # (B, 1, P)
    u_slope, v_slope, u_potential, v_potential = ctx.saved_tensors
    points = (grad * slope if want else None for slope, want in zip((u_slope, v_slope), wanted[:2], strict=True))
    weights = ((grad * p).sum(-1) if want else None for p, want in zip((u_potential, v_potential), wanted[2:4], strict=True))
    return *points, *weights, *(None,) * (len(wanted) - 4)


def _backward_once(op: Any, ctx: Any, *grads: Tensor) -> tuple:
    """The slopes change with the points, which those of p = 1 do not."""
    return once_differentiable(lambda ctx, *grads: backward(op, ctx, *grads))(ctx, *grads)


define(
    "circular_wasserstein_power(Tensor u, Tensor v, Tensor? u_weights, Tensor? v_weights, float p)"
    " -> (Tensor distance, Tensor u_slope, Tensor v_slope, Tensor u_potential, Tensor v_potential)",
    reference=_reference,
    fake=fake,
    backward=_backward_once,
    setup_context=setup_context,
)
