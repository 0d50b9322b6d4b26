"""The sections of an evaluation as markdown tables."""

from __future__ import annotations

from collections.abc import Callable

from .report import arrows, evaluation_table, markdown
from .zero_shot import PROMPTS

SHOWN = ("R@1", "R@10", "MRR")


def every_table(report: dict) -> str:
    """The directions' table and one for every section that the report holds."""
    parts = [_protocol(report) + evaluation_table(report)]
    parts += [f"{table(report[name])}" for name, table in TABLES.items() if name in report]
    return "\n\n".join(parts)


def _protocol(report: dict) -> str:
    """One line about what departs from the default protocol."""
    marks = [] if report["mean"] == "frechet" else [f"{report['mean']} means"]
    marks += ["enriched gallery (an answer is the mean of all its modalities but the query's)"] * report["gallery"].startswith("mean")
    marks += ["scored by the learned metric M"] * report["score"].startswith("minus")
    return f"{'; '.join(marks)}\n\n" if marks else ""


def intervals_table(section: dict) -> str:
    rows = [["direction", *(f"{m}{_unit(m)} [{100 * section['level']:.0f} % interval]" for m in SHOWN), "groups"]]
    for name, each in section["directions"].items():
        cells = [f"{_number(m, each[m]['mean'])} [{_number(m, each[m]['low'])}, {_number(m, each[m]['high'])}]" for m in SHOWN]
        rows.append([arrows(name), *cells, str(each["MRR"]["items"])])
    return f"Bootstrap over {section['drawn']}:\n\n{markdown(rows)}"


def against_table(section: dict) -> str:
    """Differences; a star where the interval leaves 0 out."""
    rows = [["direction", *(f"{m}{_unit(m)} there → here, difference [interval]" for m in SHOWN)]]
    for name, each in section["directions"].items():
        cells = []
        for m in SHOWN:
            e = each[m]
            star = "*" if e["low"] > 0 or e["high"] < 0 else " "
            change = f"{_number(m, e['mean'], '+')} [{_number(m, e['low'], '+')}, {_number(m, e['high'], '+')}]{star}"
            cells.append(f"{_number(m, e['there'])} → {_number(m, e['here'])}, {change}")
        rows.append([arrows(name), *cells])
    return (
        f"Against {section['other']['path']} (there), paired by query, {100 * section['level']:.0f} % bootstrap over {section['drawn']}; "
        f"*: 0 lies outside, unadjusted for the number of comparisons:\n\n{markdown(rows)}"
    )


def gap_table(section: dict) -> str:
    rows = [["modalities", "gap", "positive cosine", "after centring", "probe %", "items"]]
    for name, m in section.items():
        cosines = [f"{m[key]:.3f}" for key in ("gap", "positive_cosine", "centred_cosine")]
        rows.append([name, *cosines, f"{100 * m['probe']:.1f}", str(m["items"])])
    return (
        "Modality gap: distance of the means; mean cosine of the pairs, plain and after centring each modality; how often a linear probe "
        f"tells the two apart (50: it cannot):\n\n{markdown(rows)}"
    )


def eer_table(section: dict) -> str:
    rows = [["direction", "EER %", "matching pairs", "all pairs"]]
    rows += [[arrows(name), f"{100 * m['EER']:.1f}", str(m["matching"]), str(m["pairs"])] for name, m in section.items()]
    return f"Equal error rate over all pairs of a query and a gallery item (50: chance):\n\n{markdown(rows)}"


def zero_shot_table(section: dict) -> str:
    rows = [["classified", "classes from", "T1 %", "accuracy %", "chance %", "classes", "items"]]
    for name, forms in section["modalities"].items():
        for form, m in forms.items():
            numbers = [f"{100 * m[key]:.1f}" for key in ("T1", "accuracy", "chance")]
            rows.append([name, form, *numbers, str(round(1 / m["chance"])), str(m["items"])])
    quoted = ", ".join(f'"{template}"' for template in section["templates"])
    how = f"{PROMPTS}: {quoted}, averaged; " if quoted else f"no modality is text, hence no {PROMPTS}; "
    return f"Classification by the nearest class ({how}training means have seen examples). T1: mean over classes.\n\n{markdown(rows)}"


def plan_table(section: dict) -> str:
    rows = [["direction", *(f"{m}{_unit(m)} by {by}" for m in SHOWN for by in ("cost", "plan")), "plan's protocol"]]
    for name, m in section["directions"].items():
        cells = [_number(metric, m[by][metric]) for metric in SHOWN for by in ("cost", "plan")]
        rows.append([arrows(name), *cells, m["label"] + ("" if m["converged"] else " (not converged)")])
    part = f", {section['mass']:g} of their mass" if section["mass"] < 1 else ""
    how = f"eps {section['eps']:g}, {section['marginals']} marginals{part}"
    return f"By cost ({section['cost']}) and by the entropic plan of the whole split ({how}):\n\n{markdown(rows)}"


TABLES: dict[str, Callable[[dict], str]] = {
    "intervals": intervals_table,
    "against": against_table,
    "gap": gap_table,
    "eer": eer_table,
    "zero_shot": zero_shot_table,
    "plan": plan_table,
}


def _unit(metric: str) -> str:
    return " %" if metric.startswith("R@") else ""


def _number(metric: str, value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f}" if metric.startswith("R@") else f"{value:{sign}.3f}"
