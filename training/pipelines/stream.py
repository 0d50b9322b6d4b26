"""Reading ahead: batches of samples from worker processes, the same whatever their number."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from ..data.manifest import Item
from ..errors import UserError
from ..signals import SIGNALS
from . import Pipeline, Sample, read

Loaded = tuple[list[int], dict[str, Sample] | UserError]


class _Batches(Dataset):
    """Maps a list of places to its samples: a worker makes whole batches."""

    def __init__(self, items: Sequence[Item], pipelines: Mapping[str, Pipeline], root: Path, key: int | None) -> None:
        self.items, self.pipelines, self.root, self.key = items, pipelines, root, key

    def __getitem__(self, index: list[int]) -> Loaded:
        try:
            return index, {
                name: pipeline.collate([read(pipeline, self.items[i], name, self.root, self.key) for i in index])
                for name, pipeline in self.pipelines.items()
            }
        except UserError as error:  # raised in a worker it would carry a traceback in its text
            return index, error


def samples_of(
    items: Sequence[Item],
    pipelines: Mapping[str, Pipeline],
    root: Path,
    index_lists: Iterable[list[int]],
    key: int | None,
    workers: int,
    device: torch.device,
) -> Iterator[tuple[list[int], dict[str, Sample]]]:
    """Each list of places with {modality: the batch of its samples}, in order, on the CPU (pinned for a GPU)."""
    loader = DataLoader(
        _Batches(items, pipelines, root, key),
        batch_size=None,
        sampler=index_lists,
        num_workers=workers,
        multiprocessing_context="fork" if workers and "fork" in multiprocessing.get_all_start_methods() else None,  # else it imports anew
        generator=torch.Generator(),  # it would draw a seed for its workers, which use none, from the global one
        pin_memory=device.type == "cuda",
        worker_init_fn=_quiet if workers else None,
    )
    for index, samples in loader:
        if isinstance(samples, UserError):
            raise samples
        yield index, samples


def worker_count(asked: int | None) -> int:
    """How many processes read: as asked, or one a core up to 16."""
    if asked is not None:
        return asked
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _quiet(worker: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # else it warns of the fork
    for number in SIGNALS:  # a cluster may send them to all processes of a job; it is for the one that trains to stop
        signal.signal(number, signal.SIG_IGN)
