"""Pictures that are nearly the same, by the features of a frozen network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..encoders import encoder
from .features import cached

SAME = 0.97  # cosine of Lite0 features from which two pictures count as one
_CHUNK = 2048  # rows of the matrix of cosines at a time


def alike(pictures: Sequence[Path], progress: bool = True) -> Iterator[tuple[int, int]]:
    """Places i < j of pictures that count as one. Blank pictures are alike without being the same thing: they are left out."""
    x_ND = torch.nn.functional.normalize(cached(encoder("efficientnet-lite0"), pictures, progress), dim=-1)
    drawn_N = torch.tensor([_is_drawn(picture) for picture in pictures], dtype=torch.bool)
    for start in range(0, len(pictures), _CHUNK):
        rows = slice(start, start + _CHUNK)
        alike_RN = (x_ND[rows] @ x_ND.T > SAME) & drawn_N[rows, None] & drawn_N
        for i, j in alike_RN.triu(start + 1).nonzero().tolist():
            yield start + i, j


def tie_alike(keys: Mapping[str, list], pictures: Mapping[str, Path], progress: bool = True) -> None:
    """Adds to the `keys` of two items (id -> keys that tie it to others) one in common where their pictures (id -> file) count as one."""
    ids = list(pictures)
    for i, j in alike(list(pictures.values()), progress):
        for k in (i, j):
            keys[ids[k]].append(("picture", i, j))


def _is_drawn(picture: Path) -> bool:
    with Image.open(picture) as image:  # any channel: colours of one luminance are a picture too
        return float(np.asarray(image.convert("RGB"), np.float32).std((0, 1)).max()) > 2
