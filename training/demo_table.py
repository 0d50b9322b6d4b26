"""The demonstration's table: nine directions, two losses, mean ± standard deviation over the seeds."""

from __future__ import annotations

from .evaluator import mean_mrr
from .metrics import KS
from .report import arrows, markdown, percent, plus_minus, summary, verdict


def demo_report(tested: dict[str, list[dict]], seeds: list[int]) -> dict:
    """tested: arm -> one evaluation per seed (see Run.evaluate), the baseline first, then the arm that is compared with it.

    Returns, for every arm and direction, the mean, the standard deviation and the values of every metric, and the verdict.
    """
    arms = {
        name: {direction: summary([report["directions"][direction] for report in reports]) for direction in reports[0]["directions"]}
        for name, reports in tested.items()
    }
    baseline, sliced = list(tested.values())[:2]
    return {
        "seeds": seeds,
        "arms": arms,
        "verdict": verdict([mean_mrr(r["directions"]) for r in baseline], [mean_mrr(r["directions"]) for r in sliced]),
        "epochs": {name: [report["epoch"] for report in reports] for name, reports in tested.items()},
        "configs": {name: reports[0]["config"] for name, reports in tested.items()},
        "eval_samples": baseline[0]["eval_samples"],
    }


def demo_table(report: dict) -> str:
    """The report as markdown: the table, what its columns mean, and the verdict."""
    arms = report["arms"]
    names = list(arms)[:2]
    control = list(arms.values())[2] if len(arms) > 2 else None
    head = ["query → answer", "loss", *(f"R@{k} %" for k in KS), "MRR", "median rank", "gallery", "chance R@1 / 5 / 10 %"]
    rows = [head + (["duration only R@10 %"] if control else [])]
    for direction, first in arms[names[0]].items():
        for name in names:
            m = arms[name][direction]
            row = [arrows(direction) if name == names[0] else "", name, *(percent(m[f"R@{k}"]) for k in KS)]
            row += [plus_minus(m["MRR"]), plus_minus(m["median_rank"], 1)]
            if name == names[0]:
                chance = " / ".join(f"{100 * first[f'chance_R@{k}']['mean']:.1f}" for k in KS)
                row += [_range(first["gallery"]["values"]), chance]
                row += [percent(control[direction]["R@10"]) if "speech" in direction else "-"] if control else []
            else:
                row += [""] * (len(head) - len(row) + bool(control))
            rows.append(row)
    return f"{markdown(rows)}\n\n{_notes(report, control is not None)}\n\n**{report['verdict']['sentence']}**"


def _notes(report: dict, control: bool) -> str:
    seeds = len(report["seeds"])
    lines = [
        f"Test items, mean ± standard deviation over {seeds} seed{'s' if seeds > 1 else ''}, each with its own split by group and its own "
        "initialisation; the epoch was chosen on validation items. "
        "A hit is the item itself or one with the same caption; ties count half; "
        f"an item is the Fréchet mean of {report['eval_samples']} samples.",
    ]
    if control:
        lines.append("Duration only: L_C, where the model knows nothing of a recording but how long it is.")
    about = report.get("corpus", {})
    if about.get("corpus"):
        lines.append(f"Corpus: {about['corpus']} ({about.get('source', 'source unknown')}; speech: {about.get('speech', 'unknown')}).")
    if about.get("note"):
        lines.append(about["note"])
    return " ".join(lines)


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"
