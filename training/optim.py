"""Optimisers, their rates over time, and the running average of the weights: torch's, by the keys of [optim]."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .config import Optim


def build_optimizer(config: Optim, parameters: Iterable[nn.Parameter] | list[dict]) -> torch.optim.Optimizer:
    """AdamW, Adam (whose weight decay is part of the gradient) or SGD."""
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.name]
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay)


def build_schedule(config: Optim, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> LambdaLR:
    """Sets the rate of every group before each step; one call of step() a step."""
    return LambdaLR(optimizer, lambda step: rate(config, step, steps_per_epoch))


def rate(config: Optim, step: int, steps_per_epoch: int) -> float:
    """The rate of a step (from 0), as a share of optim.lr.

    It rises evenly over the first optim.warmup steps to 1. constant: 1; cosine: half a cosine from there to 0 at the end; step: optim.gamma
    to the number of times that optim.step_epochs epochs have gone.
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "cosine":
        total = steps_per_epoch * config.epochs
        return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, total - config.warmup)))
    if config.schedule == "step":
        return config.gamma ** (step // steps_per_epoch // config.step_epochs)
    return 1.0


def build_average(config: Optim, model: nn.Module) -> AveragedModel | None:
    """The exponential moving average of weights and buffers with decay optim.ema, or None at 0."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True) if config.ema else None
