"""What turns an encoder's output into a distribution or a point, and several of them into one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transphere import VonMisesFisher

from . import config as configuration
from .errors import UserError
from .seeding import Dropout

Embedding = VonMisesFisher | Tensor  # a distribution of batch shape (B,), or points (B, dim)


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

    def forward(self, x: Tensor) -> VonMisesFisher:
        h = self.trunk(x.to(self.loc.weight.dtype))  # (B, hidden or d_in)
        loc = F.normalize(self.loc(h), dim=-1)  # (B, dim)
        kappa = self.low + (self.high - self.low) * torch.sigmoid(self.concentration(h).squeeze(-1))  # (B,)
        # Unchecked: the trainer looks at every value itself and can say which items it came from.
        return VonMisesFisher(loc, kappa, validate_args=False)


class NaturalHead(nn.Module):
    """(B, d_in) features -> VonMisesFisher of batch shape (B,) whose natural parameter, kappa mu, is the output of a network.

    Concentration is the length of an embedding: nothing of it is lost to the sphere. One linear layer, or two where hidden > 0.
    """

    def __init__(self, d_in: int, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.LayerNorm(d_in), Dropout(dropout)]
        if hidden:
            layers += [nn.Linear(d_in, hidden), nn.GELU(), Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden or d_in, dim))

    def forward(self, x: Tensor) -> VonMisesFisher:
        eta = self.layers(x.to(self.layers[-1].weight.dtype))  # (B, dim)
        kappa = eta.norm(dim=-1).clamp_min(1e-6)  # (B,)
        return VonMisesFisher(F.normalize(eta, dim=-1), kappa, validate_args=False)


class LinearHead(nn.Module):
    """(B, d_in) features -> points (B, dim) of unit length: one linear layer, or two with a ReLU between when hidden > 0 (m-LTM)."""

    def __init__(self, d_in: int, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        widths = [d_in, hidden, dim] if hidden else [d_in, dim]
        layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
        if hidden:
            layers += [nn.ReLU(), Dropout(dropout), nn.Linear(hidden, dim)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.layers(x.to(self.layers[0].weight.dtype)), dim=-1)


class ResidualHead(nn.Module):
    """(B, d_in) features -> points (B, dim) of unit length: y = W x, then LayerNorm(y + MLP(y)), one hidden layer of `hidden` or dim.

    Sánchez and Laguna, section 4.
    """

    def __init__(self, d_in: int, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(d_in, dim)
        self.block = nn.Sequential(nn.Linear(dim, hidden or dim), nn.GELU(), Dropout(dropout), nn.Linear(hidden or dim, dim))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(x.to(self.project.weight.dtype))
        return F.normalize(self.norm(y + self.block(y)), dim=-1)


class NoHead(nn.Identity):
    """(B, d_in) features, in the place of points, for the objectives that classify: MMCosine compares the encoders' own."""


def build_head(config: configuration.Model, d_in: int) -> nn.Module:
    """The head that model.head names."""
    if config.head == "none":
        if d_in != config.dim:
            raise UserError(f"model.dim: expected {d_in}, the width of an encoder's features, for model.head = none, got {config.dim}")
        return NoHead()
    if config.head == "vmf":
        return VonMisesFisherHead(d_in, config.dim, config.hidden, config.dropout, config.kappa)
    head = {"natural": NaturalHead, "linear": LinearHead, "residual": ResidualHead}[config.head]
    return head(d_in, config.dim, config.hidden, config.dropout)


def location(embedding: Embedding) -> Tensor:
    """(B, dim): the mean direction of a distribution; a point is its own."""
    return embedding.loc if isinstance(embedding, VonMisesFisher) else embedding


class Concat(nn.Module):
    """Fusion of two feature vectors (B, d_in) by one linear map of both side by side -> (B, d_out)."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.out = nn.Linear(2 * d_in, d_out)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.out(torch.cat([x, y], dim=-1))


class Gated(nn.Module):
    """Fusion in which the sigmoid of one vector weighs the other: W (sigmoid(A x) * B y) (Kiela et al. 2018; MMCosine)."""

    def __init__(self, d_in: int, d_out: int, width: int | None = None) -> None:
        super().__init__()
        width = width or d_in
        self.gate, self.value, self.out = nn.Linear(d_in, width), nn.Linear(d_in, width), nn.Linear(width, d_out)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.out(torch.sigmoid(self.gate(x)) * self.value(y))


class Film(nn.Module):
    """Fusion in which one vector scales and shifts the other: W (gamma(x) * y + beta(x)) (Perez et al. 2018; MMCosine)."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.scale_shift, self.out = nn.Linear(d_in, 2 * d_in), nn.Linear(d_in, d_out)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gamma, beta = self.scale_shift(x).chunk(2, dim=-1)
        return self.out(gamma * y + beta)


FUSIONS = {"concat": Concat, "gated": Gated, "film": Film}
