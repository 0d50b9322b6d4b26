"""The duration of a clip and nothing else: the control that shows how much of a speech result is mere length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .audio import read_sound

_CENTRES = np.log(0.25) + np.log(2) / 2 * np.arange(12)  # half octaves, 0.25 s to 11 s


class Duration:
    """log seconds, its square, and soft bins of it half an octave apart, so that a small head can tell lengths apart."""

    name = "duration"
    version = "1"
    dim = 2 + len(_CENTRES)
    modality = "speech"
    batch = 64

    def encode(self, contents: list[str | Path]) -> Tensor:
        rows = []
        for path in contents:
            samples, rate = read_sound(path)
            log = np.log(len(samples) / rate)
            bins = np.exp(-0.5 * ((log - _CENTRES) / (np.log(2) / 2)) ** 2)  # (12,)
            rows.append(np.concatenate([[log, log**2], bins]))
        return torch.from_numpy(np.stack(rows).astype(np.float32))  # (n, 14)
