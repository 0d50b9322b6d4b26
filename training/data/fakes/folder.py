"""A folder of somebody's own files."""

from __future__ import annotations

from pathlib import Path

from .media import captions, cut, picture, sound, table, text


def write(folder: Path, n: int) -> tuple[int, int]:
    """Traps: names with blanks and letters beyond ASCII, endings in capitals, captions in .txt and in a table, a file alone, hidden
    files; a picture cut short, of which the recording stays."""
    rows = [["file", "caption", "label"]]
    for number in range(n):
        name = f"Ding {number} \u00e9"
        picture(folder / "pictures" / f"{name}.JPG", number)
        sound(folder / "sounds" / f"{name}.wav", number)
        if number % 2:
            text(folder / f"{name}.txt", captions(number, 2), crlf=True)
        else:
            rows.append([f"{name}.JPG", captions(number, 1)[0], "even"])
    table(folder / "captions.csv", rows, bom=True)
    picture(folder / "pictures" / "alone.png", 99)
    (folder / ".DS_Store").write_bytes(b"\0")
    cut(folder / "pictures" / "Ding 0 \u00e9.JPG")
    return n, 2
