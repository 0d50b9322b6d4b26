"""What the corpus builders share: a folder that is resumed or refused, items that are skipped, the manifest written last."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ..errors import CorruptFile, UserError
from .cache import disk_errors, locked, replacing
from .manifest import Item, Manifest

_ABOUT = "about.json"
_BUILDER = ".builder"
_LOCK = ".lock"
_MANIFEST = "manifest.jsonl"
_Thing = TypeVar("_Thing")  # a stamp, an emoji: anything with an id


@contextmanager
def building(folder: Path, builder: str) -> Iterator[None]:
    """Makes ``folder`` ready for a build, or for the rest of one that was interrupted, and keeps other processes out of it.

    ``builder`` names everything that the files depend on. What another builder made there is removed; a folder that no build
    made is refused with UserError, so that ``--out`` never deletes or mixes with a user's files.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / _BUILDER).is_file() and any(file.name != _LOCK for file in folder.iterdir()):
            raise UserError(f"{folder}: expected a new or empty folder or one made by `transphere data build`, got other files")
        with locked(folder / _LOCK, f"builds {folder}"):
            mark = folder / _BUILDER
            if not mark.is_file() or mark.read_text() != builder:
                for name in (_MANIFEST, _ABOUT):
                    (folder / name).unlink(missing_ok=True)
                for name in ("images", "speech"):
                    shutil.rmtree(folder / name, ignore_errors=True)
                with replacing(mark) as temporary:
                    temporary.write_text(builder)
            for half in folder.rglob(".*.part*"):  # we hold the lock, so whoever began these was killed
                half.unlink()
            yield


def built(folder: Path, builder: str) -> Manifest | None:
    """The manifest of a build by ``builder`` that was finished and is still whole, else None."""
    try:
        manifest = Manifest.read(folder / _MANIFEST)
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        files = [manifest.root / e["path"] for item in manifest.items for e in item.modalities.values() if e and "path" in e]
        whole = about["manifest_sha256"] == manifest.sha256 and about["builder"] == builder and all(file.is_file() for file in files)
        return manifest if whole else None
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return None


def finish(folder: Path, items: Sequence[Item], about: dict[str, Any], skipped: Skipped) -> Manifest:
    """Writes what the corpus is, then the manifest, whose presence says that all else is there."""
    if not items:
        raise UserError(f"{about['corpus']}: no item could be built; {skipped.summary()}")
    (folder / _MANIFEST).unlink(missing_ok=True)
    pending = Manifest.write(folder / "pending.jsonl", items)
    if skipped.reasons:
        tqdm.write(f"warning: {skipped.summary()} of corpus {about['corpus']}", file=sys.stderr)
    about = {
        **about,
        "builder": (folder / _BUILDER).read_text(),
        "counts": pending.counts(),
        "skipped": skipped.reasons,
        "manifest_sha256": pending.sha256,
    }
    with replacing(folder / _ABOUT) as temporary:
        temporary.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    pending.path.replace(folder / _MANIFEST)
    return Manifest.read(folder / _MANIFEST)


class Skipped:
    """Items left out because a file of theirs cannot be used; with ``strict`` the first one ends the build."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.reasons: dict[str, str] = {}

    def add(self, item: str, error: CorruptFile) -> None:
        if self.strict:
            raise UserError(f"item {item!r}: {error} (--strict)") from error
        self.reasons[item] = str(error)
        tqdm.write(f"warning: item {item!r} is skipped: {error}", file=sys.stderr)

    def summary(self) -> str:
        return f"{len(self.reasons)} items were skipped"


def prepare(
    things: Sequence[_Thing], write: Callable[[_Thing], None], what: str, skipped: Skipped, progress: bool, threads: int = 2
) -> list[_Thing]:
    """The things for which ``write`` succeeded; one that raises CorruptFile is skipped, any other error ends the build."""
    kept = []
    with ThreadPoolExecutor(threads) as pool, tqdm(total=len(things), desc=what, unit="file", disable=not progress) as bar:
        results = [pool.submit(write, thing) for thing in things]
        try:
            for thing, result in zip(things, results, strict=True):
                try:
                    result.result()
                    kept.append(thing)
                except CorruptFile as error:
                    skipped.add(thing.id, error)
                bar.update()
        except BaseException:  # an interrupt, a full disk, --strict: what has not begun need not begin
            pool.shutdown(cancel_futures=True)
            raise
    return kept
