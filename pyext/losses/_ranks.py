"""What a loss needs whose work is spread over the processes of torch.distributed."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def shared(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The same tensors, which all processes hold alike; their gradients are summed over the processes."""
    given = [x for x in tensors if x is not None]
    made = iter(_Shared.apply(*given))
    return tuple(x if x is None else next(made) for x in tensors)


def largest_of_all(x: Tensor) -> Tensor:
    """The largest entry over all processes, of which one may have none. Where several are as large each gets an equal part of the gradient,
    as of `x.max()`; what the processes make of it counts together."""
    return _Largest.apply(x)


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        summed = [grad.clone(memory_format=torch.contiguous_format) for grad in grads]
        for grad in summed:
            dist.all_reduce(grad)
        return tuple(summed)


class _Largest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        largest = x.max() if x.numel() else x.new_tensor(-torch.inf)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        ctx.save_for_backward(x, largest)
        return largest

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, largest = ctx.saved_tensors
        here = x == largest
        both = torch.stack([grad, here.sum().to(grad.dtype)])
        dist.all_reduce(both)
        return here * (both[0] / both[1])
