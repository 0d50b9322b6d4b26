"""`transphere check`: is what the engine promises true of your own recipe, on this machine, before a cluster is booked?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import check_metrics


def add_arguments(commands: Any) -> None:
    """Join the commands `check grads`, `check resume` and `check metrics` to the command line."""
    text = "see, on a CPU, that the engine keeps its promises for a recipe"
    check = commands.add_parser("check", help=text, description=text[0].upper() + text[1:] + ".")
    kinds = check.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, call, told in (
        ("grads", _grads, "compare the gradient of every parameter between one process and several, in float64"),
        ("resume", _resume, "kill a run within an epoch, go on, and compare with one that was not, bit for bit"),
    ):
        made = kinds.add_parser(name, help=told, description=told[0].upper() + told[1:] + ".")
        made.set_defaults(call=call)
        made.add_argument("recipe", nargs="?", default="ismir2024", metavar="RECIPE", help="as for fit (default: ismir2024)")
        made.add_argument("--data", metavar="MANIFEST", help="as for fit")
        made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for fit")
        if name == "grads":
            made.add_argument("--nproc", type=int, nargs="+", default=[2, 4], metavar="N", help="numbers of processes (default: 2 4)")
        else:
            made.add_argument("--nproc", type=int, default=1, metavar="N", help="processes of a run (default: 1)")
    check_metrics.add_arguments(kinds)


def _grads(arguments: argparse.Namespace) -> int:
    from .check_grads import TOLERANCE, compare

    config = _config(arguments)
    print(f"{config.objective.name}, float64, first batch of {config.optim.batch_size} at most; encoders in evaluation mode")
    good = True
    for result in compare(config, arguments.nproc):
        good &= result.good
        print(
            f"{result.processes} processes: {result.parameters} parameters, largest relative difference {result.worst:.1e} "
            f"({result.name}), loss {result.loss:.1e}: {'equal' if result.good else f'NOT within {TOLERANCE}'}"
        )
    return 0 if good else 1


def _resume(arguments: argparse.Namespace) -> int:
    from .check_resume import compare

    differing, steps = compare(_config(arguments), arguments.nproc, say=lambda text: print(text, flush=True))
    print(f"after {steps} steps: " + (f"NOT equal: {', '.join(differing)}" if differing else "equal bit for bit"))
    return 1 if differing else 0


def _config(arguments: argparse.Namespace) -> Any:
    from . import config as configuration
    from .run import open_manifest

    config = configuration.load(arguments.recipe, [*arguments.set, "run.device=cpu", "run.tensorboard=false"])
    if arguments.data:
        config = config.replace(data={"manifest": arguments.data})
    return config.replace(data={"manifest": str(Path(open_manifest(config.data).path))})
