"""Pictures: reading and resizing by Pillow, augmentation by kornia (augmentation.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.manifest import Item
from ..encoders.image import flatten, open_image
from . import stack

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # mean and deviation of red, green, blue
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Picture:
    """(3, size, size): the middle of the picture at `size` pixels its shorter side, bicubic, its colours by mean and deviation.

    Augmented it is what `Augmentation` makes of it: with "crop" of the whole picture, else of its middle.
    """

    kind = "path"
    known: Sequence[str] = ("crop", "flip", "erase")

    def __init__(self, size: int, colours: tuple[tuple[float, ...], tuple[float, ...]], augment: frozenset[str]) -> None:
        self.size, self.augment = size, augment
        if augment:
            from .augmentation import Augmentation  # kornia takes a sixth of a second to import, and every command imports this file

            self.augmentation = Augmentation(size, augment)
        self.mean, self.deviation = (torch.tensor(values)[:, None, None] for values in colours)

    def check(self, items: Sequence[Item]) -> None:
        """Files are looked at when they are read."""

    def read(self, content: Path, item: Item, generator: np.random.Generator | None) -> Tensor:
        return self.of_image(flatten(open_image(content)), generator)

    def blank(self) -> Tensor:
        return torch.zeros(3, self.size, self.size)

    def collate(self, samples: Sequence[Tensor]) -> Tensor:
        return stack(samples)

    def of_image(self, image: Image.Image, generator: np.random.Generator | None) -> Tensor:
        """What an RGB picture becomes; `generator` gives the key of its augmentation."""
        augmented = generator is not None and bool(self.augment)
        pixels = np.array(image) if augmented and "crop" in self.augment else self._middle(image)
        x = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W) uint8
        if augmented:
            x = self.augmentation(x[None], [int(generator.integers(2**63))])[0]
        else:
            x = x.float().div_(255)
        return ((x - self.mean) / self.deviation).contiguous()

    def _middle(self, image: Image.Image) -> np.ndarray:
        if max(image.size) > 16 * min(image.size):  # a stripe would grow beyond all memory; only its middle is seen
            side = 2 * min(image.size)
            left, top = max(0, image.width - side) // 2, max(0, image.height - side) // 2
            image = image.crop((left, top, min(image.width, left + side), min(image.height, top + side)))
        width, height = image.size
        scaled = (self.size, int(self.size * height / width)) if width <= height else (int(self.size * width / height), self.size)
        pixels = np.array(image.resize(scaled, Image.Resampling.BICUBIC))
        top, left = (pixels.shape[0] - self.size) // 2, (pixels.shape[1] - self.size) // 2
        return pixels[top : top + self.size, left : left + self.size]  # (size, size, 3) uint8
