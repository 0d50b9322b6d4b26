"""The processes of a job: those that torchrun started, or this one alone.

Every process runs the model on its rows of a batch and the loss on all of it. What it needs of the others goes through `World`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from . import batchnorm
from .errors import LostProcess, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """How many processes there are, and which one this is. All methods but `rows` are collective: every process has to call them."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    def rows(self, n: int) -> range:
        """The rows of a batch of n that are this process's: a stretch, of equal length for all up to one."""
        return range(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def table(self, own: Tensor, first: int, n: int) -> Tensor:
        """(n, ...) from the rows of all processes, of which `own` are those from `first` on. Not differentiable."""
        if self.size == 1:
            return own
        # Everyone adds its rows to zeros: one collective for lengths that differ, and exact.
        table = own.new_zeros(n, *own.shape[1:], dtype=torch.uint8 if own.dtype == torch.bool else own.dtype)
        table[first : first + len(own)] = own
        dist.all_reduce(table)
        return table.to(own.dtype)

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each by its mean over the processes."""
        if self.size > 1:
            for x in tensors:
                dist.all_reduce(x)
                x /= self.size

    def largest(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.size == 1:
            return value
        x = torch.tensor(value, device=self.device)
        dist.all_reduce(x, dist.ReduceOp.MAX)
        return int(x)

    def agree(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all. Its UserError ends all of them, and it alone tells."""
        if self.size == 1:
            return make()
        answer: list = [None, None]
        if self.rank == 0:
            try:
                answer[0] = make()
            except UserError as error:
                answer[1] = error
        dist.broadcast_object_list(answer, device=self.device)
        if answer[1] is not None:
            raise answer[1] if self.rank == 0 else SystemExit(2)
        return answer[0]

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Collectives inside that fail for want of another process raise LostProcess."""
        try:
            yield
        except RuntimeError as error:
            text = str(error)
            if self.size == 1 or not (isinstance(error, dist.DistError) or any(word in text for word in ("gloo", "NCCL", "Timed out"))):
                raise
            raise LostProcess(
                f"process {self.rank} of {self.size}: another one is gone, or did not answer within run.timeout seconds "
                f"({text.splitlines()[0][:200]})"
            ) from error


def synchronised(model: nn.Module, world: World) -> nn.Module:
    """`model` with BatchNorm over all processes: torch's own on GPUs, which is fused, and ours on CPUs, for which torch has none."""
    if world.size == 1:
        return model
    return batchnorm.joined(model) if world.device.type == "cpu" else nn.SyncBatchNorm.convert_sync_batchnorm(model)


@contextlib.contextmanager
def joined(device: str, timeout: int) -> Iterator[World]:
    """The world of this process: as torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) say, else of one.

    NCCL between GPUs, gloo between CPUs; a collective that takes longer than `timeout` seconds fails. UserError when the others cannot be
    reached, or there are fewer GPUs than processes here.
    """
    if dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), pick_device(device))
        return
    size = _variable("WORLD_SIZE", 1, 1, 2**20)
    for name, high in (("RANK", size - 1), ("LOCAL_RANK", size - 1), ("MASTER_PORT", 65535)):
        _variable(name, 0, 0, high)  # a process of too high a rank would wait for run.timeout, and so would the others
    if size == 1:
        yield World(device=pick_device(device))
        return
    chosen = pick_device(device)
    if chosen.type == "cuda":
        chosen = pick_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
        torch.cuda.set_device(chosen)
    try:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout))
    except (ValueError, RuntimeError) as error:
        raise UserError(f"WORLD_SIZE is {size}, but the processes do not find each other: {str(error).splitlines()[0]}") from None
    world = World(dist.get_rank(), size, chosen)
    with world.watched():
        yield world
    dist.destroy_process_group()  # not after an error, when the others would have to answer


def _variable(name: str, default: int, low: int, high: int) -> int:
    """The whole number that torchrun, or whoever starts the processes, has set."""
    text = os.environ.get(name, str(default))
    if not (text.isdecimal() and low <= int(text) <= high):
        raise UserError(f"{name}: expected a whole number from {low} to {high}, got {text!r}")
    return int(text)


def pick_device(name: str) -> torch.device:
    """The device that run.device names; UserError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"run.device: cannot use {name!r}: {str(error).splitlines()[0]}") from None
    return device
