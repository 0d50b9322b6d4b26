"""What turns an encoder's output into a distribution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from transphere import VonMisesFisher

from .seeding import Dropout


class VonMisesFisherHead(nn.Module):
    """(B, d_in) features -> VonMisesFisher of batch shape (B,) on the unit sphere of R^dim.

    The mean direction mu and the concentration kappa are linear in the normalised features, or in a hidden layer that they share when
    hidden > 0. A sigmoid keeps kappa inside the open interval `kappa` (ISMIR 2024, section 4.1.2: (64, 128)).
    """

    def __init__(self, d_in: int, dim: int, hidden: int, dropout: float, kappa: tuple[float, float]) -> None:
        super().__init__()
        self.low, self.high = kappa
        layers = [nn.LayerNorm(d_in), Dropout(dropout)]
        if hidden:
            layers += [nn.Linear(d_in, hidden), nn.GELU(), Dropout(dropout)]
        self.trunk = nn.Sequential(*layers)
        self.loc = nn.Linear(hidden or d_in, dim)
        self.concentration = nn.Linear(hidden or d_in, 1)

    def forward(self, x: torch.Tensor) -> VonMisesFisher:
        h = self.trunk(x)  # (B, hidden or d_in)
        loc = F.normalize(self.loc(h), dim=-1)  # (B, dim)
        kappa = self.low + (self.high - self.low) * torch.sigmoid(self.concentration(h).squeeze(-1))  # (B,)
        # Unchecked: the trainer looks at every value itself and can say which items it came from.
        return VonMisesFisher(loc, kappa, validate_args=False)
