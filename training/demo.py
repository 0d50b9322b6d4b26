"""The demonstration: a small real corpus, the two losses, three seeds, one table, four pictures.

Each seed has its own split by group and its own initialisation. A run's epoch is chosen on validation items, and its test items are scored
once, after that. How the recipes' numbers were chosen is said in the recipes.
"""

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
from pathlib import Path

import torch
from tqdm import tqdm

from . import checkpoint
from . import config as configuration
from .batch import load_features
from .config import Config
from .contact_sheet import contact_sheet
from .data import build
from .data.manifest import Manifest
from .demo_table import demo_report, demo_table
from .errors import SourceUnavailable, UserError
from .evaluator import embed
from .plots import curves, embedding_map, read_history
from .run import Run, environment, fit, open_run, run_digest
from .seeding import derive

SEEDS = (0, 1, 2)
BASELINE, SLICED, CONTROL = "L_C", "L_C + L_S", "duration only"


def demo(out: Path, corpus: str = "auto", seeds: Sequence[int] = SEEDS, changes: Sequence[str] = (), workers: int = 1) -> dict:
    """Build, train, measure, draw; returns what table.json holds.

    corpus: "auto", "tux", "emoji", or the path of a manifest. changes: "section.key=value" for every run.
    workers: runs at a time, each in a process with one thread. What is finished is not done again.
    """
    started = time.monotonic()
    try:
        out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from None
    manifest, note = _corpus(corpus)
    say(f"{manifest.path}: {manifest.counts()}")
    arms = _arms(manifest, list(changes))
    for config in arms.values():  # all features once, before several processes want them
        load_features(manifest, config.data)
    done = _run_all(arms, manifest, out, seeds, workers)
    tested = {name: [_tested(path) for path in paths] for name, paths in done.items()}
    report = {**demo_report(tested, list(seeds)), "corpus": _about(manifest, note), "environment": environment()}
    table = demo_table(report)
    checkpoint.write(out / "table.md", table + "\n")
    checkpoint.write_json(out / "table.json", report)
    say("drawing")
    pictures = _draw({name: done[name] for name in (BASELINE, SLICED)}, out)
    print(f"\n{table}\n")
    for path in (out / "table.md", out / "table.json", *pictures):
        print(path)
    say(f"done in {time.monotonic() - started:.0f} s; look further with: transphere eval {done[SLICED][0]}")
    return report


def say(text: str) -> None:
    """What goes on, apart from results, goes to stderr."""
    print(text, file=sys.stderr, flush=True)


def _corpus(name: str) -> tuple[Manifest, str]:
    """The manifest, and why it is not the one that was hoped for."""
    if name not in ("auto", "tux", "emoji"):
        return Manifest.read(name), ""
    try:
        return Manifest.read(build("tux" if name == "auto" else name)), ""
    except SourceUnavailable as error:
        if name != "auto":
            raise
        note = f"The emoji corpus (synthetic speech) stands in for tux: {error}"
        say(note)
        return Manifest.read(build("emoji")), note


def _arms(manifest: Manifest, changes: list[str]) -> dict[str, Config]:
    """What is compared, by name. The control is the baseline with a recording's duration for all that the model hears."""
    baseline = configuration.load("ismir2024-baseline", changes)
    arms = {BASELINE: baseline, SLICED: configuration.load("ismir2024", changes)}
    speech = [item.modalities["speech"] for item in manifest.items if item.modalities.get("speech")]
    if speech and "path" in speech[0]:
        arms[CONTROL] = baseline.replace(data={"encoders": {**baseline.data.encoders, "speech": "duration"}})
    return {name: config.replace(data={"manifest": str(manifest.path)}) for name, config in arms.items()}


def _run_all(arms: dict[str, Config], manifest: Manifest, out: Path, seeds: Sequence[int], workers: int) -> dict[str, list[Path]]:
    """arm -> the folders of its finished runs, one a seed."""
    jobs = [(name, config, manifest, out, seed) for name, config in arms.items() for seed in seeds]
    if workers < 2:
        paths = [_run(*job) for job in jobs]
    else:
        context = multiprocessing.get_context("spawn")
        rows = context.Queue()
        for row in range(workers):
            rows.put(row)
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(rows,)) as pool:
            try:
                paths = [future.result() for future in [pool.submit(_run, *job) for job in jobs]]
            except BrokenProcessPool:
                raise UserError("a training process was killed (out of memory?); the same command goes on from what is finished") from None
            except BaseException:  # an error or an interrupt: what has not begun need not begin
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return {name: paths[i * len(seeds) : (i + 1) * len(seeds)] for i, name in enumerate(arms)}


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


def _run(name: str, config: Config, manifest: Manifest, out: Path, seed: int) -> Path:
    """The folder of one finished and tested run; its name carries a digest: a run of another recipe or corpus gets its own."""
    config = config.replace(data={"split_seed": seed}, run={"seed": seed})
    word = {BASELINE: "baseline", SLICED: "sliced", CONTROL: "duration"}[name]
    path = out / "runs" / f"{word}-seed{seed}-{run_digest(config, manifest.resplit(seed))[:8]}"
    done = fit(config, path, resume=True, row=_row)
    tqdm.write(
        f"{name}, seed {seed}: best epoch {done['best_epoch']} of {done['epochs']}, "
        f"validation MRR {done['val_mrr']:.3f}, {done['seconds']:.0f} s",
        file=sys.stderr,
    )
    _tested(path)
    return path


def _tested(path: Path) -> dict:
    """The run's test evaluation, made once and then read."""
    digest = (checkpoint.read_json(path / "run.json") or {}).get("digest")
    report = checkpoint.read_json(path / "test.json")
    if report and report["run"]["digest"] == digest:
        return report
    return open_run(path).evaluate("test", progress=False)


def _draw(runs: dict[str, list[Path]], out: Path) -> list[Path]:
    files = [out / "curves.png", out / "map.png", out / "answers.png"]
    curves({name: [read_history(path) for path in paths] for name, paths in runs.items()}, files[0])
    run: Run = open_run(runs[SLICED][0])
    batch = run.features("test", progress=False)
    points = embed(run.model, batch, run.config.run.eval_samples, derive(run.config.run.seed, "test"))
    embedding_map(points, batch, files[1])
    contact_sheet(points, batch, run.manifest.root, files[2])
    return files


def _about(manifest: Manifest, note: str) -> dict:
    try:
        about = checkpoint.read_json(manifest.root / "about.json") or {}
    except UserError:  # not ours to judge here
        about = {}
    return {"manifest": str(manifest.path), "sha256": manifest.sha256, "counts": manifest.counts(), "note": note, **about}
