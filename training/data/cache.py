"""The cache folder, and writing files so that a name never holds half of its content."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def cache_dir() -> Path:
    """``$TRANSPHERE_CACHE``, else ``$XDG_CACHE_HOME/transphere``, else ``~/.cache/transphere``; not created here."""
    if root := os.environ.get("TRANSPHERE_CACHE"):
        return Path(root).expanduser().absolute()
    if root := os.environ.get("XDG_CACHE_HOME"):
        return Path(root).expanduser().absolute() / "transphere"
    return Path.home() / ".cache" / "transphere"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns an ``OSError``, mostly of writing under ``path``, into a ``UserError`` that names the file and says what helps."""
    try:
        yield
    except OSError as error:
        named = error.filename and Path(os.fsdecode(error.filename))
        where = path if not named or ".part" in named.name else named  # a temporary name says nothing to the reader
        other = "set TRANSPHERE_CACHE to" if where.absolute().is_relative_to(cache_dir()) else "name"
        if error.errno in _FULL:
            message = f"no space left on the disk while writing {where}; free some, or {other} a folder on another disk"
        elif error.errno in _DENIED:
            message = f"cannot write {where}: {error.strerror}; {other} a folder that can be written"
        else:
            message = f"{where}: {error.strerror or error}"
        raise UserError(message) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path`` to write to, and moves it onto ``path`` only if the block succeeds.

    Raises UserError when the disk refuses (full, read-only, no permission); the temporary file is removed in any case.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # the ending stays, since image and sound writers choose their format by it
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Holds a lock that the system releases however the process ends; says so when another one, which ``doing``, has it first."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that {doing}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def alone(folder: Path, patience: float = 10.0) -> Iterator[None]:
    """Keeps other processes that ask for the same folder out of it, until the block or the process ends. UserError when one is in it.

    patience: seconds to wait; reading processes outlive a killed run that began them by a few. Where the file system has no such locks
    (some NFS), nobody is kept out.
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise UserError(f"{folder}: another process is at work in it; wait for it, or give another folder") from None
                time.sleep(0.1)
            except OSError:
                break
        yield
    finally:
        os.close(opened)
