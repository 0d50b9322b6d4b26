"""What an experiment measures of a run beside its test evaluation: classes, gaps, zero-shot, enriched galleries, plans, kappa and M."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from transphere import VonMisesFisher

from . import checkpoint
from .evaluation import Scored, report_of, score_run
from .metrics import per_query
from .plan_scores import by_plan
from .run import Run, open_run
from .separation import gaps
from .zero_shot import classify

CURVE = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50)
NOTHING = {**dict.fromkeys(("recall", "classes", "gap", "zero_shot", "enriched", "plan", "kappa"), {}), "eigenvalues": []}
SHOWN = ("prompts", "training class")
KEPT = ("R@1", "R@5", "R@10", "MRR", "median_rank")


def read_probes(path: Path, plan: bool = True) -> dict:
    """`probe` of the run's test items, made once and then read."""
    digest = (checkpoint.read_json(path / "run.json") or {}).get("digest")
    report = checkpoint.read_json(path / "probes.json")
    if report and report["digest"] == digest and report.get("by_plan", True) >= plan:
        return report if plan else {**report, "plan": {}}
    report = {"digest": digest, "by_plan": plan, **probe(open_run(path), plan)}
    checkpoint.write_json(path / "probes.json", report)
    return report


def probe(run: Run, plan: bool = True) -> dict:
    """All of it for the test items.

    recall: direction -> R@k for every k of CURVE. classes: direction -> R-precision, mAP and R@1 where every item of the same label is a
    right answer. gap: pair of modalities -> `modality_gap`. zero_shot: "image by prompts" -> `zero_shot`, where there are labels and a text
    encoder, and by the embeddings of a modality "class", where there is one. enriched: direction -> metrics where an answer is the mean of
    all its modalities but the query's. plan: direction -> metrics by the transport plan of the whole split, transductive, where `plan` asks
    for it. kappa: modality -> its values. eigenvalues: those of the metric M, if one was learned.
    """
    scored = score_run(run, "test", progress=False)
    if run.classifier is not None:  # its embeddings were never brought together
        return {**NOTHING, "kappa": _kappa(scored)}
    labels = {item.label for item in run.manifest.items} - {""}
    classified = classify(scored)["modalities"] if len(labels) > 1 else {}
    enriched = score_run(run, "test", enrich=True, progress=False) if len(scored.batch.inputs) > 2 else None
    return {
        "recall": _recall(scored),
        "classes": _classes(scored),
        "gap": gaps(scored),
        "zero_shot": {f"{name} by {form}": found for name, forms in classified.items() for form, found in forms.items() if form in SHOWN},
        "enriched": _kept(report_of(enriched)["directions"]) if enriched else {},
        "plan": _kept({name: found["plan"] for name, found in by_plan(scored)["directions"].items()}) if plan else {},
        "kappa": _kappa(scored),
        "eigenvalues": _eigenvalues(run.metric),
    }


def _kept(results: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {key: metrics[key] for key in KEPT} for name, metrics in results.items()}


def _recall(scored: Scored) -> dict[str, list[float]]:
    curves = {}
    for direction, ranking in scored.rankings():
        each = per_query(ranking.scores, ranking.positives, CURVE)
        curves[direction] = [float(each[f"R@{k}"].mean()) for k in CURVE]
    return curves


def _classes(scored: Scored) -> dict[str, dict[str, float]]:
    labels = np.array([item.label for item in scored.batch.items])
    if len(set(labels) - {""}) < 2:
        return {}
    found = {}
    for direction, ranking in scored.rankings():
        asked = [i for i, query in enumerate(ranking.queries) if labels[query]]
        own = labels[[ranking.queries[i] for i in asked]]
        same = torch.from_numpy(own[:, None] == labels[ranking.gallery])  # (Q, G)
        answered = same.any(1)
        if answered.any():
            each = per_query(ranking.scores[asked][answered], same[answered])
            found[direction] = {name: float(each[name].mean()) for name in ("R-precision", "mAP", "R@1")}
    return found


def _kappa(scored: Scored) -> dict[str, list[float]]:
    with torch.no_grad():
        laws = scored.run.model(scored.batch.inputs)
    there = scored.batch.present
    values = {name: law.concentration[there[name]].tolist() for name, law in laws.items() if isinstance(law, VonMisesFisher)}
    return {name: [round(value, 3) for value in found] for name, found in values.items()}


def _eigenvalues(M: torch.Tensor | None) -> list[float]:
    if M is None:
        return []
    values = M if M.dim() == 1 else torch.linalg.eigvalsh(0.5 * (M + M.mT).double())
    return [float(f"{value:.6g}") for value in values.sort().values]
