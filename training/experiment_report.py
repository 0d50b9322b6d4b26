"""An experiment's numbers: means and standard deviations over seeds, beside chance and the controls, as a dictionary and as markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

from .errors import UserError
from .metrics import KS
from .report import arrows, markdown, paired, percent, plus_minus, summary

if TYPE_CHECKING:
    from .experiment import Experiment

Value = Callable[[dict], str]  # a cell's text from its summaries
KEPT = (*(f"R@{k}" for k in KS), "MRR", "median_rank", "R-precision", "tied", *(f"chance_R@{k}" for k in KS), "queries", "gallery")


def experiment_report(experiment: Experiment, measured: dict[str, list[dict]]) -> dict:
    """measured: variant -> for each seed {"test": see Run.evaluate, "probes": see `probes.probe`, "transfer": corpus -> directions}.

    Every number of every direction with mean, standard deviation and values. Where all variants have the same directions, also their mean
    over the directions, and how the mean MRR differs from the first variant's, or from that of the one that a variant names, paired by
    seed.
    """
    directions = {name: _directions(experiment, runs) for name, runs in measured.items()}
    told = {tuple(directions[variant.name]) for variant in experiment.variants if not variant.control}
    common = told.pop() if len(told) == 1 else None
    first = next(iter(measured))
    named = any(variant.against for variant in experiment.variants)
    rows = {}
    for variant in experiment.variants:
        runs = measured[variant.name]
        results = [run["test"]["directions"] for run in runs]
        row = {
            "control": variant.control,
            "directions": {d: summary([_kept(result)[d] for result in results]) for d in directions[variant.name]},
            "classes": _nested([run["probes"]["classes"] for run in runs], directions[variant.name]),
            "gap": _nested([run["probes"]["gap"] for run in runs]),
            "zero_shot": _nested([run["probes"]["zero_shot"] for run in runs]),
            "enriched": _nested([run["probes"]["enriched"] for run in runs], directions[variant.name]),
            "plan": _nested([run["probes"]["plan"] for run in runs], directions[variant.name]),
            "transfer": {corpus: _nested([_kept(run["transfer"][corpus]) for run in runs]) for corpus in experiment.test_on},
            "epochs": [run["test"]["epoch"] for run in runs],
            "modality_help": help_of_two(results),
        }
        if common == tuple(directions[variant.name]):
            row["mean"] = summary([_mean(result, directions[variant.name]) for result in results])
            other = variant.against if named else first
            if other and other != variant.name and "mean" in rows[other]:
                found = paired(rows[other]["mean"]["MRR"]["values"], row["mean"]["MRR"]["values"])
                row |= {"against": {"variant": other, **found}} if named else {"against_first": found}
        rows[variant.name] = row
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "claim": experiment.claim,
        "seeds": len(measured[first]),
        "directions": list(dict.fromkeys(d for found in directions.values() for d in found)),
        "rows": rows,
    }


def help_of_two(results: list[dict]) -> dict[str, dict]:
    """direction with two query modalities -> {"alone": summary by query modality, "together", "gain": over the better one alone}, of MRR.

    results: for each seed, direction -> metrics.
    """
    found = {}
    for direction in results[0]:
        query, target = direction.split("->")
        parts = query.split("+")
        alone = [f"{part}->{target}" for part in parts]
        if len(parts) == 2 and all(all(one in result for one in alone) for result in results):
            numbers = [{part: result[one]["MRR"] for part, one in zip(parts, alone, strict=True)} for result in results]
            together = [{"together": result[direction]["MRR"]} for result in results]
            gains = [{"gain": t["together"] - max(n.values())} for t, n in zip(together, numbers, strict=True)]
            found[direction] = {"alone": summary(numbers), **summary(together), **summary(gains)}
    return found


def _directions(experiment: Experiment, runs: list[dict]) -> list[str]:
    found = [d for d in runs[0]["test"]["directions"] if all(d in run["test"]["directions"] for run in runs)]
    shown = [d for d in found if d in experiment.directions] if experiment.directions else found
    if not shown:
        wanted, there = ", ".join(experiment.directions), ", ".join(found)
        raise UserError(f"{experiment.name}: directions: a variant has none of {wanted}; it has {there}")
    return shown


def _kept(results: dict[str, dict]) -> dict[str, dict]:
    return {name: {key: metrics[key] for key in KEPT} for name, metrics in results.items()}


def _mean(result: dict[str, dict], directions: list[str]) -> dict[str, float]:
    return {key: statistics.fmean(result[d][key] for d in directions) for key in KEPT}


def _nested(reports: list[dict[str, dict[str, float]]], shown: list[str] | None = None) -> dict[str, dict]:
    """name -> summary, of those names that every seed has, and that are among `shown` where that is given."""
    names = [name for name in reports[0] if all(name in report for report in reports) and (shown is None or name in shown)]
    return {name: summary([report[name] for report in reports]) for name in names}


def experiment_table(report: dict) -> str:
    """The report as markdown: one table a question, then what the numbers are."""
    rows, directions = report["rows"], report["directions"]
    parts = [f"## {report['title']}"]
    if report["claim"]:
        parts.append(f"The paper: {report['claim']}")
    if "mean" in next(iter(rows.values())):
        parts += ["Mean over the directions:", _means(rows)]
    parts += ["MRR by direction:", _by_direction(rows, directions, lambda m: plus_minus(m["MRR"]))]
    parts += ["R@1 % by direction:", _by_direction(rows, directions, _r1, "chance_R@1")]
    for title, key, value in (
        ("Class level: R-precision %, every item of the same label a right answer:", "classes", lambda m: percent(m["R-precision"])),
        ("Zero-shot T1 %, by prompts that name the label, or by the label's embedding:", "zero_shot", lambda m: percent(m["T1"])),
        ("R@1 %, the gallery enriched: an answer is the mean of all its modalities but the query's:", "enriched", _r1),
        ("R@1 % by the transport plan of all test queries at once (transductive):", "plan", _r1),
        ("Modality gap / mean cosine of pairs, centred / accuracy of a linear probe:", "gap", _gap),
    ):
        columns = list(dict.fromkeys(column for row in rows.values() for column in row[key]))
        if columns:
            parts += [title, _by_column(rows, key, columns, value)]
    for corpus in dict.fromkeys(corpus for row in rows.values() for corpus in row["transfer"]):
        table = {name: {"directions": row["transfer"][corpus], "control": row["control"]} for name, row in rows.items()}
        columns = list(dict.fromkeys(d for row in table.values() for d in row["directions"]))
        if columns:
            parts += [f"Trained as above, tested on {corpus}: R@10 %", _by_direction(table, columns, lambda m: percent(m["R@10"]))]
    return "\n\n".join([*parts, _notes(report)])


def _means(rows: dict[str, dict]) -> str:
    named = any("against" in row for row in rows.values())
    table = [["variant", *(f"R@{k} %" for k in KS), "MRR", "median rank", "MRR against another" if named else "MRR against the first"]]
    for name, row in _ordered(rows):
        if "mean" not in row:
            continue
        m = row["mean"]
        table.append([name, *(percent(m[f"R@{k}"]) for k in KS), plus_minus(m["MRR"]), plus_minus(m["median_rank"], 1), _against(row)])
    m = next(iter(rows.values()))["mean"]
    table.append(["chance", *(f"{100 * m[f'chance_R@{k}']['mean']:.1f}" for k in KS), "-", f"{(m['gallery']['mean'] + 1) / 2:.0f}", ""])
    return markdown(table)


def _against(row: dict) -> str:
    found = row.get("against") or row.get("against_first")
    if not found:
        return ""
    mark = {True: " *", False: "", None: " (one seed)"}[found["beyond_noise"]]
    name = f" ({found['variant']})" if "variant" in found else ""
    sd = "" if found["beyond_noise"] is None else f" ± {found['sd']:.4f}"
    return f"{found['mean']:+.4f}{sd}{mark}{name}"


def _by_direction(rows: dict[str, dict], directions: list[str], value: Value, chance: str = "") -> str:
    table = _by_column(rows, "directions", directions, value)
    if not chance:
        return table
    found = [next(row["directions"][d][chance]["mean"] for row in rows.values() if d in row["directions"]) for d in directions]
    return f"{table}\n\nchance: " + ", ".join(f"{arrows(d)} {100 * x:.1f}" for d, x in zip(directions, found, strict=True))


def _by_column(rows: dict[str, dict], key: str, columns: list[str], value: Value) -> str:
    table = [["variant", *(arrows(column).replace("|", " and ") for column in columns)]]
    table += [[name, *(value(row[key][c]) if c in row[key] else "-" for c in columns)] for name, row in _ordered(rows)]
    return markdown(table)


def _ordered(rows: dict[str, dict]) -> list[tuple[str, dict]]:
    """Controls last, marked."""
    named = [(name if not row["control"] else f"control: {name}", row) for name, row in rows.items()]
    return sorted(named, key=lambda pair: pair[1]["control"])


def _r1(m: dict) -> str:
    return percent(m["R@1"])


def _gap(m: dict) -> str:
    return f"{m['gap']['mean']:.3f} / {m['centred_cosine']['mean']:.3f} / {m['probe']['mean']:.2f}"


def _notes(report: dict) -> str:
    n = report["seeds"]
    seeds = f"mean ± standard deviation over {n} seeds, each with its own split and initialisation" if n > 1 else "one seed"
    lines = [
        f"Test items; {seeds}; the epoch was chosen on validation items. A hit is the item itself or one with the same caption; ties "
        "count half.",
    ]
    if any("against_first" in row or "against" in row for row in report["rows"].values()):
        lines.append("Differences are paired by seed; * is beyond a two-sided 95 % t-test, without correction for the number of rows.")
    return " ".join(lines)
