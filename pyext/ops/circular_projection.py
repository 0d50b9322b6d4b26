"""The angle of points in the planes of great circles."""

from typing import Any

from torch import Tensor

from .._library import define
from ..reference.circular_projection import circular_projection as _reference
from ..reference.circular_projection import circular_projection_backward as _reference_backward


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _backward(op: Any, ctx: Any, grad_theta: Tensor) -> Tensor:
    return op("circular_projection_backward")(grad_theta, ctx.saved_tensors[0])


define(
    "circular_projection_backward(Tensor grad_theta, Tensor xy) -> Tensor",
    reference=_reference_backward,
    fake=lambda grad_theta, xy: xy.new_empty(xy.shape),
)
define(
    "circular_projection(Tensor xy) -> Tensor",
    reference=_reference,
    fake=lambda xy: xy.new_empty(xy.shape[0], xy.shape[1] // 2),
    backward=_backward,
    setup_context=_setup_context,
)
