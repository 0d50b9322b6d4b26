"""The demonstration: a small real corpus, the two losses, three seeds, one table, four pictures.

Each seed has its own split by group and its own initialisation. A run's epoch is chosen on validation items, and its test items are scored
once, after that. How the recipes' numbers were chosen is said in the recipes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

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
from .pool import Job, job, read_test, run_all
from .run import Run, environment, open_run
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
    paths = run_all(_jobs(arms, out, seeds), workers)
    done = {name: paths[i * len(seeds) : (i + 1) * len(seeds)] for i, name in enumerate(arms)}
    tested = {name: [read_test(path) for path in paths] for name, paths in done.items()}
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


def _jobs(arms: dict[str, Config], out: Path, seeds: Sequence[int]) -> list[Job]:
    """Arm by arm, a run for each seed."""
    word = {BASELINE: "baseline", SLICED: "sliced", CONTROL: "duration"}
    return [job(name, word[name], out / "runs", config, seed) for name, config in arms.items() for seed in seeds]


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
