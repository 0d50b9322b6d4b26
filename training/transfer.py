"""A run tested on another corpus than the one it was trained on."""

from __future__ import annotations

from pathlib import Path

from . import checkpoint
from .batch import load_batch
from .config import Data
from .data.manifest import Manifest
from .errors import UserError
from .evaluator import evaluate
from .model import Model
from .run import Run, open_manifest, open_run
from .seeding import derive


def read_transfer(path: Path, corpus: str) -> dict[str, dict[str, float]]:
    """direction -> metrics of the run on `corpus`, measured once and then read.

    All items of it but those whose caption is among the run's training or validation captions; the directions whose modalities both have.
    """
    file = path / f"transfer-{Path(corpus).stem}.json"
    run = open_run(path)
    manifest = open_manifest(Data(manifest=corpus))
    report = checkpoint.read_json(file)
    if report and report["digest"] == run.facts["digest"] and report["manifest_sha256"] == manifest.sha256:
        return report["directions"]
    report = {"digest": run.facts["digest"], "manifest_sha256": manifest.sha256, **transfer(run, manifest)}
    checkpoint.write_json(file, report)
    return report["directions"]


def transfer(run: Run, manifest: Manifest) -> dict:
    """What `read_transfer` writes."""
    seen = {item.caption for item in run.manifest.items if item.split != "test" and item.caption}
    kept = [item for item in manifest.items if item.caption not in seen]
    config = run.config
    shared = [name for name in run.facts["dims"] if name in manifest.modalities]
    if len(shared) < 2 or len(kept) < 2:
        return {"items": len(kept), "directions": {}}
    other = Manifest(kept, manifest.path, manifest.sha256)
    plain = config.replace(data={"modalities": shared, "missing": {}, "noise": {}})
    batch = load_batch(other, plain, progress=False).to(next(run.model.parameters()).device)
    for name, width in batch.dims.items():
        if width != run.facts["dims"][name]:
            raise UserError(f"{manifest.path}: {name} has {width} numbers an item, {run.path} was trained on {run.facts['dims'][name]}")
    results = evaluate(_only(run, shared), batch, config.run.eval_samples, derive(config.run.seed, "test"), metric=run.metric)
    return {"items": len(kept), "directions": results}


def _only(run: Run, names: list[str]) -> Model:
    """The model with these modalities alone."""
    return Model({name: run.model[name] for name in names})
