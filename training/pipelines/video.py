"""Videos, of which a few frames are seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.frames import pictures
from ..data.manifest import Item
from ..errors import CorruptFile
from .picture import Picture


class Frames(Picture):
    """(T, 3, size, size): `count` frames T, the middle ones of as many stretches of equal length; of a short video some come twice.

    "crop" also cuts in time: a frame is drawn from each stretch. Frames are augmented each by itself, as MMCosine's released loader does.
    """

    kind = "frames"

    def __init__(self, size: int, colours: tuple[tuple[float, ...], tuple[float, ...]], augment: frozenset[str], count: int) -> None:
        super().__init__(size, colours, augment)
        self.count = count

    def read(self, content: list[Path] | Path, item: Item, generator: np.random.Generator | None) -> Tensor:
        """content: the frames' files in the order of time, a folder of them, or a single picture."""
        if isinstance(content, Path):
            content = [content / name for name in pictures(content)] if content.is_dir() else [content]
        if not content:
            raise CorruptFile(f"{item.id}: the folder has no picture")
        return torch.stack([Picture.read(self, content[place], item, generator) for place in self.places(len(content), generator)])

    def blank(self) -> Tensor:
        return torch.zeros(self.count, 3, self.size, self.size)

    def places(self, n: int, generator: np.random.Generator | None) -> list[int]:
        """Which of n frames are seen, (T,)."""
        drawn = generator is not None and "crop" in self.augment
        inside = generator.random(self.count) if drawn else np.full(self.count, 0.5)  # its stretch, from 0 to 1
        return np.minimum((np.arange(self.count) + inside) * n / self.count, n - 1).astype(int).tolist()
