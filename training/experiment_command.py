"""The command `transphere experiment`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import command, count


def add_arguments(commands: Any) -> None:
    """Join the command to the command line."""
    text = "compare variants of a recipe over several seeds: a table, JSON and pictures; without a name: list what there is"
    made = command(commands, "experiment", _experiment, text, "Example: transphere experiment harnessed --workers 2")
    made.add_argument("name", nargs="?", metavar="NAME", help="an experiment that comes with the package, or the path of a TOML file")
    made.add_argument("--out", type=Path, metavar="DIR", help="folder of the runs and results (default: experiments/NAME)")
    made.add_argument("--data", metavar="MANIFEST", help="a manifest or a corpus in the place of those that the experiment names")
    made.add_argument("--seeds", type=count, metavar="N", help="how many seeds (default: as the experiment says, mostly 3)")
    made.add_argument("--workers", type=count, default=1, metavar="N", help="runs at a time, each on one core (default: 1)")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of every run; may be repeated")


def _experiment(arguments: argparse.Namespace) -> None:
    from .experiment import experiment_names, load_experiment, run_experiment

    if arguments.name is None:
        for name in experiment_names():
            print(f"{name:22}{load_experiment(name).title}")
        return
    experiment = load_experiment(arguments.name, arguments.data)
    out = arguments.out or Path("experiments") / experiment.name
    run_experiment(experiment, out, seeds=arguments.seeds, workers=arguments.workers, changes=arguments.set)
