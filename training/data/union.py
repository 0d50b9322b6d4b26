"""The union corpus: tux, emoji-styles, openclipart and art4apps as one, 10,794 pictures with English captions and synthetic English speech.

An item's id begins with its corpus, which stands in `meta` too. Groups go across corpora: an equal caption or a nearly equal picture joins
them. The recordings of tux are French: its items get synthetic English speech as all others do, and keep theirs as "speech_human".
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from . import art4apps, corpus, emoji_styles, openclipart, tux
from .alike import tie_alike
from .espeak import say, spoken
from .groups import assign, connected
from .manifest import Item, Manifest
from .pins import espeak

_VERSION = "1"
_KEPT = ("image", "text", "speech")


def build(cache: Path, out: Path | None = None, strict: bool = False, progress: bool = True) -> Path:
    """Builds the four corpora where they are not there yet, then their union, and returns its manifest's path.

    The union holds no pictures of its own: it names those of the four, which stay where they are in the cache. Raises SourceUnavailable,
    UserError.
    """
    folder = Path(out) if out else cache / "corpora" / "union"
    parts = {
        "tux": tux.build(cache, "fr", None, strict, progress),
        "emoji": emoji_styles.build(cache, None, strict, progress),
        "openclipart": openclipart.build(cache, None, strict, progress),
        "art4apps": art4apps.build(cache, None, strict, progress),
    }
    manifests = {name: Manifest.read(path) for name, path in parts.items()}
    builder = f"union {_VERSION} {' '.join(manifest.sha256 for manifest in manifests.values())} {espeak().version}"
    if manifest := corpus.built(folder, builder):
        return manifest.path
    with corpus.building(folder, builder):
        skipped = corpus.Skipped(strict)
        items = [_item(folder, name, manifest, item) for name, manifest in manifests.items() for item in manifest.items]
        mute = [item for item in items if item.modalities["speech"] is None]
        corpus.prepare(mute, lambda item: _say(folder, item), "synthetic speech", skipped, progress, threads=1)
        items = [_voiced(item) for item in items if item.id not in skipped.reasons]
        about = {
            "corpus": "union",
            "source": ", ".join(f"{name} {manifest.sha256[:12]}" for name, manifest in manifests.items()),
            "licence": "each part's own; see their about.json",
            "speech": "synthetic, language en; of tux also human, language fr, as speech_human",
        }
        return corpus.finish(folder, _grouped(folder, items, progress), about, skipped).path


def _item(folder: Path, name: str, manifest: Manifest, item: Item) -> Item:
    def moved(entry: dict | None) -> dict | None:
        return {**entry, "path": os.path.relpath(manifest.root / entry["path"], folder)} if entry and "path" in entry else entry

    modalities = {key: moved(item.modalities.get(key)) for key in _KEPT}
    modalities["speech_human"] = None
    if name == "tux":
        modalities |= {"speech": None, "speech_human": modalities["speech"]}
    return replace(item, id=f"{name}/{item.id}", group=f"{name}/{item.group}", modalities=modalities, meta={**item.meta, "corpus": name})


def _voiced(item: Item) -> Item:
    if item.modalities["speech"] is not None:
        return item
    return replace(item, modalities={**item.modalities, "speech": spoken(_speech(item), item.id)})


def _speech(item: Item) -> str:
    return f"speech/en/{item.id}.flac"


def _say(folder: Path, item: Item) -> None:
    say(folder / _speech(item), item.modalities["text"]["texts"][0], item.id)


def _grouped(folder: Path, items: list[Item], progress: bool) -> list[Item]:
    keys = {item.id: [("group", item.group), ("caption", item.caption)] for item in items}
    tie_alike(keys, {item.id: folder / item.modalities["image"]["path"] for item in items}, progress)
    group_of = connected(keys)
    splits = assign([group_of[item.id] for item in items])
    return [replace(item, group=group_of[item.id], split=split) for item, split in zip(items, splits, strict=True)]
