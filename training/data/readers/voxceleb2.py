"""VoxCeleb2 (Chung et al., Interspeech 2018): utterances of celebrities, with face tracks.

The distribution: dev/aac/ID/VIDEO/UTT.m4a and test/aac/... (to be converted to wav in place: libsndfile reads no AAC), dev/mp4, test/mp4,
and vox2_meta.csv: `VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set `, with blanks behind every name and value. MMCosine's lists: train_vox2.csv
`AUDIO,FACES,ID,COUNT` without a header, test_pairs.csv `LABEL,WAV,WAV`, paths with a leading slash; audio/{train,test}/ID/VIDEO/UTT.wav,
image/{train,test}/ID#VIDEO#UTT.txt#000.mp4/%07d.png. voxceleb_trainer's train_list.txt: `ID ID/VIDEO/UTT.wav`.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import CorruptFile
from ..corpus import Skipped
from ..manifest import Item
from .layout import find, frames_in, lines, optional, path, relative, rows, table

VARIANTS = {
    "lists": "train_vox2.csv or train_list.txt, and the utterances of test_pairs.csv or veri_test.csv",
    "official": "vox2_meta.csv: every utterance of the dev and test sets",
}


def read(folder: Path, variant: str, skipped: Skipped) -> list[Item]:
    """Utterances with audio and, where there are any, a face and the video; the speaker is label, group and what counts as a hit.

    Ids are SPEAKER/VIDEO/UTTERANCE, so that the pairs of a verification list name items.
    """
    return _official(folder, skipped) if variant == "official" else _lists(folder, skipped)


def _lists(folder: Path, skipped: Skipped) -> list[Item]:
    train = find(folder, "train_vox2.csv", "train_list.txt")
    items = []
    if train.suffix == ".csv":
        for _, cells in rows(train, skipped, width=4):
            items.append(_item(folder, "train", cells[0].strip("/ "), f"image/train/{cells[1].strip('/ ')}", skipped))
    else:
        for where, line in lines(train):
            speaker, _, name = line.strip().partition(" ")
            if name.split("/")[0] != speaker:
                skipped.add(where, CorruptFile(f"expected ID ID/VIDEO/UTT.wav, got {line.strip()!r}"))
            else:
                items.append(_item(folder, "train", name, None, skipped))
    if pairs := optional(folder, "test_pairs.csv", "veri_test.csv"):
        names = dict.fromkeys(cell.strip("/ ") for _, cells in rows(pairs, skipped, width=3) for cell in cells[1:3])
        items += [_item(folder, "test", name, None, skipped) for name in names]
    return [item for item in items if item]


def _official(folder: Path, skipped: Skipped) -> list[Item]:
    items = []
    for where, row in table(find(folder, "vox2_meta.csv", "meta/vox2_meta.csv"), ("VoxCeleb2 ID", "Set"), skipped):
        speaker, part = row["VoxCeleb2 ID"].strip(), row["Set"].strip()
        place = next((p for kind in ("aac", "wav") if (p := folder / part / kind / speaker).is_dir()), None)
        if part not in ("dev", "test") or place is None:
            skipped.add(where, CorruptFile(f"expected a folder {part}/aac/{speaker}, found none"))
            continue
        sounds = {file.with_suffix(".wav") for file in place.glob("*/*") if file.suffix in (".wav", ".m4a")}
        for sound in sorted(sounds):
            name = f"{speaker}/{sound.parent.name}/{sound.name}"
            items.append(_item(folder, "train" if part == "dev" else "test", name, None, skipped))
    return [item for item in items if item]


def _item(folder: Path, split: str, name: str, faces: str | None, skipped: Skipped) -> Item | None:
    words = name.removesuffix(".wav").split("/")
    if len(words) != 3:
        skipped.add(name, CorruptFile(f"expected ID/VIDEO/UTT.wav, got {name!r}"))
        return None
    part = "dev" if split == "train" else "test"
    stem = "/".join(words)
    places = (f"audio/{split}", f"{part}/aac", f"{part}/wav", split)
    sound = optional(folder, *(f"{place}/{stem}{ending}" for ending in (".wav", ".m4a") for place in places))
    faces = faces or f"image/{split}/{'#'.join(words)}.txt#000.mp4"
    video = optional(folder, f"{part}/mp4/{stem}.mp4")
    audio = relative(sound, folder) if sound else f"audio/{split}/{stem}.wav"
    modalities = {"audio": path(audio), "image": frames_in(folder, folder / faces)}
    if video:
        modalities["video"] = path(relative(video, folder))
    return Item(stem, split, words[0], words[0], modalities, label=words[0])
