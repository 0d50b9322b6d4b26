"""Frozen features compared as they are, without training: the control of a cascade through text."""

from __future__ import annotations

from .batch import load_batch
from .config import Config
from .data.manifest import Manifest
from .errors import UserError
from .evaluator import directions, rank_direction
from .metrics import retrieval_metrics
from .run import open_manifest


def untrained_report(config: Config) -> dict:
    """What `Run.evaluate` gives, of the test items' features by their cosine. UserError where two modalities' features differ in width."""
    manifest = open_manifest(config.data)
    tested = Manifest([item for item in manifest.items if item.split == "test"], manifest.path, manifest.sha256)
    batch = load_batch(tested, config, progress=False).split("test")
    if len(set(batch.dims.values())) > 1:
        widths = ", ".join(f"{name} {width}" for name, width in batch.dims.items())
        raise UserError(f"untrained: features that are compared need one space, got widths {widths}")
    points = {(name,): x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12) for name, x in batch.inputs.items()}
    results = {}
    for direction in directions(batch.modalities, most=1):
        ranking = rank_direction(direction, points, batch)
        if ranking.queries:
            results[str(direction)] = retrieval_metrics(ranking.scores, ranking.positives)
    return {"split": "test", "epoch": 0, "directions": results}
