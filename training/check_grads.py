"""Gradients of one process against those of several."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from .batch import Batch, batches, load_batch
from .config import Config
from .distributed import World
from .errors import UserError
from .processes import launch
from .run import open_manifest
from .sharding import whole
from .trainer import Trainer

TOLERANCE = 1e-10


@dataclass(frozen=True)
class Comparison:
    """Of `processes` processes, in optim.accumulate chunks each, with one process and one chunk."""

    processes: int
    parameters: int
    worst: float  # largest difference of an entry, over the parameter's largest entry
    name: str  # of that parameter
    loss: float  # relative difference

    @property
    def good(self) -> bool:
        return max(self.worst, self.loss) <= TOLERANCE


def compare(config: Config, sizes: Sequence[int]) -> Iterator[Comparison]:
    """One comparison a number of processes, on the recipe's own model, data and first batch, in float64."""
    return (result for size in sizes for result in compare_all([config], size))


def compare_all(configs: Sequence[Config], size: int) -> list[Comparison]:
    """One comparison a configuration, all in the same `size` processes."""
    if size < 1:
        raise UserError(f"--nproc: expected at least 1, got {size}")
    least = min(config.optim.batch_size for config in configs)
    if size > least:  # before so many are started
        raise UserError(f"optim.batch_size: a batch of {least} items cannot be shared by {size} processes")
    expected = [gradient(config.replace(optim={"accumulate": 1}), World()) for config in configs]
    if size == 1:
        return [_compare(size, one, [gradient(config, World())]) for one, config in zip(expected, configs, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        codes = launch(size, _work, (list(configs), folder))
        if any(codes):
            raise UserError(f"check grads: the {size} processes ended with the codes {codes}")
        ranks = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(size)]
    return [_compare(size, one, [rank[k] for rank in ranks]) for k, one in enumerate(expected)]


def gradient(config: Config, world: World) -> dict[str, Tensor]:
    """The gradient of every parameter after the first batch of the first epoch, in float64, and the loss, under the name ""."""
    features = load_batch(open_manifest(config.data), config, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, features.split("train"), features.split("val"), Path(folder), "", progress=False, world=world)
        trainer.model.double().train()
        trainer.objective.double()
        if hasattr(trainer.objective, "tol"):  # a problem that is solved whole and one that is spread stop at different places on the way
            trainer.objective.tol = 1e-13
        for branch in trainer.model.values():
            # What torch draws inside an encoder depends on which rows are together, and so do the statistics of BatchNorm unless they are
            # those of all processes.
            branch.encoder.eval()
            for module in branch.encoder.modules():
                if config.run.sync_batchnorm and isinstance(module, _BatchNorm) and module.affine and module.weight.requires_grad:
                    module.train()
        trainer.step = 1
        index = next(batches(len(trainer.train), config.optim.batch_size, config.run.seed, 1))
        own = next(iter(trainer.train.stream([[index[row] for row in world.rows(len(index))]], 0)))
        _, values = trainer.gradient(index, _double(own))
    named = {f"{part}.{name}": p for part in ("model", "objective") for name, p in getattr(trainer, part).named_parameters()}
    return {"": torch.tensor(values["loss"], dtype=torch.float64), **whole({n: p.grad for n, p in named.items() if p.grad is not None})}


def _work(world: World, configs: list[Config], folder: str) -> None:
    torch.save([gradient(config, world) for config in configs], Path(folder) / f"{world.rank}.pt")


def _double(batch: Batch) -> Batch:
    def wide(x: Tensor | dict) -> Tensor | dict:
        if isinstance(x, dict):
            return {name: wide(inner) for name, inner in x.items()}
        return x.double() if x.is_floating_point() else x

    return dataclasses.replace(batch, inputs={name: wide(x) for name, x in batch.inputs.items()})


def _compare(size: int, one: dict[str, Tensor], ranks: list[dict[str, Tensor]]) -> Comparison:
    names = [name for name in one if name]
    missing = [name for rank in ranks for name in names if name not in rank]
    if missing:
        return Comparison(size, len(names), torch.inf, missing[0], torch.inf)
    # Where a gradient is 0 but for rounding, the scale is that of the others.
    floor = 1e-6 * max((float(one[name].abs().max()) for name in names), default=0.0) or 1.0
    differences = {
        name: max(float((rank[name] - one[name]).abs().max()) for rank in ranks) / max(float(one[name].abs().max()), floor)
        for name in names
    }
    worst = max(differences, key=differences.get, default="")
    loss = max(abs(float(rank[""] - one[""])) for rank in ranks) / max(abs(float(one[""])), 1e-12)
    return Comparison(size, len(names), differences.get(worst, 0.0), worst, loss)
