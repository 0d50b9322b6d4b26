"""Clotho v2.1 (Drossos et al., ICASSP 2020; Zenodo 4783391): sounds of Freesound, 15 to 30 s, with five captions.

clotho_captions_{development,validation,evaluation}.csv: file_name, caption_1 to caption_5. clotho_metadata_*.csv, in ISO-8859-1, has
the sound_id of Freesound, from which a few clips of different splits were cut (github.com/audio-captioning/clotho-dataset, issue 3):
it is the group. The archives unpack to development/, validation/, evaluation/. File names hold spaces, also in front, and dots.
"""

from __future__ import annotations

from pathlib import Path

from ..corpus import Skipped
from ..manifest import Item
from .layout import GALLERIES, captioned, find, optional, path, relative, table

VARIANTS = GALLERIES
SPLITS = {"train": "development", "val": "validation", "test": "evaluation"}
_CSV = ("", "clotho_csv_files/")
_AUDIO = ("", "clotho_audio_files/", "clotho_audio_{}/", "audio/")


def read(folder: Path, variant: str, skipped: Skipped) -> list[Item]:
    """The items of all splits that have a list; the evaluation split is test, as everywhere, and validation val."""
    find(folder, *(f"{place}clotho_captions_{name}.csv" for name in SPLITS.values() for place in _CSV))
    items = []
    for split, name in SPLITS.items():
        listed = optional(folder, *(f"{place}clotho_captions_{name}.csv" for place in _CSV))
        if listed is None:
            continue
        audio = optional(folder, *(place.format(name) + name for place in _AUDIO)) or folder / name
        source = _sources(optional(folder, *(f"{place}clotho_metadata_{name}.csv" for place in _CSV)), skipped)
        columns = [f"caption_{number}" for number in range(1, 6)]
        for _, row in table(listed, ("file_name", *columns[:1]), skipped):
            sound = row["file_name"]
            if not (audio / sound).is_file() and (audio / sound.strip()).is_file():
                sound = sound.strip()  # unpacked by a program that drops the leading blank of three names
            group = source.get(row["file_name"].strip(), row["file_name"])
            texts = [row.get(column, "") for column in columns]
            items += captioned(f"{split}/{sound}", split, group, texts, {"audio": path(relative(audio, folder) + f"/{sound}")}, variant)
    return items


def _sources(metadata: Path | None, skipped: Skipped) -> dict[str, str]:
    if metadata is None:
        return {}
    found = table(metadata, ("file_name",), skipped, encoding="iso-8859-1")
    return {row["file_name"].strip(): sound for _, row in found if (sound := row.get("sound_id", "").strip()).isdigit()}
