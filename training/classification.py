"""Classification by the manifest's labels from all modalities at once: MMCosine, and the softmax that it is compared with.

Both sum a score per modality and class. Epochs are chosen, and runs tested, by the ranks of the right classes under the scores that were
trained: R@1 of "image+text->label" is the accuracy, and "image->label" that of a modality by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transphere import VonMisesFisher, losses

from .errors import UserError
from .heads import FUSIONS, Embedding
from .metrics import retrieval_metrics

if TYPE_CHECKING:
    from .batch import Batch
    from .config import Objective
    from .model import Model
    from .run import Run

CHUNK = 512  # items in the network at a time


class Softmax(nn.Module):
    """Cross-entropy of linear scores of the features side by side, sum_m W_m f_m + b: what MMCosine calls vanilla.

    f_m is what a "natural" head computes, the length with it: kappa times mu.
    """

    def __init__(self, classes: int, *, modalities: Mapping[str, int]) -> None:
        super().__init__()
        self.weight = nn.ParameterDict({name: nn.init.xavier_uniform_(torch.empty(classes, width)) for name, width in modalities.items()})
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(
        self, embeddings: Mapping[str, VonMisesFisher], present: Mapping[str, Tensor] | None = None, *, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"softmax": itself, "accuracy"}, detached; labels: (B,) whole numbers."""
        logits = self.logits(embeddings, present)
        loss = nn.functional.cross_entropy(logits, labels)
        return loss, {"softmax": loss.detach(), "accuracy": (logits.argmax(1) == labels).to(loss.dtype).mean()}

    def logits(self, embeddings: Mapping[str, VonMisesFisher | Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, C); an absent modality leaves its item's sum."""
        total = self.bias
        for name, law in embeddings.items():
            f = law.concentration[:, None] * law.loc if isinstance(law, VonMisesFisher) else law  # (B, d)
            scores = f @ self.weight[name].T
            mask = (present or {}).get(name)
            total = total + (scores if mask is None else torch.where(mask[:, None], scores, 0.0))
        return total


class Fused(nn.Module):
    """Cross-entropy of the scores of two modalities' features fused by `heads.FUSIONS`, the baselines of MMCosine beside `Softmax`.

    An absent modality, or one that is not asked for, counts as the zero vector.
    """

    def __init__(self, classes: int, *, modalities: Mapping[str, int], kind: str) -> None:
        super().__init__()
        if len(modalities) != 2 or len(set(modalities.values())) != 1:
            raise ValueError(f"{kind} fuses two modalities, got {', '.join(modalities)}; name two by data.modalities")
        self.names = tuple(modalities)
        self.fusion = FUSIONS[kind](modalities[self.names[0]], classes)

    def forward(
        self, embeddings: Mapping[str, Embedding], present: Mapping[str, Tensor] | None = None, *, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"cross_entropy": itself, "accuracy"}, detached; labels: (B,) whole numbers."""
        logits = self.logits(embeddings, present)
        loss = nn.functional.cross_entropy(logits, labels)
        return loss, {"cross_entropy": loss.detach(), "accuracy": (logits.argmax(1) == labels).to(loss.dtype).mean()}

    def logits(self, embeddings: Mapping[str, Embedding], present: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, C)."""
        found = {}
        for name, law in embeddings.items():
            f = law.concentration[:, None] * law.loc if isinstance(law, VonMisesFisher) else law  # (B, d)
            mask = (present or {}).get(name)
            found[name] = f if mask is None else torch.where(mask[:, None], f, 0.0)
        blank = torch.zeros_like(next(iter(found.values())))
        return self.fusion(*(found.get(name, blank) for name in self.names))


CLASSIFIERS = {
    "mmcosine": losses.MMCosine,
    "softmax": Softmax,
    "gated": functools.partial(Fused, kind="gated"),
    "film": functools.partial(Fused, kind="film"),
}


def build_classifier(config: Objective, dims: Mapping[str, int], classes: Sequence[str]) -> nn.Module:
    """The objective of a `config.Objective`; dims: modality -> width of its embedding."""
    keys = {"logit_scale": "scale", "bound": "bound", "probability": "probability"} if config.name == "mmcosine" else {}
    chosen = [f.name for f in fields(config) if f.default is None and getattr(config, f.name) is not None]
    for key in chosen:
        if key not in keys:
            raise UserError(f"objective.{key}: {config.name} does not take it; it takes {', '.join(keys) or 'nothing'}")
    given = {keys[key]: getattr(config, key) for key in chosen}
    try:
        return CLASSIFIERS[config.name](len(classes), modalities=dict(dims), **given)
    except ValueError as error:
        raise UserError(f"objective: {error}") from None


def class_names(batch: Batch) -> list[str]:
    """The labels of a batch of training items, sorted. UserError where an item has none, or all have the same."""
    bare = next((item.id for item in batch.items if not item.label), None)
    if bare is not None:
        raise UserError(f"objective: a classification needs a label for every training item; {bare!r} has none")
    names = sorted({item.label for item in batch.items})
    if len(names) < 2:
        raise UserError(f"objective: a classification needs two labels or more among the training items, got {', '.join(names)}")
    return names


def label_numbers(batch: Batch, classes: Sequence[str]) -> Tensor:
    """(N,) the place of each item's label among the classes; -1 where it is not one of them."""
    number = {name: k for k, name in enumerate(classes)}
    return torch.tensor([number.get(item.label, -1) for item in batch.items], dtype=torch.long)


@torch.no_grad()
def evaluate_classes(model: Model, classifier: nn.Module, batch: Batch, classes: Sequence[str], alone: bool) -> dict[str, dict[str, float]]:
    """{"image+text->label": metrics} over the items of a known label; with `alone` each modality by itself as well."""
    training = model.training
    model.eval()
    try:
        places = [list(range(start, min(start + CHUNK, len(batch)))) for start in range(0, len(batch), CHUNK)]
        parts = [(model(part.inputs), part.present) for part in batch.stream(places)]
    finally:
        model.train(training)
    labels = label_numbers(batch, classes)
    names = list(batch.present)
    results = {}
    for query in [tuple(names), *((name,) for name in names if alone)]:
        logits = torch.cat([classifier.logits({n: laws[n] for n in query}, present) for laws, present in parts]).float().cpu()  # (N, C)
        there = torch.stack([batch.present[n] for n in query]).any(0).cpu() & (labels >= 0)
        if there.any():
            right = labels[there, None] == torch.arange(len(classes))
            results[f"{'+'.join(query)}->label"] = retrieval_metrics(logits[there], right)
    return results


def classification_report(run: Run, split: str, progress: bool = True) -> dict:
    """What `Run.evaluate` gives for a run that classifies."""
    results = evaluate_classes(run.model, run.classifier, run.features(split, progress), run.facts["classes"], alone=True)
    if not results:
        raise UserError(f"no item of the {split} split has a label that was trained")
    return {
        "split": split,
        "epoch": run.epoch,
        "score": "the classifier's, as trained",
        "ties": "expected rank",
        "positives": "the item's label; R@1 is the accuracy",
        "directions": results,
        "config": asdict(run.config),
        "run": run.facts,
    }
