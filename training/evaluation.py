"""`transphere eval`: what a run's best checkpoint is worth on a split, with as much beside the plain table as the flags ask for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import checkpoint
from .arguments import count, positive
from .batch import Batch
from .errors import UserError
from .evaluator import MEANS, Direction, Points, Ranking, directions, embed, rank_direction, sets_of
from .metrics import retrieval_metrics
from .seeding import derive

if TYPE_CHECKING:
    from .run import Run


FLAGS = ("enrich", "intervals", "against", "gap", "eer", "zero_shot", "plan", "sheet")  # of eval that take a shared sphere


@dataclass(frozen=True)
class Scored:
    """A split of a run as points, ready to be ranked in every direction."""

    run: Run
    split: str
    batch: Batch
    points: Points
    asked: list[Direction]
    mean: str
    enrich: bool
    query_size: int

    def rankings(self) -> Iterator[tuple[str, Ranking]]:
        """The directions that some item can ask, each with its scores."""
        for direction in self.asked:
            ranking = rank_direction(direction, self.points, self.batch, enrich=self.enrich, metric=self.run.metric)
            if ranking.queries:
                yield str(direction), ranking


def score_run(run: Run, split: str, *, mean: str = "frechet", enrich: bool = False, query_size: int = 2, progress: bool = True) -> Scored:
    """Embed a split by the protocol that the arguments name (see `evaluator.evaluate`)."""
    need_sphere(run)
    batch = run.features(split, progress)
    asked = directions(batch.modalities, query_size)
    sets = sets_of(asked, batch.modalities, enrich)
    points = embed(run.model, batch, run.config.run.eval_samples, derive(run.config.run.seed, split), mean=mean, sets=sets)
    return Scored(run, split, batch, points, asked, mean, enrich, query_size)


def need_sphere(run: Run) -> None:
    """UserError for a run that classifies: its modalities were never brought together, and there is nothing to search."""
    if run.classifier is not None:
        raise UserError(f"{run.path}: was trained to classify ({run.config.objective.name}) and has no shared sphere to search")


def report_of(scored: Scored) -> dict:
    """Every direction's metrics and the protocol behind them."""
    results = {name: retrieval_metrics(ranking.scores, ranking.positives) for name, ranking in scored.rankings()}
    run = scored.run
    if not results:
        raise UserError(f"no item of the {scored.split} split can ask another: each has one modality only")
    return {
        "split": scored.split,
        "epoch": run.epoch,
        "eval_samples": run.config.run.eval_samples,
        "mean": scored.mean,
        "gallery": "mean of all modalities but the query's" if scored.enrich else "the target modality alone",
        "score": "cosine" if run.metric is None else "minus the distance of the learned metric M",
        "ties": "expected rank",
        "positives": "the item itself and items of equal caption",
        "directions": results,
        "config": asdict(run.config),
        "run": run.facts,
    }


def write_report(scored: Scored, sections: dict[str, object] | None = None) -> dict:
    """The report with some further sections, also written to `report_path`."""
    report = {**report_of(scored), **(sections or {})}
    checkpoint.write_json(report_path(scored), report)
    return report


def report_path(scored: Scored) -> Path:
    """<split>.json in the run's folder, with what departs from the default protocol in its name."""
    marks = [scored.mean] * (scored.mean != "frechet") + ["enriched"] * scored.enrich
    marks += [f"queries{scored.query_size}"] * (scored.query_size != 2)
    return scored.run.path / ("-".join([scored.split, *marks]) + ".json")


def add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `transphere eval` beside RUN, --split and --data."""
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of tables")
    add_protocol_arguments(parser)
    parser.add_argument("--query-size", type=count, default=2, metavar="N", help="ask with up to N modalities at once (default: 2)")
    parser.add_argument("--intervals", action="store_true", help="95 %% bootstrap intervals over groups of items")
    parser.add_argument("--against", type=Path, metavar="OTHER", help="how much higher RUN scores than another run on the same items")
    parser.add_argument("--gap", action="store_true", help="modality gap: plain, centred, and what a linear probe tells apart")
    parser.add_argument("--eer", action="store_true", help="equal error rate of telling matching pairs from others")
    parser.add_argument("--zero-shot", action="store_true", help="classify items by the manifest's labels: prompts and training means")
    parser.add_argument(
        "--prompt", action="append", metavar="TEXT", help="for --zero-shot: a template with {} for the label; several are averaged"
    )
    parser.add_argument("--plan", action="store_true", help="rank by the entropic transport plan of the whole split too (transductive)")
    parser.add_argument("--eps", type=positive, metavar="E", help="for --plan: the regularisation (default: the run's own, else .05)")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw queries with their answers into FILE.html or FILE.png")


def add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    """--mean and --enrich, which eval, embed and search share."""
    parser.add_argument(
        "--mean", choices=tuple(MEANS), default="frechet", help="the mean of samples and of modalities on the sphere (default: frechet)"
    )
    parser.add_argument("--enrich", action="store_true", help="an answer is the mean of all its modalities but those of the query")


def run_eval(arguments: argparse.Namespace) -> None:
    """The command."""
    from . import eval_tables
    from .report import evaluation_table
    from .run import open_run

    if arguments.prompt and not arguments.zero_shot:
        raise UserError("--prompt: says how --zero-shot words a class; give --zero-shot too")
    if arguments.eps is not None and not arguments.plan:
        raise UserError("--eps: is that of --plan; give --plan too")
    if arguments.sheet:
        from .contact_sheet import check_sheet, contact_sheet

        check_sheet(arguments.sheet)
    run = open_run(arguments.run, arguments.data)
    if run.classifier is not None and not any(getattr(arguments, flag) for flag in FLAGS):
        report = run.evaluate(arguments.split)
        print(json.dumps(report, indent=1, ensure_ascii=False) if arguments.json else evaluation_table(report))
        return
    protocol = {"mean": arguments.mean, "enrich": arguments.enrich, "query_size": arguments.query_size}
    scored = score_run(run, arguments.split, **protocol)
    other = score_run(open_run(arguments.against, arguments.data), arguments.split, **protocol) if arguments.against else None
    report = write_report(scored, _sections(scored, other, arguments))
    if arguments.sheet:
        contact_sheet(scored.points, scored.batch, run.manifest.root, arguments.sheet, enrich=scored.enrich, metric=run.metric)
    if arguments.json:
        print(json.dumps(report, indent=1, ensure_ascii=False))
        return
    print(eval_tables.every_table(report))
    print(f"\nbest epoch {run.epoch}, {arguments.split} split; all numbers: {report_path(scored)}")
    if arguments.sheet:
        print(arguments.sheet)


def _sections(scored: Scored, other: Scored | None, arguments: argparse.Namespace) -> dict[str, object]:
    from . import comparison, plan_scores, separation, zero_shot

    sections: dict[str, object] = {}
    if arguments.intervals:
        sections["intervals"] = comparison.intervals(scored)
    if other is not None:
        sections["against"] = comparison.against(scored, other)
    if arguments.gap:
        sections["gap"] = separation.gaps(scored)
    if arguments.eer:
        sections["eer"] = separation.error_rates(scored)
    if arguments.zero_shot:
        sections["zero_shot"] = zero_shot.classify(scored, arguments.prompt)
    if arguments.plan:
        sections["plan"] = plan_scores.by_plan(scored, arguments.eps)
    return sections
