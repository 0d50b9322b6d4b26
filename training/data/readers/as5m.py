"""A catalogue of songs with covers and metadata, one cover for the many songs of an album, as AS5M is described by Nakatsuka et al.
(ISMIR 2024, 4.1.1). AS5M itself is private, so the layout is ours.

songs.csv: audio, image (paths relative to its folder), title, and where known artist, collection, genre, release_date, split, id. Without
splits the items are split 80 / 10 / 10 so that no artist and no cover is on two sides. The sentence is that of the paper (footnote 2),
whose quotation marks are read as marking the fields: TITLE is a GENRE song by ARTIST, released on DATE. TITLE is collected to COLLECTION.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import CorruptFile
from ..corpus import Skipped
from ..groups import SHARES, assign, connected
from ..manifest import Item
from .layout import find, inside, path, table

VARIANTS = {"songs": "songs.csv, split by its column, else 80 / 10 / 10 by artist and cover"}
_SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
_FIELDS = ("title", "artist", "collection", "genre", "release_date")


def read(folder: Path, variant: str, skipped: Skipped) -> list[Item]:
    """The songs with audio, image and text; the genre is the label, songs that share an artist or a cover are a group."""
    listed = find(folder, "songs.csv")
    found, keys = {}, {}
    for where, row in table(listed, ("audio", "image", "title"), skipped):
        row = {key: value.strip() for key, value in row.items()}
        identity = row.get("id") or Path(row["audio"]).with_suffix("").as_posix()
        split = row.get("split", "")
        if identity in found or (split and split not in SHARES):
            reason = f"id {identity!r} is used twice" if identity in found else f"expected a split of {', '.join(SHARES)}, got {split!r}"
            skipped.add(where, CorruptFile(reason))
            continue
        found[identity] = row
        keys[identity] = [("cover", row["image"]), *([("artist", row["artist"])] if row.get("artist") else [])]
    group_of = connected(keys)
    drawn = dict(zip(found, assign([group_of[identity] for identity in found], shares=_SHARES), strict=True))
    items = []
    for identity, row in found.items():
        known = {key: row[key] for key in _FIELDS if row.get(key)}
        modalities = {
            "audio": path(inside(folder, listed.parent, row["audio"])),
            "image": path(inside(folder, listed.parent, row["image"])),
            "text": {"texts": [sentence(known)]},
        }
        split = row.get("split") or drawn[identity]
        items.append(Item(identity, split, group_of[identity], "", modalities, label=known.get("genre", ""), meta=known))
    return items


def sentence(known: dict[str, str]) -> str:
    """The sentence of the fields that are known; ``title`` must be."""
    genre = known.get("genre", "")
    words = f"{'an' if genre[:1].lower() in 'aeiou' else 'a'} {genre} song" if genre else "a song"
    by = f" by {known['artist']}" if known.get("artist") else ""
    released = f", released on {known['release_date']}" if known.get("release_date") else ""
    collected = f" {known['title']} is collected to {known['collection']}." if known.get("collection") else ""
    return f"{known['title']} is {words}{by}{released}.{collected}"
