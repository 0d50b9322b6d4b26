"""Your own files, without a list or with one.

Files whose names agree but for the ending are an item, wherever below the folder they lie: a/x.jpg, b/x.wav and x.txt are the image, the
audio and the text of x. Where that would give an item two files of one kind (cats/1.jpg, dogs/1.jpg), the folders count too. A .txt
holds a caption a line. Folders train, val and test at the top are the splits; else items are split 70 / 10 / 20 by group. A file
captions.csv adds captions and says more: file (a name, with or without ending or folders), and any of caption, split, group, label.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ...errors import CorruptFile, UserError
from ..check import PICTURES, SOUNDS, VIDEOS
from ..corpus import Skipped
from ..groups import SHARES, assign, connected, normalise_caption
from ..manifest import Item
from .layout import captions, header, path, relative, table, walk

VARIANTS = {"files": "files paired by name"}
_KINDS = {**dict.fromkeys(PICTURES, "image"), **dict.fromkeys(SOUNDS, "audio"), **dict.fromkeys(VIDEOS, "video"), ".txt": "text"}
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
_TABLE = "captions.csv"


def read(folder: Path, variant: str, skipped: Skipped) -> list[Item]:
    """The items with two modalities or more; the others are named and left out. Equal first captions make items each other's hits, and
    keep them on one side of a split."""
    files = sorted(_files(folder, skipped))
    if not files:
        raise UserError(f"{folder}: expected files that end in {', '.join(_KINDS)}, found none")
    paired = _paired(files)
    rows = _rows(folder / _TABLE, paired, skipped)
    texts = {key: _texts(folder, kinds, rows[key], skipped) for key, kinds in paired.items()}
    for key, kinds in list(paired.items()):
        if len(kinds.keys() - {"text"}) + bool(texts[key]) < 2:
            skipped.add(next(iter(kinds.values())), CorruptFile("no file of another kind, and no caption, goes with it"))
            del paired[key]
    keys = {key: [("caption", normalise_caption(texts[key][0]))] if texts[key] else [] for key in paired}
    group_of = {**connected(keys), **{key: rows[key]["group"] for key in paired if rows[key].get("group")}}
    drawn = dict(zip(paired, assign([group_of[key] for key in paired]), strict=True))
    items = []
    for key, kinds in paired.items():
        media = {kind: path(name) for kind, name in kinds.items() if kind != "text"}
        top, file = _split(next(iter(kinds.values())))
        split = rows[key].get("split") or top or drawn[key]
        caption = normalise_caption(texts[key][0]) if texts[key] else ""
        # where the folders tell items apart, and not kinds of files, the folder is a category
        label = rows[key].get("label") or (file.parent.name if key.endswith(file.with_suffix("").as_posix()) else "")
        entries = {**media, "text": {"texts": texts[key]} if texts[key] else None}
        items.append(Item(key, split, group_of[key], caption, entries, label=label))
    return items


def _files(folder: Path, skipped: Skipped) -> list[str]:
    found = []
    for file in walk(folder):
        name = relative(file, folder)
        if file.suffix.lower() not in _KINDS:
            continue
        if (printable := name.encode(errors="replace").decode()) != name:
            skipped.add(printable, CorruptFile("the file's name is not UTF-8"))
        else:
            found.append(name)
    return found


def _split(name: str) -> tuple[str, Path]:
    """The split that the top folder says, or "", and the path below it."""
    first, slash, rest = name.partition("/")
    split = _SPLITS.get(first.lower(), "") if slash else ""
    return split, Path(rest if split else name)


def _paired(files: list[str]) -> dict[str, dict[str, str]]:
    """key -> {kind: file}: by name alone, or, where two files of a kind would meet, by the path without its ending."""
    for key_of in (lambda file: file.stem, lambda file: file.with_suffix("").as_posix()):
        paired: dict[str, dict[str, str]] = defaultdict(dict)
        clash = None
        for name in files:
            split, file = _split(name)
            key = f"{split}/{key_of(file)}".removeprefix("/")  # the same name in train and in test is two items
            kind = _KINDS[file.suffix.lower()]
            clash = clash or ((paired[key][kind], name) if kind in paired[key] else None)
            paired[key][kind] = name
        if clash is None:
            return dict(paired)
    raise UserError(f"{clash[0]} and {clash[1]} are two files of one kind with one name; rename one")


def _rows(listed: Path, paired: dict[str, dict[str, str]], skipped: Skipped) -> dict[str, dict]:
    """key -> what captions.csv says of the item, its captions as a list."""
    found: dict[str, dict] = {key: {"captions": []} for key in paired}
    if not listed.is_file():
        return found
    if unknown := [name for name in header(listed) if name not in ("file", "caption", "split", "group", "label")]:
        raise UserError(f"{listed}: expected the columns file, caption, split, group, label, got {unknown[0]!r}")
    of_file: dict[str, set[str]] = defaultdict(set)
    for key, kinds in paired.items():
        for name in kinds.values():
            file = Path(name)
            for spelling in (name, file.with_suffix("").as_posix(), file.name, file.stem, key):
                of_file[spelling].add(key)
    for where, row in table(listed, ("file",), skipped):
        keys = of_file.get(row["file"].strip(), set())
        split = row.get("split", "").strip()
        if len(keys) != 1 or (split and split not in SHARES):
            expected = f"a split of {', '.join(SHARES)}, got {split!r}" if len(keys) == 1 else f"the name of one item, got {row['file']!r}"
            skipped.add(where, CorruptFile(f"expected {expected}" + (f" ({len(keys)} items)" if len(keys) > 1 else "")))
            continue
        of_item = found[next(iter(keys))]
        of_item["captions"] += [caption] if (caption := row.get("caption", "").strip()) else []
        of_item.update({name: value for name in ("split", "group", "label") if (value := row.get(name, "").strip())})
    return found


def _texts(folder: Path, kinds: dict[str, str], row: dict, skipped: Skipped) -> list[str]:
    written = captions(folder / kinds["text"], skipped) if "text" in kinds else []
    return list(dict.fromkeys(written + row["captions"]))
