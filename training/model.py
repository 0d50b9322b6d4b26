"""A model is a dictionary: modality -> encoder and head. An objective sees all the modalities at once."""

from __future__ import annotations

import dataclasses
import inspect

import torch
from torch import nn

from transphere import VonMisesFisher, losses

from . import config as configuration
from .errors import UserError
from .heads import VonMisesFisherHead

LOSSES = {
    "contrastive": losses.ProbabilisticContrastive,
    "sliced": losses.SphericalSliced,
    "harnessed": losses.Harnessed,
    "mc-infonce": losses.MCInfoNCE,
    "pcmc": losses.Contrastive,
    "pcmr": losses.Regression,
    "triplet": losses.Triplet,
    "entropic-contrastive": losses.EntropicContrastive,
    "pcme": losses.PCME,
    "mpc": losses.MPC,
    "learning-to-match": losses.LearningToMatch,
}
OBJECTIVE = "objective/"  # begins the names of the objective's own weights in a checkpoint
SHARED = ("temperature", "n_samples", "n_projections", "weight")  # keys that recipes to be compared have in common


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


def build_objective(config: configuration.Objective, dim: int) -> nn.Module:
    """The loss that the configuration names, over embeddings of dimension `dim`: loss(embeddings, present, ...) -> (scalar, parts)."""
    loss = LOSSES[config.name]
    takes = inspect.signature(loss).parameters
    given = {key: value for key, value in dataclasses.asdict(config).items() if key != "name" and value is not None}
    given |= {"dim": dim} if "dim" in takes else {}
    for key in given.keys() - takes.keys() - set(SHARED):
        raise UserError(f"objective.{key}: {config.name} does not take it; it takes {', '.join(takes)}")
    for key, parameter in takes.items():
        if parameter.default is parameter.empty and key not in given:
            raise UserError(f"objective.{key}: {config.name} needs it")
    try:
        return loss(**{key: value for key, value in given.items() if key in takes})
    except ValueError as error:  # of a range that only the loss knows
        raise UserError(f"objective: {error}") from None
