"""A run is a folder: begin or continue one, open a finished one.

config.toml    the recipe that makes the run again     metrics.jsonl      a line per epoch
run.json       data, versions, machine, digest         best.safetensors   weights of the best epoch
last.pt        where a cut run goes on from            last-previous.pt   where it does if that cannot be read
<split>.json   an evaluation                           done.json          how it ended
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

import transphere

from . import checkpoint
from . import config as configuration
from .batch import Batch, encoders_of, load_batch
from .classification import CLASSIFIERS, classification_report
from .config import Config
from .data import CORPORA, find_manifest
from .data.cache import alone
from .data.corruption import corrupt
from .data.hold_out import held_out
from .data.manifest import Manifest
from .distributed import World, joined, pick_device
from .encoders import encoder
from .errors import UserError
from .model import OBJECTIVE, Model, build_model, build_objective
from .trainer import Trainer


def fit(config: Config, out: Path, *, resume: bool = False, progress: bool = True, row: int = 0) -> dict:
    """Train in the folder `out`; returns how it ended (done.json).

    resume: go on with what is there, which must be of the same configuration and data; a finished run is left as it is.
    row: the line of the terminal that the progress bar takes, where several runs go on at a time.
    Under torchrun each of its processes calls this, and the first one writes.
    UserError when `out` holds a run and resume is False, or anything else.
    """
    with joined(config.run.device, config.run.timeout) as world, contextlib.ExitStack() as held:
        return _fit(config, out, resume, progress and world.rank == 0, row, world, held)


def _fit(config: Config, out: Path, resume: bool, progress: bool, row: int, world: World, held: contextlib.ExitStack) -> dict:
    path = world.agree(lambda: open_manifest(config.data).path)  # built, where that is needed, by the first process
    config = config.replace(data={"manifest": str(path)})
    manifest = open_manifest(config.data)
    digest = run_digest(config, manifest)
    done = world.agree(lambda: _claim(out, config, digest, resume, held))
    if done:
        return done
    if world.size > 1:  # the features once, before all want them
        world.agree(lambda: len(load_batch(manifest, config, progress)))
    features = load_batch(manifest, config, progress)
    train, val = features.split("train"), features.split("val")
    trainer = Trainer(config, train, val, out, digest, progress, row, world)
    facts = {"digest": digest, "manifest": str(manifest.path), "manifest_sha256": manifest.sha256, "dims": features.dims, **environment()}
    facts |= {"classes": trainer.classes} if trainer.classes else {}
    # Only now, when nothing in the configuration can be wrong any more, does the folder become a run.
    if world.rank == 0:
        checkpoint.write_json(out / "run.json", facts)
        checkpoint.write(out / "config.toml", configuration.to_toml(config))
    if resume:
        trainer.resume()
    return trainer.fit()


@dataclass(frozen=True)
class Run:
    """A run with a best checkpoint, opened for reading."""

    path: Path
    config: Config
    facts: dict  # run.json
    model: Model  # in evaluation mode, with the weights of the best epoch
    epoch: int
    manifest: Manifest
    classifier: nn.Module | None = None  # of a run that classifies
    metric: torch.Tensor | None = None  # M of a run that learned one, (d, d) or its diagonal (d,): pairs are scored by it

    def features(self, split: str, progress: bool = True) -> Batch:
        """The items of a split with their features, on the model's device."""
        batch = load_batch(self.manifest, self.config, progress).split(split)
        return batch.to(next(self.model.parameters()).device)

    def evaluate(self, split: str, progress: bool = True) -> dict:
        """Every direction's metrics on a split and the protocol behind them; also written to <split>.json."""
        from .evaluation import score_run, write_report

        if self.classifier is not None:
            report = classification_report(self, split, progress)
            checkpoint.write_json(self.path / f"{split}.json", report)
            return report
        return write_report(score_run(self, split, progress=progress))


def open_run(path: Path, data: str | None = None) -> Run:
    """Open the folder of a run. `data`: another place of its manifest; the content must be the same."""
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    facts = checkpoint.read_json(path / "run.json")
    if facts is None:
        raise UserError(f"{path}: not the folder of a run, it has no run.json")
    if not {"digest", "dims", "manifest_sha256"} <= facts.keys() or not (path / "config.toml").is_file():
        raise UserError(f"{path}: run.json is not that of a run, or config.toml is missing")
    config = configuration.load(path / "config.toml")
    if data is not None:
        config = config.replace(data={"manifest": data})
    weights, marks = checkpoint.load_weights(path / "best.safetensors")
    if marks.get("digest") != facts["digest"]:
        raise UserError(f"{path}: best.safetensors belongs to another configuration than run.json")
    manifest = open_manifest(config.data)
    if manifest.sha256 != facts["manifest_sha256"]:
        raise UserError(f"{manifest.path}: has changed since {path} was trained on it; fit again, or give the old file by --data")
    learned = {name: weights.pop(name) for name in list(weights) if name.startswith(OBJECTIVE) and name.split(".")[0] not in facts["dims"]}
    model = _load(config, facts["dims"], weights, path)
    classifier = _load_classifier(config, facts, learned, model) if config.objective.name in CLASSIFIERS else None
    return Run(path, config, facts, model, marks["epoch"], manifest, classifier, learned.get(OBJECTIVE + "M"))


def open_manifest(data: configuration.Data) -> Manifest:
    """The manifest that data.manifest names (`find_manifest`), with the splits, gaps and noise that `data` asks for."""
    if not data.manifest:
        raise UserError(f"no data: give --data MANIFEST or --data NAME with one of {', '.join(CORPORA)}")
    manifest = Manifest.read(find_manifest(data.manifest))
    if data.split_seed is not None:
        manifest = manifest.resplit(data.split_seed, data.split_by)
    if data.hold_out or data.test_only:
        manifest = held_out(manifest, data.hold_out, data.test_only)
    return corrupt(manifest, data.missing, data.noise, data.split_seed or 0) if data.missing or data.noise else manifest


def run_digest(config: Config, manifest: Manifest) -> str:
    """What tells runs apart: every value of the configuration, the data, what encodes each modality, the version."""
    used = encoders_of(manifest, config.data, config.model.encoders)
    plain = ("vector", "trained")
    names = [f"{name}={kind}" + ("" if kind in plain else f"-{encoder(kind).version}") for name, kind in sorted(used.items())]
    return config.digest(manifest.sha256, *names, transphere.__version__)


@functools.cache
def environment() -> dict[str, str | int]:
    """What a result may depend on besides the configuration."""
    return {
        "transphere": transphere.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _claim(out: Path, config: Config, digest: str, resume: bool, held: contextlib.ExitStack) -> dict | None:
    """Make sure that `out` is ours to write to, as long as `held` lasts; its done.json when it holds this very run, finished."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        held.enter_context(alone(out))
        names = {path.name for path in out.iterdir()}
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from None
    if not names:
        return None
    facts = checkpoint.read_json(out / "run.json")
    if facts is None:
        raise UserError(f"--out {out}: the folder is not empty and holds no run; give another")
    if not resume:
        raise UserError(f"--out {out}: holds a run already; go on with it by --resume auto, or give another folder")
    if facts.get("digest") != digest:
        raise UserError(f"--out {out}: holds another run ({_difference(out, config)}); give another folder")
    done = checkpoint.read_json(out / "done.json")
    return done if done and done.get("digest") == digest and (out / "best.safetensors").is_file() else None


def _difference(out: Path, config: Config) -> str:
    """What sets the run in `out` apart from `config`, in words."""
    if not (out / "config.toml").is_file():
        return "its config.toml is missing"
    there, here = asdict(configuration.load(out / "config.toml")), asdict(config)
    differing = [
        f"{section}.{key} = {there[section][key]!r} there, {here[section][key]!r} here"
        for section in here
        for key in here[section]
        if there[section][key] != here[section][key]
    ]
    return "; ".join(differing) or "the data or the version of transphere has changed"


def _load_classifier(config: Config, facts: dict, learned: dict[str, torch.Tensor], model: Model) -> nn.Module:
    classifier = build_objective(config.objective, config.model.dim, facts["dims"], facts["classes"])
    classifier.load_state_dict({name.removeprefix(OBJECTIVE): x for name, x in learned.items()})
    return classifier.to(next(model.parameters()).device).eval()


def _load(config: Config, dims: dict[str, int], weights: dict[str, torch.Tensor], path: Path) -> Model:
    model = build_model(config.model, dims)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path}: best.safetensors does not fit config.toml: {str(error).splitlines()[0]}") from None
    return model.to(pick_device(config.run.device)).eval()
