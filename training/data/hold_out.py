"""Tests on what was never trained on though its kind was: another style of drawing, another voice, another language."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ..errors import UserError, near
from .manifest import Item, Manifest, dump


def held_out(manifest: Manifest, hold_out: Mapping[str, str], test_only: Mapping[str, str]) -> Manifest:
    """The manifest without what must not be seen, and without what is not asked.

    A fact of an item stands in its `meta` (style) or in a modality's entry (voice, language). hold_out: fact -> value; an item of which one
    of them holds leaves the training and validation splits. test_only: fact -> value; a test item of which one does not hold leaves. Groups
    stay as they were: what is tested was not trained on in another style either. UserError for a fact or a value that no item has,
    and where a split is left without items.
    """
    for key, wanted in (("data.hold_out", hold_out), ("data.test_only", test_only)):
        for name, value in wanted.items():
            values = {found for item in manifest.items for found in _facts(item, name)}
            if not values:
                told = (facts for item in manifest.items for facts in (item.meta, *item.modalities.values()))
                names = {n for facts in told for n, what in (facts or {}).items() if isinstance(what, str) and n != "path"}
                raise UserError(f"{key}: no item of {manifest.path} says its {name!r}; {near(name, names)}")
            if value not in values:
                raise UserError(f"{key}.{name}: {manifest.path} has no item with {value!r}; {near(value, values)}")
    items = [
        item
        for item in manifest.items
        if (item.split == "test" or not any(value in _facts(item, name) for name, value in hold_out.items()))
        and (item.split != "test" or all(value in _facts(item, name) for name, value in test_only.items()))
    ]
    for split in {item.split for item in manifest.items} - {item.split for item in items}:
        raise UserError(f"data.hold_out, data.test_only: leave no item of {manifest.path} in the split {split!r}")
    return Manifest(items, manifest.path, hashlib.sha256(dump(items)).hexdigest())


def _facts(item: Item, name: str) -> set[str]:
    """What an item says under a name, in its meta or in its modalities."""
    found = [item.meta.get(name), *(entry.get(name) for entry in item.modalities.values() if entry)]
    return {value for value in found if isinstance(value, str)}
