"""A look-alike of AudioCaps: the official lists, sounds by YouTube id as downloaders name them."""

from __future__ import annotations

from pathlib import Path

from .media import captions, cut, sound, split_of, table


def write(folder: Path, n: int) -> tuple[int, int]:
    """Traps: a byte-order mark, Windows lines, the rows of a clip apart, ids that begin with a dash, commas, a row that is half of a
    caption; one sound missing, one cut short."""
    rows: dict[str, list[list[object]]] = {"train": [], "val": [], "test": []}
    for number in range(n):
        split = split_of(number)
        video = f"-x_{number:08d}"  # 11 characters
        for k, caption in enumerate(captions(number, 1 if split == "train" else 5)):
            rows[split].append([1000 * k + number, video, 30, caption])
        sound(folder / f"waveforms/{split}/Y{video}.wav", number)
    (folder / "waveforms/train/Y-x_00000001.wav").unlink()
    cut(folder / "waveforms/train/Y-x_00000000.wav")
    rows["train"].append(["hums and hums", "", "", ""])
    for split, found in rows.items():
        found.sort(key=lambda row: str(row[0])[::-1])
        table(folder / f"{split}.csv", [["audiocap_id", "youtube_id", "start_time", "caption"], *found], split == "val", split == "test")
    return n - 2, 3
