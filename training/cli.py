"""The command line: transphere demo | fit | eval | plot | embed | search | experiment | bench | check | data."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .arguments import command, sentence
from .errors import LostProcess, Stopped, UserError

EXIT_USER, EXIT_NOT_FINITE, EXIT_LOST, EXIT_STOPPED, EXIT_INTERRUPTED = 2, 3, 4, 75, 130
# Of a GPU, of a CPU, and of an operator of ours, to which torch does not give its reason:
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", '"aten::new_empty"')


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0 done, 2 something the user can put right, 3 a loss that is not finite, 4 another process of a distributed run is gone, 75 stopped by
    SIGTERM or SIGUSR1 and saved, 130 interrupted.
    """
    try:
        arguments = _parser().parse_args(argv)
        return arguments.call(arguments) or 0
    except UserError as error:
        return _fail(str(error), EXIT_USER)
    except ArithmeticError as error:
        return _fail(f"{error}. What was saved before is kept", EXIT_NOT_FINITE, alike=True)
    except LostProcess as error:
        return _fail(f"{error}. --resume auto goes on from the last checkpoint", EXIT_LOST)
    except Stopped as error:
        return _fail(f"{error}; the same command with --resume auto goes on", EXIT_STOPPED, alike=True)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command (fit: with --resume auto) goes on from what is finished", EXIT_INTERRUPTED)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("transphere"):
            raise
        return _fail(f"{error}; pip install 'transphere[training]' brings what the commands need", EXIT_USER)
    except (MemoryError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        if not isinstance(error, MemoryError) and not any(words in first for words in OUT_OF_MEMORY):
            raise
        hint = "a smaller optim.batch_size or run.eval_samples, or a larger optim.accumulate, takes less"
        return _fail(f"out of memory; {hint} ({first[:120]})", EXIT_USER)
    except BrokenPipeError:  # the reader of a pipe has gone, as in `transphere eval RUN | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", EXIT_USER)


def _fail(message: str, code: int, alike: bool = False) -> int:
    """Say it; where all processes of a job would say the same, the first alone does."""
    if not (alike and _rank()):
        print(f"transphere: error: {message}", file=sys.stderr, flush=True)
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        os._exit(code)  # at an ordinary end, threads that still wait for other processes would abort or hang this one
    return code


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


def _fit(arguments: argparse.Namespace) -> None:
    from . import config as configuration
    from .run import fit

    config = configuration.load(arguments.recipe, arguments.set)
    if arguments.data:
        config = config.replace(data={"manifest": arguments.data})
    out = arguments.out or Path("runs") / f"{Path(arguments.recipe).stem}-seed{config.run.seed}"
    done = fit(config, out, resume=arguments.resume == "auto")
    if not _rank():
        print(
            f"{out}: best epoch {done['best_epoch']} of {done['epochs']}, validation MRR {done['val_mrr']:.3f}, {done['seconds']:.0f} s\n"
            f"next: transphere eval {out}"
        )


def _plot(arguments: argparse.Namespace) -> None:
    from .plots import plot_run
    from .run import open_run

    for path in plot_run(open_run(arguments.run, arguments.data), arguments.split):
        print(path)


def _demo(arguments: argparse.Namespace) -> None:
    import torch

    from .demo import SEEDS, demo

    # On a GPU one run at a time fills it; on CPUs a run a core, of nine.
    workers = 1 if torch.cuda.is_available() else min(len(os.sched_getaffinity(0)), 3 * len(SEEDS))
    demo(arguments.out, arguments.corpus, workers=workers)


def _data_build(arguments: argparse.Namespace) -> None:
    from .data import Manifest, build

    path = build(arguments.name, arguments.out, language=arguments.language, strict=arguments.strict)
    print(f"{path}\n{Manifest.read(path).counts()}")


def _data_list(arguments: argparse.Namespace) -> None:
    from .data import CORPORA
    from .data.readers import READERS

    for words, known in (("transphere data build NAME", CORPORA), ("transphere data convert NAME DIR", READERS)):
        print(f"{words}:")
        for name, what in known.items():
            print(f"  {name:17}{what}")


def _parser() -> argparse.ArgumentParser:
    from . import bench, check, experiment_command
    from .embeddings import add_embed_arguments, run_embed
    from .evaluation import add_eval_arguments, run_eval
    from .search import add_search_arguments, run_search

    parser = argparse.ArgumentParser(
        prog="transphere",
        description="Learn a shared sphere for images, text, speech and more, and search across them.",
        epilog="Start with: transphere demo. Results are numbers and pictures in a folder; nothing is sent anywhere.",
    )
    parser.add_argument("--version", action="version", version=f"transphere {version('transphere')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    text = "build a small real corpus, train with and without L_S, show a table and pictures (5 minutes)"
    _add_demo_arguments(command(commands, "demo", _demo, text))
    example = "Example: transphere fit ismir2024 --data tux --set optim.epochs=20 --set run.seed=1"
    _add_fit_arguments(command(commands, "fit", _fit, "train a model", example))
    evaluate = command(commands, "eval", run_eval, "measure a run's best checkpoint: retrieval in every direction")
    plot = command(commands, "plot", _plot, "draw a run: training curves, a map of its embeddings, queries with their answers")
    for made in (evaluate, plot):
        made.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
        made.add_argument("--split", choices=("train", "val", "test"), default="test", help="which items (default: test)")
        made.add_argument("--data", metavar="MANIFEST", help="the manifest, if it has moved since the run was trained")
    add_eval_arguments(evaluate)
    add_embed_arguments(command(commands, "embed", run_embed, "write a run's items as points of the sphere, to a safetensors file"))
    text = "answer a text, a picture or a sound with items of any modality"
    example = 'Example: transphere search runs/ismir2024-seed0 --text "a frog" --to image --sheet frog.html'
    add_search_arguments(command(commands, "search", run_search, text, example))
    experiment_command.add_arguments(commands)
    bench.add_arguments(commands)
    check.add_arguments(commands)
    _add_data_commands(commands)
    return parser


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("demo-results"), metavar="DIR", help="folder of the results (default: ./demo-results)"
    )
    parser.add_argument(
        "--corpus",
        default="auto",
        choices=("auto", "tux", "emoji"),
        help="tux: photographs, drawings, human speech; emoji: needs pip only; auto (default): tux where apt can supply it, else emoji",
    )


def _add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    from .config import recipe_names

    parser.add_argument("recipe", metavar="RECIPE", help=f"one of {', '.join(recipe_names())}, or the path of a TOML file")
    text = "a manifest (JSON lines), its folder, or the name of a corpus (transphere data list)"
    parser.add_argument("--data", metavar="MANIFEST", help=text)
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/RECIPE-seedN)")
    text = "auto: go on from the last checkpoint, or begin where there is none"
    parser.add_argument("--resume", choices=("auto", "never"), default="never", help=text)
    text = "change a key of the recipe: --set optim.lr=1e-3; repeatable"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)


def _add_data_commands(commands: Any) -> None:
    from .data import audit, convert, fakes

    text = "build a corpus, convert a dataset or your own files, look for faults in a manifest"
    data = commands.add_parser("data", help=text, description=sentence(text))
    actions = data.add_subparsers(title="commands", required=True, metavar="COMMAND")
    build = command(actions, "build", _data_build, "download a corpus and write its manifest; a second call finds everything there")
    build.add_argument("name", metavar="NAME", help="the corpus, for example tux or emoji")
    build.add_argument("--language", metavar="XX", help="tux: the language of the spoken captions (default: fr)")
    build.add_argument("--out", type=Path, metavar="DIR", help="where it goes (default: in the cache)")
    build.add_argument("--strict", action="store_true", help="end at the first file that cannot be read, instead of leaving its item out")
    command(actions, "list", _data_list, "list the corpora and the datasets that are known")
    convert.add_arguments(command(actions, "convert", convert.run, "write the manifest of a dataset, as distributed, or of your own files"))
    fakes.add_arguments(command(actions, "fake", fakes.run, "write a tiny look-alike of a dataset, to try things on"))
    audit.add_arguments(command(actions, "audit", audit.run, "look for missing and broken files, leaks between splits, shared content"))
