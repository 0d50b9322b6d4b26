"""Several processes of one job on this machine, over gloo, for the checks."""

from __future__ import annotations

import multiprocessing
import os
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
GRACE = 5.0  # seconds


def launch(size: int, work: Callable[..., None], arguments: tuple, *, patience: int = 120) -> list[int]:
    """Run work(world, *arguments) in `size` new processes of one thread each; returns their exit codes (minus the signal's number for one
    that was killed). They wait `patience` seconds for each other; a few seconds after one has failed, what is left is killed."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch warns of looking for unused parameters wherever it finds none
    context, method = multiprocessing.get_context("spawn"), multiprocessing.get_start_method()
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=_begin, args=(method, rank, size, folder, patience, work, arguments)) for rank in range(size)]
        failed = None
        try:
            for process in processes:
                process.start()
            while any(process.is_alive() for process in processes) and (failed is None or time.monotonic() < failed + GRACE):
                time.sleep(0.02)
                if failed is None and any(process.exitcode for process in processes):
                    failed = time.monotonic()
        finally:
            for process in processes:
                if process.is_alive():
                    process.kill()
                    process.join()
    return [process.exitcode for process in processes]


def _begin(method: str, rank: int, size: int, folder: str, patience: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    multiprocessing.set_start_method(method, force=True)  # of processes that read: as in the parent, not as this one was started
    world = World(rank, size)
    if size > 1:
        meeting = f"file://{Path(folder) / 'meet'}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=timedelta(seconds=patience))
    try:
        with world.watched():
            work(world, *arguments)
    except Stopped:
        code = STOPPED
    except LostProcess:
        os._exit(LOST)  # at an ordinary end the threads that still wait for the lost process would abort this one
    else:
        code = 0
    if size > 1:
        dist.destroy_process_group()
    raise SystemExit(code)
