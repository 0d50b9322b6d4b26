"""A model is a dictionary: modality -> encoder and head. An objective sees all the modalities at once."""

from __future__ import annotations

import torch
from torch import nn

from transphere import VonMisesFisher, losses

from . import config as configuration
from .errors import UserError
from .heads import VonMisesFisherHead


class Branch(nn.Module):
    """One modality: an encoder to features and a head to a distribution."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, x: torch.Tensor) -> VonMisesFisher:
        return self.head(self.encoder(x))


class Frozen(nn.Module):
    """The encoder of features that a frozen network has made already: the identity, up to the units of its columns.

    Each column is brought to mean 0 and deviation 1 over the training items, once, before training.
    """

    def __init__(self, d_in: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(d_in))
        self.register_buffer("scale", torch.ones(d_in))

    def fit(self, x: torch.Tensor) -> None:
        """Take mean and deviation of x, (n, d_in); a column that does not vary keeps its unit."""
        self.mean.copy_(x.mean(0))
        deviation = x.std(0, correction=0)  # (d_in,)
        self.scale.copy_(torch.where(deviation > 1e-6 * (1 + x.abs().amax(0)), deviation, 1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.scale


class Model(nn.ModuleDict):
    """{modality: Branch}."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, VonMisesFisher]:
        """modality -> (B, d_in) in, modality -> VonMisesFisher of batch shape (B,) out."""
        return {name: self[name](x) for name, x in inputs.items()}


def build_model(config: configuration.Model, dims: dict[str, int]) -> Model:
    """A model over frozen features of `dims`: modality -> d_in."""
    branches = {
        name: Branch(Frozen(d), VonMisesFisherHead(d, config.dim, config.hidden, config.dropout, config.kappa)) for name, d in dims.items()
    }
    try:
        return Model(branches)
    except KeyError as error:  # torch.nn does not take every name: no dot, none of its own attributes
        raise UserError(f"a modality cannot have this name: {error.args[0]}") from None


def build_objective(config: configuration.Objective) -> nn.Module:
    """The loss that the configuration names: loss(embeddings, present) -> (scalar, parts)."""
    if config.name == "contrastive":
        return losses.ProbabilisticContrastive(temperature=config.temperature, n_samples=config.n_samples)
    if config.name == "sliced":
        return losses.SphericalSliced(n_projections=config.n_projections, n_samples=config.n_samples)
    return losses.Harnessed(
        weight=config.weight, temperature=config.temperature, n_samples=config.n_samples, n_projections=config.n_projections
    )
