"""Errors that are meant for the person at the keyboard: the command line prints their text and no traceback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can put right; the message names the thing, what was expected and what came."""


class SourceUnavailable(UserError):
    """A package's source (apt, the network) is missing on this machine, so another corpus may be used instead."""


class CorruptFile(UserError):
    """A file that holds no image or sound, or only half of one; a corpus build skips its item and goes on."""


class LostProcess(Exception):
    """Another process of the job has gone, or did not answer in time."""


class Stopped(Exception):
    """A signal ended the run, after its state had been saved."""


@contextmanager
def under(key: str) -> Iterator[None]:
    """A user's error inside begins with the key that led there."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{key}: {error}") from None


def near(name: str, options: Iterable[str]) -> str:
    """How to end a message about an unknown ``name``: the closest option when there is one, and all of them."""
    options = sorted(options)
    match = get_close_matches(str(name), options, n=1)
    return (f"did you mean {match[0]!r}? " if match else "") + f"known: {', '.join(options) or 'none'}"
