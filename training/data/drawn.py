"""What corpora of captioned drawings without recordings share: pictures to PNG, synthetic speech, leak-free groups, items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import corpus
from .alike import tie_alike
from .espeak import say, spoken
from .groups import assign, connected, normalise_caption
from .manifest import Item
from .packages import Package
from .pins import espeak
from .raster import rasterise

_SPARE = 300  # drawings beyond `most`, for those that cannot be drawn


@dataclass(frozen=True)
class Drawing:
    """One picture with its English caption. `spoken_as`: drawings with an equal one share a recording. `texts`: further modalities."""

    id: str
    caption: str
    picture: Path
    label: str
    spoken_as: str
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    keys: tuple[Any, ...] = ()  # equal keys are never torn apart by a split
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image(self) -> str:
        return f"images/{self.id}.png"

    @property
    def speech(self) -> str:
        return f"speech/en/{self.spoken_as}.flac"


@dataclass(frozen=True)
class DrawnCorpus:
    """A corpus of the drawings that `find` fetches. `version` and `packages`: what its files depend on."""

    name: str
    version: str
    packages: Sequence[Package]
    source: str
    licence: str
    find: Callable[[], list[Drawing]]
    most: int | None = None  # items, of the first drawings that can be drawn, then in the order of their ids

    def build(self, cache: Path, out: Path | None = None, strict: bool = False, progress: bool = True) -> Path:
        """Builds it and returns its manifest's path; one that is there and whole is kept. `out` defaults to a folder of the cache.

        Raises SourceUnavailable where a Debian package cannot be had, UserError.
        """
        folder = Path(out) if out else cache / "corpora" / self.name
        builder = f"{self.name} {self.version} {' '.join(package.sha256 for package in self.packages)} {espeak().version}"
        if manifest := corpus.built(folder, builder):
            return manifest.path
        drawings = self.find()
        with corpus.building(folder, builder):
            skipped = corpus.Skipped(strict)
            items = build_items(folder, drawings if self.most is None else drawings[: self.most + _SPARE], skipped, progress)
            about = {"corpus": self.name, "source": f"{self.source}; {espeak()}", "licence": self.licence}
            about |= {"speech": "synthetic, language en"}
            kept = items if self.most is None else sorted(items[: self.most], key=lambda item: item.id)
            return corpus.finish(folder, kept, about, skipped).path


def build_items(folder: Path, drawings: Sequence[Drawing], skipped: corpus.Skipped, progress: bool) -> list[Item]:
    """Writes every picture and recording below `folder` and returns the items, grouped by caption, keys and nearly equal pictures."""
    kept = corpus.prepare(drawings, lambda one: _draw(folder, one), "drawings", skipped, progress)
    kept = corpus.prepare(
        kept, lambda one: say(folder / one.speech, one.caption, one.spoken_as), "synthetic speech", skipped, progress, threads=1
    )
    keys = {one.id: [("caption", normalise_caption(one.caption)), *one.keys] for one in kept}
    tie_alike(keys, {one.id: folder / one.image for one in kept}, progress)
    group_of = connected(keys)
    splits = assign([group_of[one.id] for one in kept])
    return [_item(one, group_of[one.id], split) for one, split in zip(kept, splits, strict=True)]


def _draw(folder: Path, one: Drawing) -> None:
    if not (folder / one.image).exists():
        rasterise(one.picture, folder / one.image)


def _item(one: Drawing, group: str, split: str) -> Item:
    modalities = {
        "image": {"path": one.image},
        "text": {"texts": [one.caption]},
        "speech": spoken(one.speech, one.spoken_as),
        **{name: {"texts": list(texts)} if texts else None for name, texts in one.texts.items()},
    }
    return Item(one.id, split, group, normalise_caption(one.caption), modalities, label=one.label, meta=dict(one.meta))
