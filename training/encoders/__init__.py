"""Frozen encoders by name. Their weights come from pinned packages on first use; features are cached by `data.features`."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..errors import UserError, near
from .duration import Duration
from .image import EfficientNetLite0
from .speech import MoonshineTiny
from .text import MiniLM
from .transcript import MoonshineTranscript


class Encoder(Protocol):
    """What `data.features` needs. ``modality`` "text" takes strings, all others take paths of files.

    ``version`` changes whenever the same content would give other features: it is part of the cache's name.
    """

    name: str
    version: str
    dim: int
    modality: str
    batch: int

    def encode(self, contents: list) -> Tensor:
        """float32 (n, dim). UserError that names the file when one cannot be read."""


ENCODERS: dict[str, type[Encoder]] = {cls.name: cls for cls in (EfficientNetLite0, MiniLM, MoonshineTiny, MoonshineTranscript, Duration)}


def encoder(name: str) -> Encoder:
    """The encoder called ``name``; its weights are loaded (and fetched where needed) at the first ``encode``."""
    if name not in ENCODERS:
        raise UserError(f"encoder: unknown name {name!r}; {near(name, ENCODERS)}")
    return ENCODERS[name]()
