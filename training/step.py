"""The gradient of one batch: exact for the whole batch, however it is shared out over processes and chunks.

The distributions are the only thing that passes between model and loss. Every process embeds its own rows, all rows are brought together,
and each computes the same loss and its gradient at the distributions; from there every process goes back through the model for its own
rows, chunk by chunk. A chunk is embedded a second time for that, with the same noise, so that the memory is that of one (GradCache: Gao et
al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from transphere import VonMisesFisher

from . import sharding
from .batch import Batch
from .config import Config
from .distributed import World
from .errors import UserError
from .seeding import key_rows

Law = Tensor | VonMisesFisher


class Unfolded(nn.Module):
    """A model whose distributions come out as tuples of tensors, which torch's wrappers look for in a result."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
        laws = self.model(inputs, present).items()
        return {name: (law.loc, law.concentration) if isinstance(law, VonMisesFisher) else (law,) for name, law in laws}


@dataclass
class Embedded:
    """A batch on its way: the distributions of all its rows, as leaves that collect the gradient of a loss."""

    leaves: dict[str, tuple[Tensor, ...]]  # modality -> mean direction (B, d) and concentration (B,), or points (B, d)
    present: dict[str, Tensor]  # modality -> (B,) bool
    own: Batch  # this process's rows,
    rows: slice  # which are these
    seed: int
    chunks: list[range]  # of the own rows
    graph: dict[str, tuple[Tensor, ...]] | None  # of the own rows where they are a single chunk

    @property
    def laws(self) -> dict[str, Law]:
        return {name: VonMisesFisher(*x, validate_args=False) if len(x) == 2 else x[0] for name, x in self.leaves.items()}


class Step:
    """How a batch goes through `model` and back."""

    def __init__(self, model: nn.Module, config: Config, world: World) -> None:
        self.model, self.world, self.device = model, world, world.device
        self.accumulate, self.half = config.optim.accumulate, config.run.precision == "bf16"
        self.alone: nn.Module = Unfolded(model)
        if config.run.compile:
            self.alone = torch.compile(self.alone)
        self.shared = self.alone
        self.sharded = config.run.shard and world.size > 1
        if world.size > 1 and not self.sharded:
            # An encoder may leave parameters unused, or skip layers at random. It also keeps torch from laying out its buckets anew after
            # the first step: three processes and more would then sum in another order, and a resumed run once more in the first one.
            self.shared = DistributedDataParallel(self.alone, find_unused_parameters=True)

    def check(self) -> None:
        """UserError where chunks cannot give the gradient of the whole: a BatchNorm in training sees a chunk at a time."""
        norms = [name for name, module in self.model.named_modules() if isinstance(module, _BatchNorm) and module.training]
        if norms and self.accumulate > 1:
            raise UserError(f"optim.accumulate: expected 1 with BatchNorm, which would take its statistics from a chunk, got {norms[0]}")

    def embed(self, batch: Batch, first: int, total: int, seed: int) -> Embedded:
        """`batch` are this process's rows, from number `first` on, of a batch of `total`; `seed` that of the step's noise."""
        n = len(batch)
        count = max(1, min(self.accumulate, n))
        chunks = [range(k * n // count, (k + 1) * n // count) for k in range(count)]
        if count == 1:
            own = graph = self._forward(self.shared, batch, first, seed)
        else:
            with torch.no_grad():
                parts = [self._forward(self.alone, batch.select(list(chunk)), first + chunk.start, seed) for chunk in chunks]
            own, graph = {name: tuple(map(torch.cat, zip(*(part[name] for part in parts), strict=True))) for name in parts[0]}, None
        leaves = {name: tuple(self._leaf(x, first, total) for x in tensors) for name, tensors in own.items()}
        present = {name: self.world.table(there.to(self.device), first, total) for name, there in batch.present.items()}
        return Embedded(leaves, present, batch, slice(first, first + n), seed, chunks, graph)

    def backward(self, done: Embedded) -> None:
        """From the gradients that a loss has left at the distributions to those of the model's parameters: on every process those of the
        whole batch."""
        for chunk in done.chunks:
            last = chunk is done.chunks[-1]
            quiet = contextlib.nullcontext() if last or self.world.size == 1 or self.sharded else self.shared.no_sync()
            if self.sharded:
                sharding.sum_at(self.model, last)
            with quiet:
                first = done.rows.start + chunk.start
                own = done.graph or self._forward(self.shared, done.own.select(list(chunk)), first, done.seed)
                roots, slopes = [], []
                for name, tensors in own.items():
                    for x, leaf in zip(tensors, done.leaves[name], strict=True):
                        slope = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
                        roots.append(x)
                        # Times the number of processes, since their mean is taken.
                        slopes.append((slope[first : first + len(chunk)] * self.world.size).to(x.dtype))
                torch.autograd.backward(roots, slopes)
        if self.sharded:
            _, rest = sharding.parts(p.grad for p in self.model.parameters() if p.grad is not None)
            self.world.mean_(rest)

    def _forward(self, call: nn.Module, batch: Batch, first: int, seed: int) -> dict[str, tuple[Tensor, ...]]:
        key_rows(self.model, seed, first, len(batch), self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            moved = batch.to(self.device)
            return call(moved.inputs, moved.present)

    def _leaf(self, x: Tensor, first: int, total: int) -> Tensor:
        wide = x.detach() if x.dtype == torch.float64 else x.detach().float()
        return self.world.table(wide, first, total).requires_grad_()
