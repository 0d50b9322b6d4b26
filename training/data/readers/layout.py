"""What readers share: finding files, reading lists and tables with their quirks, items with several captions."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import CorruptFile, UserError
from ..check import PICTURES, SOUNDS
from ..corpus import Skipped
from ..frames import pictures
from ..manifest import Item

GALLERIES = {
    "five": "an item a clip, with all its captions",
    "first": "an item a clip, with its first caption",
    "each": "an item a caption; the items of a clip count as each other's hits",
}


def find(folder: Path, *candidates: str) -> Path:
    """The first of the candidates, paths relative to ``folder``, that exists; UserError names them all."""
    for name in candidates:
        if (folder / name).exists():
            return folder / name
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    inside = sorted(os.listdir(folder))
    found = ", ".join(inside[:8]) + (", ..." if len(inside) > 8 else "") or "nothing"
    raise UserError(f"{folder}: expected {' or '.join(candidates)}, found {found}")


def optional(folder: Path, *candidates: str) -> Path | None:
    """As `find`, but None where there is none of them."""
    return next((folder / name for name in candidates if (folder / name).exists()), None)


def relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def inside(folder: Path, place: Path, name: str) -> str:
    """A path that a list in ``place`` gives, as one relative to ``folder``; absolute ones and ones that lead out are kept as such."""
    return Path(os.path.relpath(place / name, folder)).as_posix()


def lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[str, str]]:
    """("FILE, line N", line) of every line that is not blank; a byte-order mark and the end of a Windows line are taken off."""
    name = str(path)
    for number, line in enumerate(_decoded(path, encoding), start=1):
        line = line.removesuffix("\n").removesuffix("\r")
        if line.strip():
            yield f"{name}, line {number}", line


def captions(path: Path, skipped: Skipped) -> list[str]:
    """The lines of one item's text file; none, and a word to ``skipped``, where it cannot be read."""
    try:
        return [line.strip() for _, line in lines(path)]
    except UserError as error:
        skipped.add(str(path), CorruptFile(str(error)))
        return []


def header(path: Path, encoding: str = "utf-8") -> list[str]:
    """The column names of a CSV file, without the blanks around them that some lists have."""
    first = next(lines(path, encoding), ("", ""))[1]
    return [name.strip() for name in next(csv.reader([first]), [])]


def table(path: Path, columns: Sequence[str], skipped: Skipped, encoding: str = "utf-8") -> Iterator[tuple[str, dict[str, str]]]:
    """("FILE, line N", row) of a CSV file with a header. Rows without a value in one of ``columns``, or too long, go to ``skipped``."""
    names = header(path, encoding)
    if missing := [name for name in columns if name not in names]:
        raise UserError(f"{path}: expected the columns {', '.join(columns)}, got {', '.join(names) or 'an empty file'}; no {missing[0]!r}")
    for where, cells in rows(path, skipped, encoding):
        row = dict(zip(names, cells, strict=False))
        absent = [name for name in columns if not row.get(name, "").strip()]
        if [cell.strip() for cell in cells] == names:
            continue  # the header
        if absent or len(cells) > len(names):
            reason = f"no {absent[0]!r}" if absent else f"expected {len(names)} columns, got {len(cells)}"
            skipped.add(where, CorruptFile(reason))
        else:
            yield where, row


def rows(path: Path, skipped: Skipped, encoding: str = "utf-8", width: int = 0) -> Iterator[tuple[str, list[str]]]:
    """("FILE, line N", cells) of a CSV file without a header; rows of fewer than ``width`` cells go to ``skipped``."""
    reader = csv.reader(_decoded(path, encoding))
    try:
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) < width:
                skipped.add(where, CorruptFile(f"expected {width} columns, got {len(cells)}"))
            else:
                yield where, cells
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not CSV: {error}") from error


def stems(root: Path, folder: Path, endings: Sequence[str] = SOUNDS) -> dict[str, str]:
    """Name without ending -> path relative to ``root`` of the files anywhere below ``folder`` that have one of the endings."""
    found = {}
    for file in walk(folder):
        if file.suffix.lower() in endings:
            found.setdefault(file.stem, relative(file, root))
    return found


def walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, hidden ones apart, in the order of their names; links to folders are followed, each folder once."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def captioned(
    identity: str, split: str, group: str, texts: Sequence[str], media: dict[str, Any], variant: str, **more: Any
) -> list[Item]:
    """The items of one clip by the variants of GALLERIES; blank texts are left out, and a clip without texts has null for them."""
    texts = [text.strip() for text in texts if text.strip()]
    if variant == "each" and texts:
        return [
            Item(f"{identity}#{number}", split, group, identity, {**media, "text": {"texts": [text]}}, **more)
            for number, text in enumerate(texts)
        ]
    chosen = texts if variant == "five" else texts[:1]
    # an empty caption: only the item itself is right, as these benchmarks count
    return [Item(identity, split, group, "", {**media, "text": {"texts": chosen} if chosen else None}, **more)]


def path(name: str | None) -> dict[str, str] | None:
    """The entry of a modality that is a file, null where there is none."""
    return {"path": name} if name else None


def frames_in(root: Path, folder: Path) -> dict[str, str] | None:
    """The entry of a video whose frames are the pictures in a folder: the middle one, and the folder where there are more."""
    names = pictures(folder)
    if not names:
        return None
    one = {"path": relative(folder / names[len(names) // 2], root)}
    return {**one, "frames": relative(folder, root)} if len(names) > 1 else one


def beside(root: Path, video: Path) -> dict[str, dict[str, str] | None]:
    """The entries of a video's extracted tracks: X.wav beside X.avi is its ``audio``; X.jpg, or a folder X of frames, its ``image``."""
    stem = video.with_suffix("")
    sound = next((f for ending in SOUNDS if (f := video.with_suffix(ending)).is_file()), None)
    picture = next((f for ending in PICTURES if (f := video.with_suffix(ending)).is_file()), None)
    entries = {
        "audio": path(relative(sound, root) if sound else None),
        "image": path(relative(picture, root)) if picture else frames_in(root, stem),
    }
    return {"video": path(relative(video, root)), **{name: entry for name, entry in entries.items() if entry}}


def _decoded(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a text file, each with its \\n: read one by one, since a list of attributes has millions."""
    number = 0
    try:
        with path.open("rb") as file:
            for line in file:
                number += 1
                if b"\0" in line:
                    raise UserError(f"{path}, line {number}: holds a NUL byte, which no text has")
                yield (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).decode(encoding)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {number}: expected UTF-8, got byte 0x{error.object[error.start]:02x}") from error
