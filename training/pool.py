"""Several runs, each fitted and tested once, a few at a time: what the demo and the experiments share."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from . import checkpoint
from .config import Config
from .errors import UserError
from .run import fit, open_manifest, open_run, run_digest


@dataclass(frozen=True)
class Job:
    """One run to be made: what it is called, its folder, its configuration."""

    title: str
    path: Path
    config: Config


def job(title: str, word: str, folder: Path, config: Config, seed: int) -> Job:
    """The run of `config` with its own split and initialisation by `seed`, in a folder below `folder`.

    The folder's name carries a digest: a run of another recipe, corpus or version gets its own.
    """
    config = config.replace(data={"split_seed": seed}, run={"seed": seed})
    path = folder / f"{word}-seed{seed}-{run_digest(config, open_manifest(config.data))[:8]}"
    return Job(f"{title}, seed {seed}", path, config)


def run_all(jobs: Sequence[Job], workers: int) -> list[Path]:
    """Fit and test every job; returns the folders in the order of the jobs. What is finished is not done again.

    workers: runs at a time, each in a process of one thread; below 2: here, one after the other.
    """
    if workers < 2:
        return [_run(one) for one in jobs]
    context = multiprocessing.get_context("spawn")
    rows = context.Queue()
    for row in range(workers):
        rows.put(row)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(rows,)) as pool:
        try:
            return [future.result() for future in [pool.submit(_run, one) for one in jobs]]
        except BrokenProcessPool:
            raise UserError("a training process was killed (out of memory?); the same command goes on from what is finished") from None
        except BaseException:  # an error or an interrupt: what has not begun need not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def read_test(path: Path) -> dict:
    """The run's test evaluation, made once and then read."""
    digest = (checkpoint.read_json(path / "run.json") or {}).get("digest")
    report = checkpoint.read_json(path / "test.json")
    if report and report["run"]["digest"] == digest:
        return report
    return open_run(path).evaluate("test", progress=False)


_row = 0  # of this process's progress bar


def _begin_worker(rows: multiprocessing.Queue) -> None:
    # Several small runs share the cores better than the threads of one, which wait for each other at every step.
    global _row
    torch.set_num_threads(1)
    _row = rows.get()
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # at once, and without a traceback: every file is written atomically
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Leave when the process that began this one is gone, however it went."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run(one: Job) -> Path:
    done = fit(one.config, one.path, resume=True, row=_row)
    tqdm.write(
        f"{one.title}: best epoch {done['best_epoch']} of {done['epochs']}, validation MRR {done['val_mrr']:.3f}, {done['seconds']:.0f} s",
        file=sys.stderr,
    )
    read_test(one.path)
    return one.path
