"""Training data made worse on purpose: modalities that are missing, contents that belong to another item.

Both touch training items alone and are keyed by (seed, modality, id): what happens to an item does not depend on the others' order, and a
higher rate spoils the items of a lower one and more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from ..errors import UserError, near
from ..seeding import derive
from .manifest import Item, Manifest, dump


def corrupt(manifest: Manifest, missing: Mapping[str, float], noise: Mapping[str, float], seed: int) -> Manifest:
    """The manifest with training items spoilt, then stripped.

    noise: modality -> share of the training items whose entries are shuffled among each other, so that each has another item's.
    missing: modality -> share of the training items that lose theirs, independently of the other modalities.
    UserError for a modality that the manifest has not.
    """
    for key, rates in (("data.noise", noise), ("data.missing", missing)):
        for name in rates:
            if name not in manifest.modalities:
                raise UserError(f"{key}: {manifest.path} has no modality {name!r}; {near(name, manifest.modalities)}")
    items = list(manifest.items)
    for name, rate in noise.items():
        items = _shuffle(items, name, rate, seed)
    for name, rate in missing.items():
        items = [
            _with(item, name, None) if item.split == "train" and _chance(seed, "missing", name, item) < rate else item for item in items
        ]
    return Manifest(items, manifest.path, hashlib.sha256(dump(items)).hexdigest())


def _shuffle(items: list[Item], name: str, rate: float, seed: int) -> list[Item]:
    chosen = [i for i, item in enumerate(items) if item.split == "train" and item.modalities.get(name)]
    chosen = [i for i in chosen if _chance(seed, "noise", name, items[i]) < rate]
    # In the order of a second draw everyone gets the next one's: nobody keeps what is theirs, unless they are alone.
    chosen.sort(key=lambda i: _chance(seed, "order", name, items[i]))
    spoilt = list(items)
    for i, j in zip(chosen, [*chosen[1:], *chosen[:1]], strict=True):
        spoilt[i] = _with(items[i], name, items[j].modalities[name])
    return spoilt


def _with(item: Item, name: str, entry: dict | None) -> Item:
    return replace(item, modalities={**item.modalities, name: entry})


def _chance(seed: int, purpose: str, name: str, item: Item) -> float:
    return derive(seed, purpose, name, item.id) / 2**63
