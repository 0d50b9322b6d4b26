"""ESC-50 (Piczak, ACM MM 2015; github.com/karolpiczak/ESC-50): 2,000 sounds of 5 s in 50 classes, in five folds by source recording.

meta/esc50.csv: filename, fold, target, category, esc10, src_file, take; audio/{fold}-{src_file}-{take}-{target}.wav. Categories are
written with underscores, which a prompt must not have.
"""

from __future__ import annotations

from pathlib import Path

from ..corpus import Skipped
from ..manifest import Item
from .layout import find, path, relative, table

VARIANTS = {
    "all": "every clip is test: zero-shot, nothing is trained on it",
    **{f"fold{k}": f"fold {k} is test, the other four train" for k in range(1, 6)},
}
PROMPT = "This is a sound of {}."  # that of m-LTM and CLAP


def read(folder: Path, variant: str, skipped: Skipped) -> list[Item]:
    """The items, the prompt of the class as text; items of one class are each other's hits."""
    meta = find(folder, "meta/esc50.csv", "ESC-50-master/meta/esc50.csv", "esc50.csv")
    audio = relative(meta.parent.parent if meta.parent.name == "meta" else meta.parent, folder)
    items = []
    for _, row in table(meta, ("filename", "fold", "target", "category", "src_file"), skipped):
        name = row["category"].strip().replace("_", " ")
        split = "test" if variant == "all" or row["fold"] == variant.removeprefix("fold") else "train"
        modalities = {"audio": path(f"{audio}/audio/{row['filename']}"), "text": {"texts": [PROMPT.format(name)]}}
        meta_of = {"fold": row["fold"], "target": row["target"]}
        items.append(Item(Path(row["filename"]).stem, split, row["src_file"], name, modalities, label=name, meta=meta_of))
    return items
