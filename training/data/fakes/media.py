"""What the look-alikes are made of: tones, shapes, captions, lists."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image, ImageDraw

_COLOURS = ("red", "lime", "cyan", "yellow", "white", "orange", "violet")
_SHAPES = ("disc", "square", "bar")


def split_of(number: int) -> str:
    """Of six clips four are for training, one for validation, one for testing."""
    return ("train", "train", "train", "train", "val", "test")[number % 6]


def sound(path: Path, number: int, seconds: float = 0.2, rate: int = 16_000) -> None:
    """A tone of its own for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    soundfile.write(path, (0.3 * np.sin(2 * np.pi * (200 + 37 * number) * time)).astype(np.float32), rate)


def picture(path: Path, number: int) -> None:
    """A shape of its own for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (64, 48), (9 * number % 60, 20, 40))
    left = 4 + number * 5 % 30
    draw = ImageDraw.Draw(image)
    (draw.ellipse if number % 2 else draw.rectangle)((left, 8, left + 24, 40), fill=_COLOURS[number % len(_COLOURS)])
    image.save(path, quality=90)


def video(path: Path, number: int) -> None:
    """Only the first bytes of a container: no reader of ours decodes a video, and this plays nowhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = b"RIFF\x08\0\0\0AVI " if path.suffix == ".avi" else b"\0\0\0\x14ftypisom\0\0\2\0"
    path.write_bytes(head + number.to_bytes(4, "big"))


def cut(path: Path) -> None:
    """Breaks a file as an interrupted download does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def captions(number: int, count: int) -> list[str]:
    """Sentences with what lists trip over: commas, quotes, letters beyond ASCII."""
    colour, shape = _COLOURS[number % len(_COLOURS)], _SHAPES[number % len(_SHAPES)]
    forms = (
        "A {c} {s}, number {n}, hums",
        'Somebody says "{c}" and a {s} sounds {n} times',
        "A {s} in {c}; {n} of them",
        "Café noise, then {n} {c} tones",
        "The {c} {s} number {n} hums, hums and hums",
    )
    return [forms[k % len(forms)].format(c=colour, s=shape, n=number) + ("" if k < len(forms) else f" ({k})") for k in range(count)]


def table(path: Path, rows: Iterable[Sequence[object]], bom: bool = False, crlf: bool = False, encoding: str = "utf-8") -> None:
    """A CSV file, quoted where it must be, with a byte-order mark or Windows lines where asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8-sig" if bom else encoding, newline="") as file:
        csv.writer(file, lineterminator="\r\n" if crlf else "\n").writerows(rows)


def text(path: Path, lines: Iterable[str], bom: bool = False, crlf: bool = False) -> None:
    """A text file of these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    end = "\r\n" if crlf else "\n"
    path.write_bytes("".join(line + end for line in lines).encode("utf-8-sig" if bom else "utf-8"))
