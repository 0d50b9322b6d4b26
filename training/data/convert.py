"""`transphere data convert`: the folder of a dataset, as it is distributed, becomes a manifest."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ..errors import CorruptFile, UserError, near
from .check import inspect_all
from .corpus import Skipped
from .frames import frames
from .groups import SHARES, assign
from .manifest import Item, Manifest
from .readers import READERS, reader

SHOWN = 10  # of what is left out, printed one by one


def convert(
    name: str,
    folder: str | Path,
    out: str | Path | None = None,
    *,
    variant: str | None = None,
    splits: Sequence[str] = (),
    val: float = 0.0,
    strict: bool = False,
    quick: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> tuple[Manifest, Faults]:
    """Writes the manifest of dataset ``name`` (a key of READERS) in ``folder``; returns it and what could not be used.

    ``out`` defaults to manifest.jsonl, or manifest-VARIANT.jsonl, in ``folder``; paths in it are relative to its own folder. ``variant``:
    one of the reader's VARIANTS, the first by default. ``splits``: only these. ``val``: this share of the training groups becomes the
    validation split, where the dataset has none. Every file is read to its end, or with ``quick`` only looked for: one that cannot be used
    becomes a missing modality (null), and an item without any file left is left out; with ``strict`` the first ends it all.

    Raises UserError: unknown names, another layout, nothing left, a manifest that is there already and not to be overwritten.
    """
    module = reader(name)
    variant = variant or next(iter(module.VARIANTS))
    if variant not in module.VARIANTS:
        raise UserError(f"variant: {name} has none called {variant!r}; {near(variant, module.VARIANTS)}")
    if not 0 <= val < 1:
        raise UserError(f"val: expected a share from 0 to below 1, got {val}")
    folder = Path(folder).resolve()
    usual = "manifest.jsonl" if variant == next(iter(module.VARIANTS)) else f"manifest-{variant}.jsonl"
    out = Path(out).absolute() if out else folder / usual
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if out.is_dir():
        raise UserError(f"{out}: expected a file's name, got a folder")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: there is a manifest already; --overwrite replaces it, --out writes another")
    home = next(place for place in (out.parent, *out.parent.parents) if place.is_dir())
    if not os.access(home, os.W_OK):
        raise UserError(f"{home}: cannot be written; --out names a manifest elsewhere")
    skipped = Faults(strict)
    items = [item for item in module.read(folder, variant, skipped) if item.split in (splits or SHARES)]
    if not items:
        where = f" in the splits {', '.join(splits)}" if splits else ""
        raise UserError(f"{folder}: {name} has no item{where}{_reasons(skipped.reasons)}")
    items = _unique(items, skipped)
    items = _readable(items, folder, skipped, quick, progress)
    if not items:
        raise UserError(f"{folder}: no item of {name} has a file that can be used{_reasons(skipped.reasons)}")
    items = _with_validation(items, val)
    manifest = Manifest.write(out, [_moved(item, folder, out.parent.resolve()) for item in items])
    return manifest, skipped


class Faults(Skipped):
    """The files and lines that could not be used, of which the first ten are printed, and the number of items lost with them."""

    items = 0

    def add(self, item: str, error: CorruptFile) -> None:
        text = str(error) if item in str(error) else f"{item}: {error}"
        if self.strict:
            raise UserError(f"{text} (--strict)") from error
        self.reasons[item] = text
        if len(self.reasons) <= SHOWN:
            tqdm.write(f"warning: {text}", file=sys.stderr)


def _unique(items: list[Item], skipped: Skipped) -> list[Item]:
    found: dict[str, Item] = {}
    for item in items:
        if item.id in found:
            skipped.add(f"{item.id} (again)", CorruptFile(f"id {item.id!r} is listed twice; the first one is kept"))
        else:
            found[item.id] = item
    return list(found.values())


def _readable(items: list[Item], folder: Path, skipped: Faults, quick: bool, progress: bool) -> list[Item]:
    """The items without their unusable files; each file is looked at once, however many items share it."""
    entries = [entry for item in items for entry in item.modalities.values() if entry and "path" in entry]
    files = list(dict.fromkeys(name for entry in entries for name in [entry["path"], *frames(entry, folder)]))
    bad = set()
    for name, result in inspect_all(folder, files, quick, progress):
        if isinstance(result, CorruptFile):
            skipped.add(name, result)
            bad.add(name)
    kept = []
    for item in items:
        usable = {name: _usable(entry, folder, bad) for name, entry in item.modalities.items()}
        if any(entry and "path" in entry for entry in usable.values()):
            kept.append(replace(item, modalities=usable))
    skipped.items = len(items) - len(kept)
    return kept


def _usable(entry: dict | None, folder: Path, bad: set[str]) -> dict | None:
    """The entry without its bad frames, of which another one then stands for the video; None where nothing is left."""
    if not entry or "path" not in entry:
        return entry
    names = frames(entry, folder)
    good = [name for name in names if name not in bad]
    if not good or "frames" not in entry and entry["path"] in bad:
        return None
    left = {} if good == names else {"frames": good}
    return {**entry, **left, "path": good[len(good) // 2] if entry["path"] in bad else entry["path"]}


def _with_validation(items: list[Item], share: float) -> list[Item]:
    if not share:
        return items
    if any(item.split == "val" for item in items):
        raise UserError("val: the dataset has a validation split of its own; leave --val out")
    drawn = assign([item.group for item in items], shares={"val": share, "train": 1 - share})
    return [replace(item, split=split) if item.split == "train" else item for item, split in zip(items, drawn, strict=True)]


def _moved(item: Item, folder: Path, home: Path) -> Item:
    """The item with paths relative to the manifest's folder."""

    def moved(value: str | list[str]) -> str | list[str]:
        return [moved(name) for name in value] if isinstance(value, list) else Path(os.path.relpath(folder / value, home)).as_posix()

    entries = {
        name: entry and {key: moved(value) if key in ("path", "frames") else value for key, value in entry.items()}
        for name, entry in item.modalities.items()
    }
    return replace(item, modalities=entries)


def _reasons(reasons: dict[str, str]) -> str:
    return f"; {len(reasons)} were left out, the first: {next(iter(reasons.values()))}" if reasons else ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=f"the dataset: {', '.join(READERS)}; `transphere data list` says more")
    parser.add_argument("folder", type=Path, metavar="DIR", help="its folder, as distributed")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the manifest (default: DIR/manifest.jsonl or manifest-VARIANT.jsonl)")
    parser.add_argument("--variant", metavar="NAME", help="which gallery, fold or part of the dataset; an unknown one lists them")
    parser.add_argument("--split", action="append", default=[], choices=tuple(SHARES), help="only the items of this split; repeatable")
    parser.add_argument("--val", type=float, default=0.0, metavar="SHARE", help="make this share of the training groups validation")
    parser.add_argument("--strict", action="store_true", help="end at the first file or line that cannot be used; else it is left out")
    parser.add_argument("--quick", action="store_true", help="only look whether the files are there, instead of reading each to its end")
    parser.add_argument("--overwrite", action="store_true", help="replace a manifest that is there already")


def run(arguments: argparse.Namespace) -> None:
    a = arguments
    manifest, faults = convert(
        a.name, a.folder, a.out, variant=a.variant, splits=a.split, val=a.val, strict=a.strict, quick=a.quick, overwrite=a.overwrite
    )
    if count := len(faults.reasons):
        hidden = f" (the first {SHOWN} are named above; transphere data audit names all files)" if count > SHOWN else ""
        print(f"warning: {count} files or lines could not be used{hidden}; {faults.items} items were left out", file=sys.stderr)
    print(f"{manifest.path}\n{manifest.counts()}")
    there = Counter(name for item in manifest.items for name, entry in item.modalities.items() if entry)
    print(", ".join(f"{name} {there[name]}" for name in manifest.modalities))
    if manifest.split("train") and not manifest.split("val"):
        print("no validation items, which choose the epoch: --val 0.1 takes a tenth of the training groups")
    print(f"next: transphere data audit {manifest.path}")
