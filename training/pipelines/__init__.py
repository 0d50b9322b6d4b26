"""What turns the files and texts of an item into what an encoder takes. All randomness comes from the generator that is handed in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..config import Encoder
from ..data.frames import frames
from ..data.manifest import Item
from ..errors import UserError, near
from ..seeding import derive

Sample = Tensor | dict[str, Tensor]


class Pipeline(Protocol):
    """One modality's way from an item to a sample, and from samples to a batch."""

    kind: str  # the key of the manifest's entries that it reads: "path", "texts", or "frames" (the path where there are none)

    def check(self, items: Sequence[Item]) -> None:
        """UserError where it cannot make anything of these items."""

    def read(self, content: object, item: Item, generator: np.random.Generator | None) -> Sample:
        """The sample of an item; `content` is a Path, a list of texts, or of Paths (frames). A generator augments, None does not."""

    def blank(self) -> Sample:
        """A sample that stands in where the modality is missing."""

    def collate(self, samples: Sequence[Sample]) -> Sample:
        """The batch (B, ...) of samples."""


def generator(key: int, item: Item, modality: str) -> np.random.Generator:
    """The randomness of one item in one epoch: of (key, item, modality) alone, whichever worker reads it and whatever came before."""
    return np.random.Generator(np.random.Philox(key=derive(key, "augment", modality, item.id)))


def read(pipeline: Pipeline, item: Item, modality: str, root: Path, key: int | None) -> Sample:
    """The sample of an item, blank where it lacks the modality. `key`: that of the epoch's augmentation, None for none."""
    entry = item.modalities.get(modality)
    if entry is None:
        return pipeline.blank()
    if ("path" if pipeline.kind == "frames" else pipeline.kind) not in entry:
        got = ", ".join(entry)
        raise UserError(f"item {item.id!r}: modality {modality!r}: the encoder takes {pipeline.kind!r}, got an entry with {got}")
    if pipeline.kind == "frames":
        content: object = [root / name for name in frames(entry, root)]
    else:
        content = root / entry["path"] if pipeline.kind == "path" else entry["texts"]
    return pipeline.read(content, item, None if key is None else generator(key, item, modality))


def stack(samples: Sequence[Sample]) -> Sample:
    """(B, ...) of equal samples, tensor by tensor."""
    if isinstance(samples[0], Tensor):
        return torch.stack(list(samples))
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def check_augment(config: Encoder, known: Sequence[str]) -> frozenset[str]:
    """The augmentations of an encoder, or a UserError that names the first one that it does not have."""
    for name in config.augment:
        if name not in known:
            raise UserError(f"augment: {config.name} has none called {name!r}; {near(name, known)}")
    return frozenset(config.augment)
