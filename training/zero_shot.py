"""Classification by the nearest class embedding, the classes being the labels of the manifest.

A class is embedded from prompts ("a photo of {}"), which takes no example of it, or as the mean of its training items, which does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    classes = all_labels(run)
    if len(classes) < 2:
        raise UserError(f"--zero-shot: expected two labels or more in {run.manifest.path}, got {len(classes)}")
    if templates and text_modality(run) is None:
        raise UserError(f"--prompt: no modality of the run is encoded from text; it has {', '.join(run.facts['dims'])}")
    chosen = list(templates or TEMPLATES)
    results: dict[str, dict[str, dict]] = {}
    for name, form, scores, truth in trials(scored, chosen):
        results.setdefault(name, {})[form] = {**zero_shot(scores, truth), "chance": 1 / scores.shape[1]}
    if not results:
        raise UserError(f"--zero-shot: no item of the {scored.split} split has a label that can be chosen")
    return {"templates": [] if text_modality(run) is None else chosen, "labels": classes, "modalities": results}


def trials(scored: Scored, templates: Sequence[str] = TEMPLATES) -> Iterator[tuple[str, str, torch.Tensor, torch.Tensor]]:
    """What is classified: modality, form of the class embeddings, scores (n, C) float32, and the right classes (n,), both on the CPU."""
    run, text = scored.run, text_modality(scored.run)
    forms = {}
    if text is not None:
        forms[PROMPTS] = all_labels(run), prompt_points(run, text, all_labels(run), templates, scored.mean)
    for name, found in training_means(scored).items():
        forms[f"training {name}"] = found
    for name in scored.batch.modalities:
        there = scored.batch.present[name].tolist()
        for form, (labels, points) in forms.items():
            number = {label: k for k, label in enumerate(labels)}
            rows = [i for i, item in enumerate(scored.batch.items) if there[i] and item.label in number]
            if rows:
                truth = torch.tensor([number[scored.batch.items[i].label] for i in rows])
                yield name, form, score(scored.points[(name,)][rows], points, run.metric).cpu(), truth


def all_labels(run: Run) -> list[str]:
    """The labels of the manifest, sorted."""
    return sorted({item.label for item in run.manifest.items if item.label})


def text_modality(run: Run) -> str | None:
    """The first modality that is encoded from text."""
    return next((name for name in run.facts["dims"] if kind_of(run, name) == TEXT), None)


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
