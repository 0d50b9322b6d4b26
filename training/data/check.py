"""Whether a file is what its ending says, and what it measures: used before an item goes into a manifest, and by the audit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..errors import CorruptFile

SOUNDS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".m4a", ".aac")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jpe")
VIDEOS = (".avi", ".mp4", ".flv", ".mkv", ".webm", ".mov")
_AHEAD = 1024  # files that are waited for at a time, of datasets that have millions
_LFS = b"version https://git-lfs"
# the first bytes of a container, and where they stand
_CONTAINERS = {
    ".avi": (0, b"RIFF"),
    ".mp4": (4, b"ftyp"),
    ".mov": (4, b"ftyp"),
    ".flv": (0, b"FLV"),
    ".mkv": (0, b"\x1aE\xdf\xa3"),
    ".webm": (0, b"\x1aE\xdf\xa3"),
}


@dataclass(frozen=True)
class Facts:
    """What a readable file measures; None where it does not apply."""

    seconds: float | None = None  # of a sound
    level: float | None = None  # of a sound mixed to mono: its root mean square in dB of full scale, -inf for digital silence
    spread: float | None = None  # of a picture: the largest of its channels' standard deviations, 0 to 127.5


def inspect(path: Path, quick: bool = False) -> Facts:
    """Reads a file to its end and measures it; ``quick`` looks only whether it is there and not empty.

    Sounds and pictures are decoded, of videos only the container's first bytes are looked at, other files are not judged.

    Raises CorruptFile that names the file and the reason: missing, empty, a git-lfs pointer in its stead, or not readable.
    """
    try:
        str(path).encode()
        with path.open("rb") as file:
            head = file.read(64)
    except UnicodeEncodeError as error:
        raise CorruptFile(f"{str(path).encode(errors='replace').decode()}: the file's name is not UTF-8") from error
    except OSError as error:
        raise CorruptFile(f"{path}: {'missing' if isinstance(error, FileNotFoundError) else error.strerror}") from error
    if not head:
        raise CorruptFile(f"{path}: the file is empty")
    if head.startswith(_LFS):
        raise CorruptFile(f"{path}: a git-lfs pointer in the place of the file; fetch the files with `git lfs pull`")
    ending = path.suffix.lower()
    if quick:
        return Facts()
    if ending in SOUNDS:
        return _sound(path)
    if ending in PICTURES:
        from ..encoders.image import flatten, open_image

        pixels_HW3 = np.asarray(flatten(open_image(path)), np.float32)
        return Facts(spread=float(pixels_HW3.std((0, 1)).max()))  # not of grey levels: green on violet may have but one of these
    if ending in _CONTAINERS:
        at, magic = _CONTAINERS[ending]
        if head[at : at + len(magic)] != magic:
            raise CorruptFile(f"{path}: not a {ending[1:]} video: expected {magic!r} at byte {at}, got {head[at : at + len(magic)]!r}")
    return Facts()


def inspect_all(
    root: Path, names: Sequence[str], quick: bool = False, progress: bool = True
) -> Iterator[tuple[str, Facts | CorruptFile]]:
    """(name, what `inspect` says of root / name) in the order of the names, read by a thread a core; an error is given, not raised."""

    def one(name: str) -> Facts | CorruptFile:
        try:
            return inspect(root / name, quick)
        except CorruptFile as error:
            return error

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(cores) as pool, tqdm(total=len(names), desc="files", unit="file", disable=not (progress and names)) as bar:
        for start in range(0, len(names), _AHEAD):
            some = names[start : start + _AHEAD]
            for name, result in zip(some, pool.map(one, some), strict=True):
                bar.update()
                yield name, result


def _sound(path: Path) -> Facts:
    from ..encoders.audio import read_sound  # seconds to import, for which --help need not wait

    samples, rate = read_sound(path)  # (n,)
    power = float(np.square(samples, dtype=np.float64).mean())
    return Facts(seconds=len(samples) / rate, level=float(10 * np.log10(power)) if power else -np.inf)
