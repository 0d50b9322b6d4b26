"""A look-alike of YT8M-MusicVideo: lists of ids and what yt-dlp writes."""

from __future__ import annotations

import json
from pathlib import Path

from .media import cut, picture, sound, split_of, text


def write(folder: Path, n: int) -> tuple[int, int]:
    """Traps: ids that begin with a dash, addresses in the place of ids, comments of another length, titles with quotes and line ends, an
    uploader in the place of a channel, metadata that are no JSON; a sound and its thumbnail missing, a sound cut short."""
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number in range(n):
        video = f"-v_{number:08d}"
        lists[split_of(number)].append(f"https://www.youtube.com/watch?v={video}&t=3" if number == 2 else video)
        if number != 1:
            sound(folder / f"media/{video}.wav", number, rate=48_000)
            picture(folder / f"media/{video}.jpg", number)
        facts = {"id": video, "title": f'Song "No. {number}"\n(official video)', "upload_date": f"2015{number % 12 + 1:02d}05"}
        facts["channel" if number % 3 else "uploader"] = f"Band {split_of(number)} {number % 2}"
        info = folder / f"media/{video}.info.json"
        info.parent.mkdir(parents=True, exist_ok=True)
        info.write_text(json.dumps(facts) if number != 3 else "<html>429 Too Many Requests</html>", encoding="utf-8")
    cut(folder / "media/-v_00000000.wav")
    lists["train"].append("not an id")
    for split, ids in lists.items():
        text(folder / f"{split}_ids.txt", ids, bom=split == "val")
    return n - 1, 5
