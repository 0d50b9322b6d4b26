"""AudioCaps (Kim et al., NAACL 2019): ten-second sounds of YouTube with captions.

Two layouts. The official lists, {train,val,test}.csv of github.com/cdjkim/audiocaps (dataset/ and dataset2.0/), have the columns
audiocap_id, youtube_id, start_time, caption and a row a caption, the rows of a clip anywhere in the file; version 2.0 has rows that
hold half of a caption and nothing else. Those of Mei et al. (ACT, also m-LTM), csv_files/{train,val,test}.csv, have file_name and
caption in train, file_name and caption_1 to caption_5 else. Audio is not distributed with either.
"""

from __future__ import annotations

from pathlib import Path

from ..corpus import Skipped
from ..manifest import Item
from .layout import GALLERIES, captioned, find, header, optional, path, relative, stems, table

VARIANTS = GALLERIES


def read(folder: Path, variant: str, skipped: Skipped) -> list[Item]:
    """The items of all splits that have a list. Sounds are sought below waveforms/SPLIT, audio/SPLIT or SPLIT, then anywhere, by
    the names that downloaders give: file_name, Y and the YouTube id, the id alone, with _START behind, or the audiocap_id."""
    find(folder, "test.csv", "csv_files/test.csv", "dataset/test.csv", "train.csv", "csv_files/train.csv", "dataset/train.csv")
    items = []
    for split in ("train", "val", "test"):
        listed = optional(folder, f"{split}.csv", f"csv_files/{split}.csv", f"dataset/{split}.csv")
        if listed is None:
            continue
        place = optional(folder, f"waveforms/{split}", f"audio/{split}", split, "waveforms", "audio") or folder
        sounds = stems(folder, place)
        official = "youtube_id" in header(listed)
        for names, group, texts in _official(listed, skipped) if official else _acts(listed, skipped):
            missing = relative(place, folder) + f"/{names[0]}.wav"  # to be named as such
            sound = next((sounds[name] for name in names if name in sounds), missing)
            items += captioned(f"{split}/{names[0]}", split, group, texts, {"audio": path(sound)}, variant)
    return items


def _official(listed: Path, skipped: Skipped) -> list[tuple[list[str], str, list[str]]]:
    clips: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for _, row in table(listed, ("audiocap_id", "youtube_id", "start_time", "caption"), skipped):
        ids, texts = clips.setdefault((row["youtube_id"], row["start_time"]), ([], []))
        ids.append(row["audiocap_id"])
        texts.append(row["caption"])
    return [
        ([f"Y{video}", video, f"Y{video}_{start}", f"{video}_{start}", *ids], video, texts)
        for (video, start), (ids, texts) in clips.items()
    ]


def _acts(listed: Path, skipped: Skipped) -> list[tuple[list[str], str, list[str]]]:
    columns = [name for name in header(listed) if name.startswith("caption")]
    found = []
    for _, row in table(listed, ("file_name", *columns[:1]), skipped):
        stem = Path(row["file_name"]).stem
        found.append(([stem], stem.removeprefix("Y"), [row.get(name, "") for name in columns]))
    return found
