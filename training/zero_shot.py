"""Classification by the nearest class embedding, the classes being the labels of the manifest.

A class is embedded from prompts ("a photo of {}"), which takes no example of it, or as the mean of its training items, which does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .errors import UserError
from .evaluator import MEANS, embed, score
from .geometry import zero_shot
from .queries import TEXT, kind_of, samples
from .seeding import derive

if TYPE_CHECKING:
    from .evaluation import Scored
    from .run import Run

TEMPLATES = ("a photo of {}", "a picture of {}", "{}")
PROMPTS = "prompts"


def classify(scored: Scored, templates: Sequence[str] | None = None) -> dict:
    """Accuracy and T1 of every modality against every form of class embeddings, with chance beside.

    "prompts": the label in each template, through the run's text modality, averaged. "training image" and the like: the mean of the class's
    training items in that modality. All labels of the manifest are to choose from (for training means, those that a training item
    has); items without a label, or of one that is not to choose from, are left out. chance: 1 / classes to choose from, of accuracy and
    of T1 alike. Raises UserError where fewer than two labels are there, and for templates where no modality is text.
    """
    run = scored.run
    classes = sorted({item.label for item in run.manifest.items if item.label})
    if len(classes) < 2:
        raise UserError(f"--zero-shot: expected two labels or more in {run.manifest.path}, got {len(classes)}")
    text = next((name for name in run.facts["dims"] if kind_of(run, name) == TEXT), None)
    if text is None and templates:
        raise UserError(f"--prompt: no modality of the run is encoded from text; it has {', '.join(run.facts['dims'])}")
    chosen = list(templates or TEMPLATES)
    forms = {} if text is None else {PROMPTS: (classes, prompt_points(run, text, classes, chosen, scored.mean))}
    for name, (labels, points) in training_means(scored).items():
        forms[f"training {name}"] = (labels, points)
    results = {}
    for form, (labels, points) in forms.items():
        for name in scored.batch.modalities:
            found = _accuracy(scored, name, labels, points)
            if found is not None:
                results.setdefault(name, {})[form] = {**found, "chance": 1 / len(labels)}
    if not results:
        raise UserError(f"--zero-shot: no item of the {scored.split} split has a label that can be chosen")
    return {"templates": chosen if text is not None else [], "labels": classes, "modalities": results}


def prompt_points(run: Run, text: str, classes: Sequence[str], templates: Sequence[str], mean: str = "frechet") -> torch.Tensor:
    """(C, d): the mean over the samples of every template with the class's name in it ("_" read as a space)."""
    for template in templates:
        if "{}" not in template:
            raise UserError(f'--prompt {template!r}: expected {{}} where the label goes, as in "a photo of {{}}"')
    words = [template.replace("{}", name.replace("_", " ")) for name in classes for template in templates]
    drawn = samples(run, text, words, "prompts")  # (C T, L, d)
    return MEANS[mean](drawn.reshape(len(classes), -1, drawn.shape[-1]))


def training_means(scored: Scored) -> dict[str, tuple[list[str], torch.Tensor]]:
    """modality -> the labels that its training items have, and the mean of those items' points for each, (C, d)."""
    run = scored.run
    batch = run.features("train", progress=False)
    sets = [(name,) for name in batch.modalities]
    points = embed(run.model, batch, run.config.run.eval_samples, derive(run.config.run.seed, "train"), mean=scored.mean, sets=sets)
    results = {}
    for name in batch.modalities:
        there = batch.present[name].tolist()
        places: dict[str, list[int]] = {}
        for i, item in enumerate(batch.items):
            if there[i] and item.label:
                places.setdefault(item.label, []).append(i)
        if len(places) > 1:
            labels = sorted(places)
            results[name] = labels, torch.stack([MEANS[scored.mean](points[(name,)][places[label]]) for label in labels])
    return results


def _accuracy(scored: Scored, modality: str, labels: list[str], points: torch.Tensor) -> dict[str, float] | None:
    """`geometry.zero_shot` of one modality, or None where no item can be classified."""
    number = {label: k for k, label in enumerate(labels)}
    there = scored.batch.present[modality].tolist()
    rows = [i for i, item in enumerate(scored.batch.items) if there[i] and item.label in number]
    if not rows:
        return None
    truth = torch.tensor([number[scored.batch.items[i].label] for i in rows])
    return zero_shot(score(scored.points[(modality,)][rows], points, scored.run.metric).cpu(), truth)
