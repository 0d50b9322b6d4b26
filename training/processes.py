"""Several processes of one job on this machine, over gloo, for the checks."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from .distributed import World
from .errors import LostProcess, Stopped

LOST, STOPPED = 4, 75


def launch(size: int, work: Callable[..., None], arguments: tuple, *, timeout: int = 600) -> list[int]:
    """Run work(world, *arguments) in `size` new processes of one thread each; returns their exit codes (minus the signal's number for one
    that was killed). One that is still there after `timeout` seconds is killed."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=_begin, args=(rank, size, folder, timeout, work, arguments)) for rank in range(size)]
        end = time.monotonic() + timeout
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join(max(0.0, end - time.monotonic()))
        finally:
            for process in processes:
                if process.is_alive():
                    process.kill()
                    process.join()
    return [process.exitcode if process.exitcode is not None else -1 for process in processes]


def _begin(rank: int, size: int, folder: str, timeout: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    world = World(rank, size)
    if size > 1:
        meeting = f"file://{Path(folder) / 'meet'}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=timedelta(seconds=timeout))
    try:
        with world.watched():
            work(world, *arguments)
    except Stopped:
        raise SystemExit(STOPPED) from None
    except LostProcess:
        raise SystemExit(LOST) from None
    if size > 1:
        dist.destroy_process_group()
