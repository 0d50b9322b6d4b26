"""BatchNorm over the rows of all processes, for CPUs, which torch's own does not know."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(_BatchNorm):
    """BatchNorm of (B, C, ...) whose mean and variance in training are those of all processes' rows, and so is their gradient."""

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of dimensions from two on."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        dtype = x.dtype
        x = x if dtype == torch.float64 else x.float()
        axes, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        count = _Summed.apply(x.new_tensor(x.numel() // x.shape[1]))  # values a channel, over all processes
        mean = _Summed.apply(x.sum(axes)) / count  # (C,)
        x = x - mean.view(shape)
        variance = _Summed.apply(x.square().sum(axes)) / count  # (C,)
        if self.track_running_stats:
            self._follow(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        x = x * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            x = x * self.weight.view(shape) + self.bias.view(shape)
        return x.to(dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Summed(torch.autograd.Function):
    """x summed over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> Tensor:
        return _Summed.apply(slope.contiguous())


def joined(module: nn.Module) -> nn.Module:
    """`module` with a SyncBatchNorm in the place of every BatchNorm, of the same parameters, statistics and mode."""
    if isinstance(module, _BatchNorm):
        made = SyncBatchNorm(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
        made._parameters, made._buffers, made.training = module._parameters, module._buffers, module.training
        return made
    for name, child in module.named_children():
        setattr(module, name, joined(child))
    return module
