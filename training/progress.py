"""What is said while a run goes on: sums over an epoch, the line on the terminal, TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .errors import UserError

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass
class Sums:
    """Means of the loss parts and the concentrations over an epoch."""

    items: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    kappas: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, parts: dict[str, float], kappas: dict[str, Tensor], items: int) -> None:
        self.items += items
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value * items
        for name, value in kappas.items():
            self.kappas.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        return {name: value / self.items for name, value in self.parts.items()}

    def result(self) -> dict[str, Any]:
        """The means, and QUANTILES of the concentrations."""
        kappa = {name: quantiles(torch.cat(values)) for name, values in self.kappas.items()}
        return {**self.means(), "kappa": {name: values for name, values in kappa.items() if values}}

    def state(self) -> dict[str, Any]:
        return asdict(self)


def quantiles(x: Tensor) -> list[float]:
    """QUANTILES of (n,), each an element of it; empty for none. By a sort: torch.quantile refuses more than 16 million."""
    if not len(x):
        return []
    places = torch.tensor([round(q * (len(x) - 1)) for q in QUANTILES], device=x.device)
    return x.sort().values[places].tolist()


def progress_bar(out: Path, *, total: int, done: int, shown: bool, row: int) -> tqdm:
    # Where nobody watches (a log file), a line every ten seconds is enough.
    watched = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=out.name,
        unit="step",
        disable=not shown,
        position=row,
        mininterval=0.1 if watched else 10.0,
        dynamic_ncols=True,
        leave=not watched,
        bar_format="{percentage:3.0f}%|{bar:10}| {desc} [{elapsed}<{remaining}]",
    )


def status(epoch: str, means: dict[str, float], kappas: dict[str, Tensor], eigenvalues: list[float] | None, best: dict) -> str:
    """epoch 12/60 loss 4.310 contrastive 4.200 sliced 0.110 kappa 96 [70, 121] M [0, 513] val MRR 0.220 at 9

    kappa: median and 5 and 95 % quantiles of the last batch, all modalities together; M: its least and largest eigenvalue.
    """
    text = f"epoch {epoch} " + " ".join(f"{name} {value:.3f}" for name, value in means.items())
    values = quantiles(torch.cat(list(kappas.values()))) if kappas else []
    if values:
        _, low, middle, high, _ = values
        text += f" kappa {middle:.0f} [{low:.0f}, {high:.0f}]"
    if eigenvalues:
        text += f" M [{eigenvalues[0]:.3g}, {eigenvalues[1]:.3g}]"
    return text + (f" val MRR {best['mrr']:.3f} at {best['epoch']:.0f}" if best["epoch"] else "")


class Board:
    """The epochs' records for TensorBoard, in the folder tensorboard of the run."""

    def __init__(self, out: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("run.tensorboard: TensorBoard is not installed; pip install tensorboard, or leave it false") from None
        self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def add(self, record: dict) -> None:
        """Every number of a record at the record's step; one within a table or a list by name/entry."""
        for tag, value in _numbers(record):
            self.writer.add_scalar(tag, value, record["step"])
        self.writer.flush()


def _numbers(value: dict | list | float, tag: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, (dict, list)):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(inner, f"{tag}/{name}" if tag else str(name))
    else:
        yield tag, value
