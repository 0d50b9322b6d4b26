"""CUB-200-2011 (Wah et al., 2011) with the captions of Reed et al. (CVPR 2016) and the splits of PCME (Chun et al., CVPR 2021).

CUB_200_2011/: images.txt `id path`, image_class_labels.txt `id class`, train_test_split.txt `id is_train`, classes.txt `id name`,
images/CLASS/NAME.jpg, attributes/image_attribute_labels.txt `image attribute is_present certainty time` (lines with more or fewer
fields occur; the first four are read), attributes/class_attribute_labels_continuous.txt, 200 lines of 312 per cents. All ids start at
1. text_c10/CLASS/NAME.txt: ten captions, a line each. The lists of classes are those in datasets/annotations/cub of
github.com/naver-ai/pcme, the proposed split of Xian et al. (CVPR 2017); they are to be copied to annotations/cub.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import CorruptFile, UserError
from ..corpus import Skipped
from ..manifest import Item
from .layout import captions, find, lines, optional, path, relative

VARIANTS = {
    **{f"fold{k}": f"by class: 100 train, 50 val (PCME's trainval{k}), 50 unseen test" for k in (1, 2, 3)},
    "pcme": "by class: 150 train, 50 unseen test, no val (PCME's final split)",
    "official": "train_test_split.txt: every class in train and test",
}
ATTRIBUTES = 312
_CAPTIONS = ("text_c10", "cvpr2016_cub/text_c10", "CUB_200_2011/text_c10", "birds/text_c10", "captions")


def read(folder: Path, variant: str, skipped: Skipped) -> list[Item]:
    """Items with image, text, attributes (0 or 1 each) and class (the class's mean attributes, 0 to 1); those of a class are hits.

    PCME's seen_test_images.txt, pictures of training classes that it keeps for another test, are left out.
    """
    root = find(folder, "images.txt", "CUB_200_2011/images.txt").parent
    image = relative(root, folder).removeprefix(".")
    texts = find(folder, *_CAPTIONS)
    name_of = dict(_pairs(root / "classes.txt", skipped))
    class_of = dict(_pairs(root / "image_class_labels.txt", skipped))
    split_of = _splits(folder, root, variant, skipped)
    present = _attributes(optional(root, "attributes/image_attribute_labels.txt"), skipped)
    mean = _class_attributes(optional(root, "attributes/class_attribute_labels_continuous.txt"), len(name_of))
    items = []
    for number, name in _pairs(root / "images.txt", skipped):
        label = name_of.get(class_of.get(number, ""), "")
        if label != name.split("/")[0]:  # an off-by-one label would show here
            skipped.add(name, CorruptFile(f"image_class_labels.txt: expected its folder's class, got {label or 'none'!r}"))
            continue
        if (split := split_of(number, name, label)) is None:
            continue
        written = optional(texts, Path(name).with_suffix(".txt").as_posix())
        chosen = captions(written, skipped) if written else []
        modalities = {
            "image": path(f"{image}/images/{name}".removeprefix("/")),
            "text": {"texts": chosen} if chosen else None,
            "attributes": {"vector": list(present[number])} if number in present else None,
            "class": {"vector": mean[int(class_of[number]) - 1]} if mean else None,
        }
        bird = label.partition(".")[2].replace("_", " ")
        group = label if variant != "official" else name
        items.append(Item(Path(name).with_suffix("").as_posix(), split, group, bird, modalities, label=bird))
    return items


def _pairs(file: Path, skipped: Skipped) -> list[tuple[str, str]]:
    found = []
    for where, line in lines(file):
        words = line.split(maxsplit=1)
        if len(words) == 2 and words[0].isdigit():
            found.append((words[0], words[1].strip()))
        else:
            skipped.add(where, CorruptFile(f"expected a number and a value, got {line[:60]!r}"))
    return found


def _splits(folder: Path, root: Path, variant: str, skipped: Skipped):  # noqa: ANN202 (a function of number, path and class)
    if variant == "official":
        train = dict(_pairs(root / "train_test_split.txt", skipped))
        return lambda number, name, label: {"1": "train", "0": "test"}.get(train.get(number))

    def classes(name: str) -> list[str]:
        places = ("annotations/cub", "datasets/annotations/cub", "annotations", "")
        return [line.strip() for _, line in lines(find(folder, *(f"{place}/{name}.txt".removeprefix("/") for place in places)))]

    fold = variant.removeprefix("fold")
    lists = {"train": "trainvalclasses"} if variant == "pcme" else {"train": f"trainclasses{fold}", "val": f"valclasses{fold}"}
    of_class = {label: split for split, name in {**lists, "test": "testclasses"}.items() for label in classes(name)}
    seen = set(classes("seen_test_images"))
    return lambda number, name, label: None if name in seen and of_class.get(label) == "train" else of_class.get(label)


def _attributes(file: Path | None, skipped: Skipped) -> dict[str, bytearray]:
    found: dict[str, bytearray] = {}
    for where, line in lines(file) if file else ():
        words = line.split(None, 4)
        if len(words) < 4 or not words[1].isdigit() or not 1 <= int(words[1]) <= ATTRIBUTES or words[2] not in ("0", "1"):
            skipped.add(where, CorruptFile(f"expected image attribute is_present certainty, got {line[:60]!r}"))
            continue
        found.setdefault(words[0], bytearray(ATTRIBUTES))[int(words[1]) - 1] = int(words[2])
    return found


def _class_attributes(file: Path | None, classes: int) -> list[list[float]]:
    found = []
    for where, line in lines(file) if file else ():
        try:
            row = [round(float(word) / 100, 6) for word in line.split()]
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
        if len(row) != ATTRIBUTES:
            raise UserError(f"{where}: expected {ATTRIBUTES} numbers, got {len(row)}")
        found.append(row)
    if file and len(found) != classes:
        raise UserError(f"{file}: expected a line for each of {classes} classes, got {len(found)}")
    return found
