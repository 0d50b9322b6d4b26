"""Videos as pictures: an entry's key "frames" beside its "path", a folder of pictures or a list of files, in the order of time.

"path" is the one picture that stands for the video wherever a single one is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .check import PICTURES


def frames(entry: Mapping[str, Any], root: Path) -> list[str]:
    """The pictures of an entry with a path, relative to ``root``: its frames, or the one picture where it names none.

    A folder that is missing or has no picture stands for itself, so that whoever opens it says so.
    """
    found = entry.get("frames", [entry["path"]])
    if isinstance(found, list):
        return found
    return [f"{found}/{name}" for name in pictures(root / found)] or [found]


def pictures(folder: Path) -> list[str]:
    """The names of the pictures in a folder, 2.jpg before 10.jpg; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted((file.name for file in folder.iterdir() if file.suffix.lower() in PICTURES), key=_in_time)


def _in_time(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
