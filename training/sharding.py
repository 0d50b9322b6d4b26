"""Encoders whose parameters, gradients and moments are spread over the processes (FSDP2), for those that fill a GPU.

A layer is brought together when its turn comes and given up after it, so all processes have to take every forward pass, those of validation
too. Heads and the objective are small and stay whole. Checkpoints hold whole tensors: a run may go on with its encoders spread or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(model: nn.ModuleDict) -> None:
    """Spread the encoders of a Model that read files, layer by layer."""
    for branch in model.values():
        if not getattr(branch.encoder, "in_memory", True):
            for layer in branch.encoder.layers()[1:]:
                for module in layer:
                    fully_shard(module)
            fully_shard(branch.encoder)


def sum_at(model: nn.ModuleDict, last: bool) -> None:
    """Whether the next backward pass adds up gradients over the processes, or keeps them for the one that does."""
    for branch in model.values():
        if isinstance(branch.encoder, FSDPModule):
            branch.encoder.set_requires_gradient_sync(last)


def parts(tensors: Iterable[Tensor]) -> tuple[list[DTensor], list[Tensor]]:
    """Those that are spread, and those that are whole."""
    tensors = list(tensors)
    return [x for x in tensors if isinstance(x, DTensor)], [x for x in tensors if not isinstance(x, DTensor)]


def whole(value: Any, keep: bool = True) -> Any:
    """`value`, nested in dictionaries and lists, with its spread tensors brought together on the CPU, one at a time; None where not kept.

    Every process has to call it.
    """
    if isinstance(value, dict):
        return {key: whole(inner, keep) for key, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner, keep) for inner in value]
    if isinstance(value, DTensor):
        full = value.full_tensor()
        return full.cpu() if keep else None
    return value


def spread_weights(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The whole tensors of a state dict, spread as the model's own are."""
    own = model.state_dict()
    return {name: _like(own[name], x) for name, x in state.items()}


def spread_moments(optimizer: torch.optim.Optimizer, state: dict) -> dict:
    """The state dict of an optimiser, whose tensors of a parameter's shape are spread as the parameter is."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {number: {key: _like(parameters[number], x) for key, x in own.items()} for number, own in state["state"].items()}
    return {**state, "state": moments}


def clip(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """torch's `clip_grad_norm_`, of gradients of which some are spread and some are not; returns their norm before."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = [nn.utils.get_total_norm(part) for part in parts(gradients) if part]
    norm = torch.stack([x.full_tensor() if isinstance(x, DTensor) else x for x in norms]).norm()
    for x in gradients:
        local(x).mul_((most / (norm + 1e-6)).clamp(max=1.0))
    return norm


def local(x: Tensor) -> Tensor:
    """This process's part of a tensor."""
    return x.to_local() if isinstance(x, DTensor) else x


def _like(own: Tensor, x: Any) -> Any:
    if not isinstance(own, DTensor) or getattr(x, "shape", None) != own.shape:
        return x
    return distribute_tensor(x.to(own.device), own.device_mesh, own.placements)
