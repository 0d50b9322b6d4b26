"""Pictures: reading, resizing, and the augmentation of the papers.

Not by a library: torchvision and kornia draw from a global generator, while an item's numbers here are a function of its key. On a
GPU, for batches of one size, nothing is left to win: mirroring and erasing are a thousandth of reading (docs/encoders.md).
"""

from __future__ import annotations

import math
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
    """(3, size, size): the middle of the picture at `size` pixels its shorter side, its colours by mean and deviation.

    Augmented: "crop" takes a part of .08 to 1 of its area and of sides 3:4 to 4:3 instead, "flip" mirrors every second, "erase" greys a
    rectangle of .02 to .33 of its area in every fifth (ISMIR 2024, section 4.1.2). Pillow crops and resizes in one step, bicubic and
    without aliasing.
    """

    kind = "path"
    known: Sequence[str] = ("crop", "flip", "erase")

    def __init__(self, size: int, colours: tuple[tuple[float, ...], tuple[float, ...]], augment: frozenset[str]) -> None:
        self.size, self.augment = size, augment
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
        augment = self.augment if generator is not None else frozenset()
        pixels = self._part(image, generator) if "crop" in augment else self._middle(image)
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div_(255)
        x = (x - self.mean) / self.deviation
        if "flip" in augment and generator.random() < 0.5:
            x = x.flip(2)
        if "erase" in augment and generator.random() < 0.2:
            top, left, height, width = random_box(self.size, self.size, (0.02, 0.33), (0.3, 3.3), generator)
            x[:, top : top + height, left : left + width] = 0
        return x.contiguous()

    def _middle(self, image: Image.Image) -> np.ndarray:
        if max(image.size) > 16 * min(image.size):  # a stripe would grow beyond all memory; only its middle is seen
            side = 2 * min(image.size)
            left, top = max(0, image.width - side) // 2, max(0, image.height - side) // 2
            image = image.crop((left, top, min(image.width, left + side), min(image.height, top + side)))
        width, height = image.size
        scaled = (self.size, int(self.size * height / width)) if width <= height else (int(self.size * width / height), self.size)
        pixels = np.asarray(image.resize(scaled, Image.Resampling.BICUBIC))
        top, left = (pixels.shape[0] - self.size) // 2, (pixels.shape[1] - self.size) // 2
        return pixels[top : top + self.size, left : left + self.size]  # (size, size, 3) uint8

    def _part(self, image: Image.Image, generator: np.random.Generator) -> np.ndarray:
        top, left, height, width = random_box(image.height, image.width, (0.08, 1.0), (3 / 4, 4 / 3), generator)
        box = (left, top, left + width, top + height)
        return np.asarray(image.resize((self.size, self.size), Image.Resampling.BICUBIC, box))


def random_box(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a rectangle inside height x width: its share of the area uniform, its ratio log-uniform.

    After ten that do not fit, the largest in the middle whose ratio is allowed.
    """
    for _ in range(10):
        size = height * width * generator.uniform(*area)
        shape = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))  # width over height
        w, h = round(math.sqrt(size * shape)), round(math.sqrt(size / shape))
        if 0 < w <= width and 0 < h <= height:
            return int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1)), h, w
    shape = min(max(width / height, ratio[0]), ratio[1])
    w, h = max(1, min(width, round(height * shape))), max(1, min(height, round(width / shape)))
    return (height - h) // 2, (width - w) // 2, h, w
