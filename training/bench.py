"""`transphere bench`: what a training step of a full model costs on this machine, and would cost on many GPUs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from .errors import UserError


def add_arguments(commands: Any) -> None:
    """Join the commands `bench step` and `bench plan` to the command line."""
    text = "measure a training step of a full model with random weights: time, memory, the share of each loss, the reading of files"
    bench = commands.add_parser("bench", help="measure a training step", description="Measure.")
    kinds = bench.add_subparsers(title="commands", required=True, metavar="COMMAND")
    step = kinds.add_parser("step", help=text, description=text[0].upper() + text[1:] + ".")
    step.set_defaults(call=_step)
    step.add_argument("recipe", nargs="?", default="ismir2024-full", metavar="RECIPE", help="one with encoders (default: ismir2024-full)")
    step.add_argument("--batch", type=int, metavar="N", help="items a step (default: the recipe's optim.batch_size)")
    step.add_argument("--steps", type=int, default=3, metavar="N", help="how many are timed, after one (default: 3; 0: that one)")
    step.add_argument("--no-loader", action="store_true", help="do not measure how fast files are read")
    step.add_argument("--json", action="store_true", help="print everything as JSON instead of a table")
    step.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for fit")

    text = "plan on paper what a step would take on many GPUs: memory and operations of the parts, counted on this CPU"
    plan = kinds.add_parser("plan", help=text, description=text[0].upper() + text[1:] + ".")
    plan.set_defaults(call=_plan)
    plan.add_argument("recipe", nargs="?", default="ismir2024-full", metavar="RECIPE", help="as for step")
    plan.add_argument("--gpus", type=int, default=16, metavar="N", help="how many share the recipe's batch (default: 16)")
    plan.add_argument("--tflops", type=float, default=100.0, metavar="T", help="what a GPU is taken to reach, TFLOP/s (default: 100)")
    plan.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for fit")


def _plan(arguments: argparse.Namespace) -> None:
    from . import config as configuration
    from .bench_plan import plan

    if arguments.gpus < 1 or not 0 < arguments.tflops < 1e9:
        raise UserError(f"expected --gpus and --tflops above 0, got {arguments.gpus} and {arguments.tflops}")
    config = configuration.load(arguments.recipe, arguments.set)
    print(plan(config, recipe=arguments.recipe, gpus=arguments.gpus, speed=1e12 * arguments.tflops).text())


def _step(arguments: argparse.Namespace) -> None:
    from . import config as configuration
    from .bench_step import bench_step

    for name, least in (("batch", 2), ("steps", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UserError(f"--{name}: expected at least {least}, got {value}")
    config = configuration.load(arguments.recipe, arguments.set)
    report = bench_step(config, recipe=arguments.recipe, batch=arguments.batch, steps=arguments.steps, loader=not arguments.no_loader)
    print(json.dumps({**asdict(report), "step": report.step, "overhead": report.overhead}, indent=1) if arguments.json else report.text())
