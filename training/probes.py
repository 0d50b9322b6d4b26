"""What a run's embeddings show beyond the retrieval of single items: modality gaps, classes, curves, kappa and M."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch

from . import checkpoint
from .batch import Batch, encoders_of
from .data.features import cached
from .encoders import ENCODERS, encoder
from .evaluator import directions, embed, rank_direction
from .geometry import modality_gap, zero_shot
from .metrics import per_query
from .run import Run, open_run
from .seeding import derive

CURVE = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50)
PROMPT = "a picture of {}"


def read_probes(path: Path) -> dict:
    """`probe` of the run's test items, made once and then read."""
    digest = (checkpoint.read_json(path / "run.json") or {}).get("digest")
    report = checkpoint.read_json(path / "probes.json")
    if report and report["digest"] == digest:
        return report
    run = open_run(path)
    report = {"digest": digest, **probe(run, run.features("test", progress=False))}
    checkpoint.write_json(path / "probes.json", report)
    return report


def probe(run: Run, batch: Batch) -> dict:
    """All of it for the items of a batch.

    recall: direction -> R@k for every k of CURVE. classes: direction -> R-precision and mAP where every item of the same label is a right
    answer. gap: pair of modalities -> `modality_gap`. zero_shot: modality -> `zero_shot` against a prompt for each label, where there are a
    text encoder and two labels. kappa: modality -> its values. eigenvalues: those of the metric learned, after the last epoch.
    """
    run_config = run.config.run
    points = embed(run.model, batch, run_config.eval_samples, derive(run_config.seed, "test"))
    with torch.no_grad():
        laws = run.model(batch.inputs)
    kappa = {name: law.concentration[batch.present[name]].cpu().tolist() for name, law in laws.items()}
    return {
        "recall": _recall(points, batch),
        "classes": _classes(points, batch),
        "gap": _gaps(points, batch),
        "zero_shot": _zero_shot(run, points, batch),
        "kappa": {name: [round(value, 3) for value in values] for name, values in kappa.items()},
        "eigenvalues": _eigenvalues(run.path),
    }


def _recall(points: dict[tuple[str, ...], torch.Tensor], batch: Batch) -> dict[str, list[float]]:
    curves = {}
    for direction in directions(batch.inputs):
        ranking = rank_direction(direction, points, batch)
        if ranking.queries:
            each = per_query(ranking.scores, ranking.positives, CURVE)
            curves[str(direction)] = [float(each[f"R@{k}"].mean()) for k in CURVE]
    return curves


def _classes(points: dict[tuple[str, ...], torch.Tensor], batch: Batch) -> dict[str, dict[str, float]]:
    labels = np.array([item.label for item in batch.items])
    if len(set(labels) - {""}) < 2:
        return {}
    found = {}
    for direction in directions(batch.inputs):
        ranking = rank_direction(direction, points, batch)
        asked = [i for i, query in enumerate(ranking.queries) if labels[query]]
        if asked:
            own = labels[[ranking.queries[i] for i in asked]]
            same = torch.from_numpy(own[:, None] == labels[ranking.gallery])  # (Q, G)
            answered = same.any(1)
            each = per_query(ranking.scores[asked][answered], same[answered])
            found[str(direction)] = {name: float(each[name].mean()) for name in ("R-precision", "mAP", "R@1")}
    return found


def _gaps(points: dict[tuple[str, ...], torch.Tensor], batch: Batch) -> dict[str, dict[str, float]]:
    gaps = {}
    for a, b in itertools.combinations(batch.inputs, 2):
        both = batch.present[a] & batch.present[b]
        if int(both.sum()) >= 4:
            gaps[f"{a}|{b}"] = modality_gap(points[(a,)][both], points[(b,)][both])
    return gaps


def _zero_shot(run: Run, points: dict[tuple[str, ...], torch.Tensor], batch: Batch) -> dict[str, dict[str, float]]:
    used = encoders_of(run.manifest, run.config.data)
    writer = next((name for name, kind in used.items() if kind in ENCODERS and ENCODERS[kind].modality == "text"), None)
    names = sorted({item.label for item in run.manifest.items} - {""})
    if writer is None or len(names) < 2:
        return {}
    x = cached(encoder(used[writer]), [PROMPT.format(name) for name in names], progress=False)  # (C, d_in)
    with torch.no_grad():
        prompts = run.model[writer](x.to(next(run.model.parameters()).device)).loc  # (C, d)
    found = {}
    for query in points:
        there = torch.stack([batch.present[name] for name in query]).all(0).cpu()
        asked = [i for i, item in enumerate(batch.items) if item.label and there[i]]
        if asked and writer not in query:
            truth = torch.tensor([names.index(batch.items[i].label) for i in asked])
            found["+".join(query)] = zero_shot((points[query][asked] @ prompts.T).cpu(), truth)
    return found


def _eigenvalues(path: Path) -> list[float]:
    objective = checkpoint.load_state(path / "last.pt").get("objective") if (path / "last.pt").is_file() else None
    M = (objective or {}).get("M")
    if M is None:
        return []
    values = M if M.dim() == 1 else torch.linalg.eigvalsh(0.5 * (M + M.mT).double())
    return [float(f"{value:.6g}") for value in values.sort().values]
