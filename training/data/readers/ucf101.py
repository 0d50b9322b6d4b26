"""UCF-101 (Soomro et al., 2012): 13,320 videos of 101 actions, three splits.

UCF-101/CLASS/v_CLASS_gGG_cCC.avi (in the folder HandstandPushups the files say HandStandPushups, and so do the lists);
ucfTrainTestlist/classInd.txt: `1 ApplyEyeMakeup`, trainlist0K.txt: `PATH LABEL`, labels from 1, testlist0K.txt: the path alone.
Sound and frames are extracted by the user, beside the video: v_X.wav, and v_X.jpg or a folder v_X of frames.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import CorruptFile
from ..corpus import Skipped
from ..manifest import Item
from .layout import beside, find, lines

VARIANTS = {f"split{k}": f"trainlist0{k}.txt and testlist0{k}.txt" for k in (1, 2, 3)}
_LISTS = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", "annotations", ".")


def read(folder: Path, variant: str, skipped: Skipped) -> list[Item]:
    """The videos of one split with their action as class; the group is the source video, gGG, which the lists never tear apart."""
    videos = find(folder, "UCF-101", "UCF101", "videos")
    lists = find(folder, *(f"{place}/classInd.txt" for place in _LISTS)).parent
    classes = dict(line.split(maxsplit=1) for _, line in lines(lists / "classInd.txt") if len(line.split()) == 2)
    known = {name.strip(): number for number, name in classes.items()}
    on_disk = {video.name.lower(): video for video in videos.glob("*/*.avi")}  # lists of other tools write Handstand for HandStand
    items = []
    for split in ("train", "test"):
        listed = lists / f"{split}list0{variant[-1]}.txt"
        for where, line in lines(listed):
            name, _, label = line.strip().partition(" ")
            action, _, file = name.partition("/")
            if action not in known or (label.strip() or known[action]) != known[action] or not file:
                reason = f"expected CLASS/VIDEO and the class's number of classInd.txt ({known.get(action, 'none')}), got {line.strip()!r}"
                skipped.add(where, CorruptFile(reason))
                continue
            video = on_disk.get(file.lower(), videos / action / file)
            words = " ".join(re.findall("[A-Z]+(?![a-z])|[A-Z][a-z]*|[0-9]+", action)).lower()
            modalities = {**beside(folder, video), "class": {"texts": [words]}}
            items.append(Item(Path(file).stem, split, Path(file).stem.rpartition("_")[0], words, modalities, label=words))
    return items
