"""A look-alike of CUB-200-2011 with captions, attributes and PCME's lists, of six classes."""

from __future__ import annotations

from pathlib import Path

from .media import captions, cut, picture, text

_BIRDS = ("Black_footed_Albatross", "Laysan_Albatross", "Sooty_Albatross", "Groove_billed_Ani", "Crested_Auklet", "Brandt_Cormorant")
_CLASSES = [f"{number:03d}.{bird}" for number, bird in enumerate(_BIRDS, start=1)]
_LISTS = {"trainclasses": (0, 1, 2), "valclasses": (4,)}


def write(folder: Path, n: int) -> tuple[int, int]:
    """Traps: ids from 1, attribute lines with more and fewer fields, a blank last line of captions, a picture without captions, a
    picture that PCME keeps for its other test; a picture missing, one cut short."""
    root = folder / "CUB_200_2011"
    names = [f"{_CLASSES[number % 6]}/{_BIRDS[number % 6]}_{number:04d}_{796000 + number}.jpg" for number in range(n)]
    for number, name in enumerate(names):
        picture(root / "images" / name, number)
        if number != 3:
            text((folder / "text_c10" / name).with_suffix(".txt"), [*captions(number, 10), *([""] if number == 4 else [])])
    (root / "images" / names[1]).unlink()
    cut(root / "images" / names[0])
    text(root / "images.txt", [f"{k} {name}" for k, name in enumerate(names, start=1)])
    text(root / "image_class_labels.txt", [f"{k} {(k - 1) % 6 + 1}" for k in range(1, n + 1)])
    text(root / "train_test_split.txt", [f"{k} {(k - 1) // 6 % 2}" for k in range(1, n + 1)])
    text(root / "classes.txt", [f"{k} {name}" for k, name in enumerate(_CLASSES, start=1)])
    labels = [f"{k} {a} {int(hash((k, a)) % 7 == 0)} {1 + a % 4} {a / 8:.3f}" for k in range(1, n + 1) for a in range(1, 313)]
    labels[7] += " 0"
    labels[9] = labels[9].rsplit(" ", 1)[0]
    labels.append("1 313")
    text(root / "attributes/image_attribute_labels.txt", labels)
    means = [" ".join(f"{(c * a) % 101:.4f}" for a in range(312)) for c in range(6)]
    text(root / "attributes/class_attribute_labels_continuous.txt", means)
    lists = folder / "annotations/cub"
    for fold in (1, 2, 3):
        for name, classes in _LISTS.items():
            text(lists / f"{name}{fold}.txt", [_CLASSES[c] for c in classes])
    text(lists / "trainvalclasses.txt", [_CLASSES[c] for c in (0, 1, 2, 4)])
    text(lists / "testclasses.txt", [_CLASSES[c] for c in (3, 5)])
    text(lists / "seen_test_images.txt", [names[2]])
    return n - 3, 3
