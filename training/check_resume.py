"""A run that was killed and continued against one that was not."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from . import checkpoint
from .batch import batches, load_batch
from .config import Config
from .distributed import World
from .errors import UserError
from .processes import LOST, STOPPED, launch
from .run import open_manifest
from .trainer import Trainer

EPOCHS, BATCHES = 3, 6


def compare(config: Config, size: int = 1, say: Callable[[str], None] = lambda text: None) -> tuple[list[str], int]:
    """What differs between the two runs ([] for nothing), and after how many steps.

    Each is of 3 epochs on the first items of the training set, as many as make at most 6 batches. One is killed (SIGKILL) and later sent
    SIGTERM, both within an epoch, and goes on each time from its last checkpoint; with several processes it is the last of them.
    """
    if size < 1:
        raise UserError(f"--nproc: expected at least 1, got {size}")
    manifest = open_manifest(config.data)
    n = len(load_batch(manifest, config).split("train").matchable())
    batch_size = max(size, 2, min(config.optim.batch_size, n // 3))
    items = min(n, BATCHES * batch_size)
    steps = len(list(batches(items, batch_size, 0, 0)))  # of an epoch
    if steps < 3:
        raise UserError(f"check resume: expected at least three batches of two items for each process, got {n} training items")
    config = config.replace(
        optim={"epochs": EPOCHS, "batch_size": batch_size, "accumulate": min(config.optim.accumulate, batch_size)},
        run={"save_every": 2, "eval_every": 1, "patience": 0},
    )
    killed = steps + 1 if steps % 2 == 0 else steps + 2  # odd: one step after a checkpoint is lost, and done again
    with tempfile.TemporaryDirectory() as folder:
        straight, cut = Path(folder) / "straight", Path(folder) / "cut"
        say(f"{size} process{'es' * (size > 1)}, {items} items in {steps} batches an epoch, {EPOCHS} epochs")
        say(f"one run to its end, then another, to be killed after step {killed}")
        _expect(launch(size, _both, (config, straight, cut, items, killed)), {-signal.SIGKILL, LOST})
        say(f"going on from step {checkpoint.load_state(cut / 'last.pt')['step']}, to SIGTERM after step {2 * steps + 1}")
        _expect(launch(size, _train, (config, cut, items, 2 * steps + 1, signal.SIGTERM)), {STOPPED})
        say(f"going on from step {checkpoint.load_state(cut / 'last.pt')['step']}")
        _expect(launch(size, _train, (config, cut, items, 0, 0)), {0})
        return _differing(straight, cut), EPOCHS * steps


class _Cut(Trainer):
    """Sends itself a signal after a step."""

    cut: tuple[int, int] = (0, 0)

    def _step(self, *batch: object) -> tuple:
        result = super()._step(*batch)
        if self.step == self.cut[0] and self.world.rank == self.world.size - 1:
            os.kill(os.getpid(), self.cut[1])
        return result


def _train(world: World, config: Config, out: Path, items: int, step: int, number: int) -> None:
    features = load_batch(open_manifest(config.data), config, progress=False)
    train = features.split("train").matchable().select(list(range(items)))
    trainer = _Cut(config, train, features.split("val"), out, config.digest(), progress=False, world=world)
    trainer.cut = (step, number)
    trainer.resume()
    trainer.fit()


def _both(world: World, config: Config, straight: Path, cut: Path, items: int, killed: int) -> None:
    _train(world, config, straight, items, 0, 0)
    _train(world, config, cut, items, killed, signal.SIGKILL)


def _expect(codes: list[int], expected: set[int]) -> None:
    if not set(codes) <= expected:
        raise UserError(f"check resume: expected the exit codes {sorted(expected)}, got {codes}")


def _differing(one: Path, other: Path) -> list[str]:
    a, b = (_flat(checkpoint.load_state(out / "last.pt")) for out in (one, other))
    differing = [name for name in a.keys() | b.keys() if not _equal(a.get(name), b.get(name))]
    if (one / "best.safetensors").read_bytes() != (other / "best.safetensors").read_bytes():
        differing.append("best.safetensors")
    records = [[{**json.loads(line), "seconds": 0} for line in (out / "metrics.jsonl").read_text().splitlines()] for out in (one, other)]
    return sorted(differing) + (["metrics.jsonl"] if records[0] != records[1] else [])


def _flat(value: object, name: str = "") -> dict[str, object]:
    """{"model/image.head.loc.weight": tensor, ...} of a state, but for how long it took."""
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if key not in ("seconds", "history")}
        children = [_flat(inner, f"{name}/{key}" if name else str(key)) for key, inner in kept.items()]
    elif isinstance(value, list):
        children = [_flat(inner, f"{name}/{i}") for i, inner in enumerate(value)]
    else:
        return {name: value}
    return {key: inner for child in children for key, inner in child.items()}


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b
