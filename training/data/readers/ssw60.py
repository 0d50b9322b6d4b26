"""SSW60, Sapsucker Woods 60 (Van Horn et al., ECCV 2022; github.com/visipedia/ssw60): 60 species of birds.

taxa.csv: label, species_code, ..., common_name, ...; video_ml.csv: asset_id, label, split, ..., reliable_audio, with video_ml/ID.mp4;
audio_ml.csv with audio_ml/ID.wav; images_nabirds.csv, images_inat.csv with images_nabirds/ID.jpg, images_inat/ID.jpg. Sound and frames
of the videos are extracted by the user, beside them: ID.wav, and ID.jpg or a folder ID of frames.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import CorruptFile, UserError
from ..corpus import Skipped
from ..manifest import Item
from .layout import beside, find, path, relative, table

VARIANTS = {
    "video": "the videos, with their sound and a frame where these were extracted",
    "audio": "the sound recordings of audio_ml",
    "nabirds": "the pictures of NABirds",
    "inat": "the pictures of iNat2021, which have a validation split",
}
_TABLES = {"audio": "audio_ml", "nabirds": "images_nabirds", "inat": "images_inat"}
_SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


def read(folder: Path, variant: str, skipped: Skipped) -> list[Item]:
    """The items of one part of the dataset, with the species as class; items of one species are each other's hits."""
    taxa = find(folder, "taxa.csv", "ssw60/taxa.csv")
    root = taxa.parent
    names = {row["label"]: row["common_name"].strip() for _, row in table(taxa, ("label", "common_name"), skipped)}
    part = _TABLES.get(variant, "video_ml")
    items = []
    for where, row in table(find(root, f"{part}.csv"), ("asset_id", "label", "split"), skipped):
        name, split = names.get(row["label"]), _SPLITS.get(row["split"].strip())
        if name is None or split is None:
            reason = f"no label {row['label']!r} in {taxa.name}" if name is None else f"split {row['split']!r}"
            skipped.add(where, CorruptFile(reason))
            continue
        asset = row["asset_id"].strip()
        if variant == "video":
            modalities = beside(folder, root / part / f"{asset}.mp4")
        elif variant == "audio":
            modalities = {"audio": path(relative(root / part / f"{asset}.wav", folder))}
        else:
            modalities = {"image": path(relative(root / part / f"{asset}.jpg", folder))}
        meta = {"reliable_audio": row["reliable_audio"].strip()} if row.get("reliable_audio") else {}
        items.append(Item(asset, split, asset, name, {**modalities, "class": {"texts": [name]}}, label=name, meta=meta))
    if not items:
        raise UserError(f"{root / part}.csv: no row can be used")
    return items
