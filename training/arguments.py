"""What the commands' parsers share: how a command is joined, and numbers of which it is said in words what is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def command(to: Any, name: str, call: Callable[[argparse.Namespace], int | None], text: str, example: str = "") -> argparse.ArgumentParser:
    """The parser of a new command of the subparsers `to`; `call` runs it, and returns the exit code where that may not be 0."""
    made = to.add_parser(name, help=text, description=sentence(text), epilog=example)
    made.set_defaults(call=call)
    return made


def sentence(text: str) -> str:
    """A line of help as a description."""
    return text[0].upper() + text[1:] + "."


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a finite number > 0, got {text!r}")
    return value
