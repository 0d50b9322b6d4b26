"""Random resized crop, flip and erasing of pictures: kornia's, with draws that are a function of each picture's key alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from kornia.augmentation import RandomErasing, RandomHorizontalFlip, RandomResizedCrop
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..seeding import derive


def unit(x: Tensor) -> Tensor:
    """Bytes as floats from 0 to 1; floats as they are."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


class _FilteredCrop(RandomResizedCrop):
    """kornia's parts, resized by torch's bicubic filter as Pillow's is: kornia's own resizing aliases where it shrinks."""

    def forward(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        corners = params["src"].long()[:, [0, 2]].flatten(1).tolist()  # left, top, right, bottom: the last pixels inside
        parts = [picture[None, :, t : b + 1, l : r + 1] for picture, (l, t, r, b) in zip(x, corners, strict=True)]
        return torch.cat([interpolate(unit(part), self.flags["size"], mode="bicubic", antialias=True) for part in parts]).clamp(0, 1)


class Augmentation:
    """(B, 3, H, W) pictures, bytes or floats from 0 to 1, and B keys to floats from 0 to 1 on their device: (B, 3, size, size) with "crop".

    "crop" takes a part of .08 to 1 of the area and of sides 3:4 to 4:3, "flip" mirrors every second, "erase" greys a rectangle of .02 to
    .33 of the area in every fifth (ISMIR 2024, section 4.1.2). What is drawn for a picture depends on its key and size alone, so that a
    batch gives what its pictures give one by one. It is drawn on the CPU, wherever they are, and leaves torch's generators as they were.
    """

    def __init__(self, size: int, chosen: Collection[str]) -> None:
        steps = {
            "crop": _FilteredCrop((size, size), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
            "flip": RandomHorizontalFlip(p=0.5),
            "erase": RandomErasing(p=0.2, scale=(0.02, 0.33), ratio=(0.3, 3.3), value=0.5),
        }
        self.steps: dict[str, nn.Module] = {name: step for name, step in steps.items() if name in chosen}

    def __call__(self, x: Tensor, keys: Sequence[int]) -> Tensor:
        for name, step in self.steps.items():
            drawn = [_draw(step, (1, *x.shape[1:]), derive(key, name)) for key in keys]
            joint = {entry: torch.cat([draws[entry] for draws in drawn]) for entry in drawn[0]}
            x = step(x if name == "crop" else unit(x), params={**joint, "forward_input_shape": torch.tensor(x.shape)})
        return unit(x)


def _draw(step: nn.Module, shape: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    """What a step draws for a picture. kornia knows only torch's global generator: it is lent, not that of any GPU, and put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return step.forward_parameters(shape)
