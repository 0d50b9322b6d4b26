"""CREMA-D (Cao et al., 2014; github.com/CheyneyComputerScience/CREMA-D): 7,442 clips of 91 actors in six emotions.

AudioWAV/SPEAKER_SENTENCE_EMOTION_LEVEL.wav (git-lfs: without `git lfs pull` the files are pointers). The lists train.csv and test.csv
of OGM-GE and MMCosine hold `CLIP,EMOTION` without a header; all speakers are in both, and there is no validation list. Frames are
extracted by the user: Image-01-FPS/CLIP/*.jpg (OGM-GE) or image/CLIP.jpg (MMCosine).
"""

from __future__ import annotations

from pathlib import Path

from ...errors import CorruptFile
from ..corpus import Skipped
from ..groups import assign
from ..manifest import Item
from .layout import find, frames_in, optional, path, relative, rows

VARIANTS = {
    "lists": "train.csv and test.csv of OGM-GE and MMCosine; every speaker is in both",
    "speakers": "all of AudioWAV, split 70 / 10 / 20 by speaker",
}
EMOTIONS = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "FEA": "fear", "DIS": "disgust", "ANG": "anger"}


def read(folder: Path, variant: str, skipped: Skipped) -> list[Item]:
    """The clips with audio, their frames as image where there are any, and their emotion as class."""
    audio = find(folder, "AudioWAV")
    if variant == "speakers":
        clips = [(sound.stem, "") for sound in sorted(audio.glob("*.wav"))]
        splits = assign([clip.split("_")[0] for clip, _ in clips])
    else:
        clips, splits = [], []
        for split in ("train", "test"):
            listed = find(folder, f"{split}.csv", f"data/CREMAD/{split}.csv", f"data/{split}.csv")
            found = [(cells[0].strip(), cells[1].strip()) for _, cells in rows(listed, skipped, width=2)]
            clips += found
            splits += [split] * len(found)
    items = []
    for (clip, emotion), split in zip(clips, splits, strict=True):
        words = clip.split("_")
        code = emotion or (words[2] if len(words) > 2 else "")
        if len(words) < 3 or code not in EMOTIONS:
            reason = f"expected SPEAKER_SENTENCE_EMOTION_LEVEL and an emotion of {', '.join(EMOTIONS)}, got {clip!r}, {code!r}"
            skipped.add(clip, CorruptFile(reason))
            continue
        name = EMOTIONS[code]
        picture = optional(folder, f"image/{clip}.jpg")
        modalities = {
            "audio": path(f"{relative(audio, folder)}/{clip}.wav"),
            "image": path(relative(picture, folder)) if picture else frames_in(folder, folder / "Image-01-FPS" / clip),
            "class": {"texts": [name]},
        }
        items.append(Item(clip, split, words[0], name, modalities, label=name, meta={"sentence": words[1], "level": words[-1]}))
    return items
