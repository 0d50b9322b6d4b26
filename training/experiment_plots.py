"""An experiment's pictures: training curves, recall curves, kappa, eigenvalues of M, which modality helps, and a map of the embeddings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from PIL import Image

from .data.cache import replacing
from .evaluation import score_run
from .experiment_report import help_of_two
from .plots import COLOURS, curves, embedding_map, read_history, save_figure
from .probes import CURVE
from .report import arrows
from .run import open_run

if TYPE_CHECKING:
    from .experiment import Experiment

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 (after the choice of the backend)

PALETTE = (*COLOURS, "#4b5563", "#9bb80d")
MOST = len(PALETTE)  # variants in one picture: as many as can be told apart


def draw(experiment: Experiment, measured: dict[str, list[dict]], folders: dict[str, list[Path]], out: Path) -> list[Path]:
    """Everything that the experiment's runs can show, as PNGs in `out`; returns the files."""
    names = [variant.name for variant in experiment.variants if not variant.control][:MOST]
    files = [out / "curves.png", out / "map.png"]
    curves({name: [read_history(path) for path in folders[name]] for name in names}, files[0], PALETTE)
    _map(folders[names[0]][0], files[1])
    probes = {name: [run["probes"] for run in measured[name]] for name in names}
    for file, picture, argument in (
        (out / "recall.png", recall_curves, probes),
        (out / "kappa.png", kappa_histograms, probes),
        (out / "eigenvalues.png", eigenvalue_histograms, probes),
        (out / "help.png", help_bars, {name: [run["test"]["directions"] for run in measured[name]] for name in names}),
    ):
        if picture(argument, file):
            files.append(file)
    for file in files:
        _reduce(file)
    return files


def _reduce(file: Path) -> None:
    """The same picture with 256 colours, a third of the bytes: these are committed. By octree: a median cut gives thin lines others."""
    with Image.open(file) as image:
        small = image.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE)
    with replacing(file) as temporary:
        small.save(temporary, optimize=True)


def _map(path: Path, file: Path) -> None:
    scored = score_run(open_run(path), "test", progress=False)
    embedding_map(scored.points, scored.batch, file)


def recall_curves(probes: dict[str, list[dict]], file: Path) -> bool:
    """R@k over k, the mean over seeds with a band of a standard deviation: a panel per one-to-one direction that several variants share."""
    shown = list(dict.fromkeys(d for runs in probes.values() for d in runs[0]["recall"] if "+" not in d))

    def panel(axis: plt.Axes, direction: str) -> None:
        for (name, runs), colour in zip(probes.items(), PALETTE, strict=False):
            if all(direction in run["recall"] for run in runs):
                values = 100 * np.array([run["recall"][direction] for run in runs])  # (seeds, K)
                mean, sd = values.mean(0), values.std(0, ddof=1) if len(values) > 1 else 0
                axis.plot(CURVE, mean, color=colour, label=name)
                axis.fill_between(CURVE, mean - sd, mean + sd, color=colour, alpha=0.12, linewidth=0)
        axis.set_xscale("log")
        axis.set_xticks([1, 5, 10, 20, 50], ["1", "5", "10", "20", "50"])
        axis.minorticks_off()
        axis.set(title=arrows(direction), xlabel="k", ylabel="R@k %")

    return _panels(shown, panel, file)


def kappa_histograms(probes: dict[str, list[dict]], file: Path) -> bool:
    """The concentrations of the test items, a panel per modality."""

    def panel(axis: plt.Axes, modality: str) -> None:
        found = {
            name: np.concatenate([run["kappa"][modality] for run in runs]) for name, runs in probes.items() if modality in runs[0]["kappa"]
        }
        edges = np.histogram_bin_edges(np.concatenate(list(found.values())), 40)
        for (name, values), colour in zip(found.items(), PALETTE, strict=False):
            axis.hist(values, edges, histtype="step", density=True, color=colour, label=name)
        axis.set(title=f"κ of {modality}", xlabel="κ", yticks=[])

    return _panels(list(dict.fromkeys(m for runs in probes.values() for m in runs[0]["kappa"])), panel, file)  # none of plain points


def eigenvalue_histograms(probes: dict[str, list[dict]], file: Path) -> bool:
    """The eigenvalues of the learned metrics after the last epoch, the first seed; False where nothing learned one."""
    found = {name: np.array(runs[0]["eigenvalues"]) for name, runs in probes.items() if runs[0]["eigenvalues"]}

    def panel(axis: plt.Axes, name: str) -> None:
        values = found[name]
        axis.hist(values[:-1], 40, color=COLOURS[0])
        axis.set(title=f"M of {name}", xlabel=f"eigenvalue; the largest, {values[-1]:.3g}, is left out", ylabel="count")
        axis.set_yscale("log")

    return _panels(list(found), panel, file)


def help_bars(results: dict[str, list[dict]], file: Path) -> bool:
    """MRR of each query modality alone and of both together, a panel per direction of two; False where there is none."""
    found = {name: help_of_two(runs) for name, runs in results.items()}

    def panel(axis: plt.Axes, direction: str) -> None:
        parts = direction.split("->")[0].split("+")
        rows = [(name, helped[direction]) for name, helped in found.items() if direction in helped]
        bars = [[row["alone"][part] for _, row in rows] for part in parts] + [[row["together"] for _, row in rows]]
        for k, (label, values, colour) in enumerate(zip([*parts, "both"], bars, COLOURS, strict=False)):
            at = np.arange(len(rows)) + 0.27 * (k - 1)
            axis.bar(at, [v["mean"] for v in values], 0.25, yerr=[v["sd"] for v in values], color=colour, label=label, error_kw={"lw": 0.8})
        axis.set_xticks(range(len(rows)), [name for name, _ in rows], rotation=35, ha="right", fontsize=7)
        axis.set(title=arrows(direction), ylabel="MRR")
        axis.legend(frameon=False, fontsize=7)

    return _panels(list(dict.fromkeys(d for helped in found.values() for d in helped)), panel, file, legend=False)


def _panels(names: list[str], panel: Callable[[plt.Axes, str], None], file: Path, legend: bool = True) -> bool:
    """A picture of at most two rows of panels; False, and no picture, where there is none to draw."""
    if not names:
        return False
    names = names[:8]
    columns = min(4, len(names) if len(names) < 5 else -(-len(names) // 2))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.5 * columns, 2.9 * rows), layout="constrained", squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        panel(axis, name)
        axis.title.set_fontsize(9)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    if legend:
        handles, labels = max((axis.get_legend_handles_labels() for axis in axes.flat), key=lambda pair: len(pair[0]))
        if labels:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, fontsize=8)
    save_figure(figure, file, dpi=90)
    return True
