"""Tables for people."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from .metrics import KS


def evaluation_table(report: dict) -> str:
    """A markdown table of one evaluation (see Run.evaluate), a row per direction."""
    rows = [["direction", *(f"R@{k} %" for k in KS), "MRR", "median rank", "queries", "gallery", "chance R@10 %"]]
    for name, m in report["directions"].items():
        rows.append(
            [
                arrows(name),
                *(f"{100 * m[f'R@{k}']:.1f}" for k in KS),
                f"{m['MRR']:.3f}",
                f"{m['median_rank']:g}",
                str(m["queries"]),
                str(m["gallery"]),
                f"{100 * m['chance_R@10']:.1f}",
            ]
        )
    tied = max(m["tied"] for m in report["directions"].values())
    note = f"\nUp to {100 * tied:.0f} % of a direction's queries tie; the JSON holds the bounds." if tied else ""
    return markdown(rows) + note


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is the head and whose columns but the first are aligned right, padded to be read as plain text too."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (w + 1) + ":" if i else "-" * (w + 2) for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def arrows(direction: str) -> str:
    """image+text->speech as image + text → speech"""
    return direction.replace("->", " → ").replace("+", " + ")


def mean_sd(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (divisor n - 1; 0 for a single value)."""
    values = list(values)
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def summary(metrics: list[dict[str, float]]) -> dict[str, dict[str, object]]:
    """Mean, standard deviation and values of every number, over one dictionary a seed."""
    found = {}
    for key in metrics[0]:
        values = [m[key] for m in metrics if key in m]
        mean, sd = mean_sd(values)
        found[key] = {"mean": mean, "sd": sd, "values": values}
    return found


def percent(metric: dict) -> str:
    """12.3 ± 4.5 of a `summary`'s fraction, 12.3 of a single seed."""
    return _spread(100 * metric["mean"], 100 * metric["sd"], len(metric["values"]), 1)


def plus_minus(metric: dict, digits: int = 3) -> str:
    """0.123 ± 0.045 of a `summary`'s number, 0.123 of a single seed."""
    return _spread(metric["mean"], metric["sd"], len(metric["values"]), digits)


def _spread(mean: float, sd: float, n: int, digits: int) -> str:
    return f"{mean:.{digits}f} ± {sd:.{digits}f}" if n > 1 else f"{mean:.{digits}f}"


# Two-sided 95 % points of Student's t by degrees of freedom.
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def verdict(baseline: list[float], sliced: list[float]) -> dict[str, object]:
    """Did the second of two arms score higher, seed by seed? The paired differences, their mean and sd, and one sentence.

    baseline, sliced: mean MRR over all directions, one number per seed. "Beyond noise" is a two-sided 95 % paired t-test.
    """
    found = paired(baseline, sliced)
    mean, sd, n = found["mean"], found["sd"], len(found["differences"])
    numbers = f"mean MRR over the directions changes by {mean:+.4f} ± {sd:.4f} (paired over {n} seed{'s' if n > 1 else ''})"
    if n < 2:
        sentence = f"One seed cannot tell whether L_S helped: {numbers}."
    elif not found["beyond_noise"]:
        sentence = f"Adding L_S made no difference beyond noise here: {numbers}."
    else:
        sentence = f"Adding L_S {'helped' if mean > 0 else 'hurt'} here: {numbers}."
    return {**found, "sentence": sentence}


def paired(first: list[float], second: list[float]) -> dict[str, object]:
    """How much higher the second is, seed by seed: the differences, mean and sd, and whether a two-sided 95 % t-test tells them from 0.

    One seed cannot tell: beyond_noise is None.
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    mean, sd = mean_sd(differences)
    n = len(differences)
    beyond = None if n < 2 else abs(mean) > _T95.get(n - 1, 1.96 + 2.7 / (n - 1)) * sd / math.sqrt(n)
    return {"differences": differences, "mean": mean, "sd": sd, "beyond_noise": beyond}
