"""`transphere data fake`: a tiny look-alike of a dataset, in the layout and with the traps of the real one, to try a command or a test on.

Each module has ``write(folder, n) -> (items, faults)``: how many items the reader's default variant makes of it, and how many files or
lines it cannot use, among them a sound or picture cut in half. Sounds are tones and pictures are shapes, made on the spot.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from ...errors import UserError
from ..cache import disk_errors
from ..readers import READERS, reader

FEWEST = 6


def fake(name: str, folder: str | Path, n: int = 12) -> tuple[int, int]:
    """Writes a look-alike of dataset ``name`` with ``n`` clips into ``folder``, which must be new or empty.

    Returns how many items `convert` makes of it, and how many files and lines it cannot use. Raises UserError.
    """
    reader(name)
    if n < FEWEST:
        raise UserError(f"items: expected {FEWEST} or more, so that every split and every trap has one, got {n}")
    folder = Path(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder}: expected a new or empty folder, got files")
        return import_module(f".{name.replace('-', '_')}", __package__).write(folder, n)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=f"the dataset: {', '.join(READERS)}")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--items", type=int, default=12, metavar="N", help="how many clips or pictures (default: 12)")


def run(arguments: argparse.Namespace) -> None:
    items, faults = fake(arguments.name, arguments.folder, arguments.items)
    print(f"{arguments.folder}: makes {items} items; {faults} files or lines are broken or missing on purpose")
    print(f"next: transphere data convert {arguments.name} {arguments.folder}")
