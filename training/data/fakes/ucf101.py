"""A look-alike of UCF-101."""

from __future__ import annotations

from pathlib import Path

from .media import cut, picture, text, video

_CLASSES = ("ApplyEyeMakeup", "HandstandPushups", "YoYo")


def write(folder: Path, n: int) -> tuple[int, int]:
    """Traps: labels from 1, test lists without labels, HandStandPushups in the folder HandstandPushups and Handstand in a list, Windows
    lines, a label counted from 0, frame 10 after frame 2; a frame cut short, a video missing."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for number in range(n):
        label, group = number % 3, number // 3
        action = _CLASSES[label]
        file = f"v_{action.replace('Handstand', 'HandStand')}_g{group + 1:02d}_c{number % 2 + 1:02d}"
        video(folder / f"UCF-101/{action}/{file}.avi", number)
        for frame in (1, 2, 10):
            picture(folder / f"UCF-101/{action}/{file}/frame_{frame}.jpg", number + frame)
        listed = f"{action}/{file.replace('HandStand', 'Handstand') if number == 4 else file}.avi"
        lists["train" if group else "test"].append(f"{listed} {label + 1}" if group else listed)
    lists["train"].append("ApplyEyeMakeup/v_ApplyEyeMakeup_g99_c01.avi 0")
    lists["train"].append("YoYo/v_YoYo_g98_c01.avi 3")
    cut(folder / "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01/frame_2.jpg")
    text(folder / "ucfTrainTestlist/classInd.txt", [f"{k} {name}" for k, name in enumerate(_CLASSES, start=1)], crlf=True)
    for k in (1, 2, 3):
        for split, found in lists.items():
            text(folder / f"ucfTrainTestlist/{split}list0{k}.txt", found, crlf=True)
    return n, 3
