"""Pictures of a run: training curves and a map of its embeddings. Drawn without a display."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import torch

from .batch import Batch
from .data.cache import replacing
from .errors import UserError
from .evaluator import embed
from .seeding import derive

if TYPE_CHECKING:
    from .run import Run

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 (after the choice of the backend)

COLOURS = ("#3b6fb6", "#d1495b", "#4d9a57", "#c98a1b", "#7d5ba6", "#2aa5a0", "#8a6d52", "#e07ab0")
OTHER = "#b9bec6"
MAPPED = 700  # items in a map; of more, so many, evenly spaced: all of them would take minutes and hide each other
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_run(run: Run, split: str) -> list[Path]:
    """Draw everything that a run can show into its folder; returns the files."""
    from .contact_sheet import contact_sheet

    batch = run.features(split)
    points = embed(run.model, batch, run.config.run.eval_samples, derive(run.config.run.seed, split))
    files = [run.path / "curves.png", run.path / f"map-{split}.png", run.path / f"answers-{split}.png"]
    curves({run.path.name: [read_history(run.path)]}, files[0])
    embedding_map(points, batch, files[1])
    contact_sheet(points, batch, run.manifest.root, files[2], metric=run.metric)
    return files


def read_history(run: Path) -> list[dict]:
    """The lines of metrics.jsonl."""
    path = run / "metrics.jsonl"
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: expected a JSON object a line: {error}") from None


def curves(arms: dict[str, list[list[dict]]], path: Path, colours: tuple[str, ...] = COLOURS) -> None:
    """Loss and validation MRR over the epochs. arms: name -> the histories of its runs (one a seed): thin, their mean thick.

    Of the loss the parts L_C and L_S, which runs of several objectives share, where some run has one.
    """
    parts = list(dict.fromkeys(key for runs in arms.values() for h in runs for key in h[0] if key in ("contrastive", "sliced"))) or ["loss"]
    titles = {
        "loss": "loss (train)",
        "contrastive": "contrastive loss $L_C$ (train)",
        "sliced": "sliced transport loss $L_S$ (train)",
        "val_mrr": "mean MRR (validation)",
    }
    figure, axes = plt.subplots(1, len(parts) + 1, figsize=(4.2 * (len(parts) + 1), 3.4), layout="constrained", squeeze=False)
    for axis, key in zip(axes[0], [*parts, "val_mrr"], strict=True):
        for (name, runs), colour in zip(arms.items(), _cycle(colours), strict=False):
            series = [{record["epoch"]: record[key] for record in history if key in record} for history in runs]
            series = [values for values in series if values]
            for values in series:
                axis.plot(values.keys(), values.values(), color=colour, alpha=0.3 if len(series) > 1 else 1, linewidth=1)
                if key == "val_mrr":
                    best = max(values, key=values.get)
                    axis.plot(best, values[best], marker="o", color=colour, markersize=4)
            if len(series) > 1:
                common = sorted(set.intersection(*(set(values) for values in series)))
                axis.plot(
                    common, [np.mean([values[epoch] for values in series]) for epoch in common], color=colour, linewidth=2, label=name
                )
            elif series:
                axis.plot([], [], color=colour, label=name)
        axis.set_title(titles[key], fontsize=10)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    # Beside the panels: on one of them it would hide a line sooner or later.
    names = {"frameon": False, "fontsize": 9, "title": "dot: the epoch that was chosen", "title_fontsize": 8}
    figure.legend(*axes[0][-1].get_legend_handles_labels(), loc="outside right center", **names)
    save_figure(figure, path)


def embedding_map(points: dict[tuple[str, ...], torch.Tensor], batch: Batch, path: Path) -> None:
    """t-SNE of the embeddings of every modality together: colour = label, marker = modality."""
    from sklearn.manifold import TSNE

    count = f"{len(batch)}"
    if len(batch) > MAPPED:
        places = torch.linspace(0, len(batch) - 1, MAPPED).long().tolist()
        points, batch, count = {names: x[places] for names, x in points.items()}, batch.select(places), f"{MAPPED} of {count}"
    names = list(batch.inputs)
    present = {name: batch.present[name].cpu() for name in names}
    z = torch.cat([points[(name,)].cpu()[present[name]] for name in names]).float().numpy()  # (M, d)
    if len(z) < 4:
        raise UserError(f"a map needs at least 4 embeddings, got {len(z)}")
    flat = TSNE(metric="cosine", init="pca", perplexity=min(30.0, (len(z) - 1) / 3), random_state=0).fit_transform(z)  # (M, 2)
    labels = [item.label or "unlabelled" for item in batch.items]
    colour_of = dict(zip([label for label, _ in Counter(labels).most_common(len(COLOURS))], COLOURS, strict=False))
    figure, axis = plt.subplots(figsize=(9.6, 6.6), layout="constrained")
    start = 0
    for name, marker in zip(names, _cycle(MARKERS), strict=False):
        colours = [colour_of.get(labels[i], OTHER) for i in present[name].nonzero().flatten().tolist()]
        xy = flat[start : start + len(colours)]
        start += len(colours)
        axis.scatter(*xy.T, c=colours, marker=marker, s=34, linewidths=0.5, edgecolors="white")
    keys = [plt.Line2D([], [], linestyle="", marker=m, color="#555", label=name) for name, m in zip(names, _cycle(MARKERS), strict=False)]
    keys += [plt.Line2D([], [], linestyle="", marker="o", color=colour, label=label) for label, colour in colour_of.items()]
    if len(set(labels)) > len(colour_of):
        keys.append(plt.Line2D([], [], linestyle="", marker="o", color=OTHER, label="other"))
    figure.legend(handles=keys, loc="outside right upper", frameon=False, fontsize=10)
    axis.set_title(f"t-SNE of the embeddings of {count} items: colour = category, shape = modality", fontsize=11)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color("#ccc")
    save_figure(figure, path)


def _cycle(values: tuple[str, ...]) -> list[str]:
    return list(values) * 8


def save_figure(figure: plt.Figure, path: Path, dpi: int = 130) -> None:
    """Write a figure, atomically, and close it."""
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=dpi)
    finally:
        plt.close(figure)
