"""YT8M-MusicVideo (Surís et al., CVPR 2022): music videos of YouTube-8M; sound, thumbnail, and a sentence made of the metadata.

The lists that the papers used are not public; any will do: {train,val,test}_ids.txt (or train.txt, ...), a YouTube id a line, also as an
address. Beside or below them is what `yt-dlp -x --audio-format wav --write-thumbnail --write-info-json -o '%(id)s.%(ext)s'` writes:
ID.wav, ID.jpg (or .webp), ID.info.json with title, channel (or uploader) and upload_date, YYYYMMDD. The sentence is that of Nakatsuka et
al. (ISMIR 2024, footnote 2), whose quotation marks are read as marking the fields: TITLE is a music video uploaded by CHANNEL on DATE.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ...errors import CorruptFile
from ..check import PICTURES, SOUNDS
from ..corpus import Skipped
from ..manifest import Item
from .layout import find, lines, optional, path, relative, walk

VARIANTS = {"lists": "the lists of ids; the group is the channel"}
_ID = re.compile(r"(?:^|v=|youtu\.be/|/)([\w-]{11})(?:$|[&?#\s])")


def read(folder: Path, variant: str, skipped: Skipped) -> list[Item]:
    """The items of all lists, with audio, image and text; metadata without a title leave the text null."""
    find(folder, *(f"{split}{ending}" for split in ("train", "test") for ending in ("_ids.txt", ".txt")))
    files = {file.name: relative(file, folder) for file in walk(folder)}
    items = []
    for split, names in (("train", ("train",)), ("val", ("val", "validation")), ("test", ("test",))):
        listed = optional(folder, *(f"{name}{ending}" for name in names for ending in ("_ids.txt", ".txt")))
        for where, line in lines(listed) if listed else ():
            if not (match := _ID.search(line.strip())):
                skipped.add(where, CorruptFile(f"expected a YouTube id of 11 characters, got {line.strip()!r}"))
                continue
            video = match[1]
            known = _metadata(folder, files.get(f"{video}.info.json"), video, skipped)
            sound = next((files[name] for ending in SOUNDS if (name := video + ending) in files), f"{video}.wav")
            picture = next((files[name] for ending in PICTURES if (name := video + ending) in files), f"{video}.jpg")
            text = sentence(known)
            modalities = {"audio": path(sound), "image": path(picture), "text": {"texts": [text]} if text else None}
            items.append(Item(video, split, known.get("channel") or video, "", modalities, meta=known))
    return items


def sentence(known: dict[str, str]) -> str:
    """The sentence of the fields that are known, "" without a title."""
    if not known.get("title"):
        return ""
    uploaded = " uploaded" if known.get("channel") or known.get("upload_date") else ""
    by = f" by {known['channel']}" if known.get("channel") else ""
    on = f" on {known['upload_date']}" if known.get("upload_date") else ""
    return f"{known['title']} is a music video{uploaded}{by}{on}."


def _metadata(folder: Path, name: str | None, video: str, skipped: Skipped) -> dict[str, str]:
    if name is None:
        return {}
    try:
        found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8-sig"))
        date = re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", str(found.get("upload_date") or ""))
        known = {"title": found.get("title"), "channel": found.get("channel") or found.get("uploader"), "upload_date": date}
        return {key: " ".join(str(value).split()) for key, value in known.items() if value}
    except (OSError, ValueError, AttributeError) as error:
        skipped.add(name, CorruptFile(f"not the metadata of a video: {error}"))
        return {}
