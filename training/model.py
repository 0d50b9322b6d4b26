"""A model is a dictionary: modality -> encoder and head. An objective sees all the modalities at once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from transphere import losses

from . import config as configuration
from .classification import CLASSIFIERS, build_classifier
from .encoders.networks import build_encoder
from .encoders.small import Frozen
from .errors import UserError, near, under
from .heads import Embedding, build_head
from .released_sampler import vmf_sample_released

Inputs = torch.Tensor | dict[str, torch.Tensor]  # (B, d_in) features, or whatever a trained encoder takes

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
SAMPLERS = {"released": vmf_sample_released}
SHARED = ("temperature", "n_samples", "n_projections", "weight")  # keys that recipes to be compared have in common


class Branch(nn.Module):
    """One modality: an encoder to features and a head to a distribution, or to a point."""

    def __init__(self, encoder: nn.Module, head: nn.Module, lr: float | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.lr = lr  # of the encoder; None: that of the run
        self.together = False  # whether its forward pass has a part in which the processes wait for each other

    def forward(self, x: Inputs, present: torch.Tensor | None = None) -> Embedding:
        """The embeddings of B items. present, (B,) bool: an encoder that reads files sees these alone, so that no batch norm takes the
        blanks of the others into its statistics. A process without one shows the encoder its first blank where the others would wait; its
        gradient is 0, though it counts in statistics over all processes."""
        if present is None or getattr(self.encoder, "in_memory", True) or present.all():
            features = self.encoder(x)
        else:
            features = torch.zeros(len(present), self.encoder.d_out, device=present.device)
            seen = present if present.any() or not self.together else torch.arange(len(present), device=present.device) == 0  # (B,)
            if seen.any():
                own = self.encoder({name: part[seen] for name, part in x.items()} if isinstance(x, dict) else x[seen])
                features = features.to(own.dtype).index_copy(0, seen.nonzero().flatten(), own)
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 has three digits: too few for kappa and a unit vector
            return self.head(features if features.dtype == torch.float64 else features.float())


class Model(nn.ModuleDict):
    """{modality: Branch}."""

    def forward(self, inputs: dict[str, Inputs], present: dict[str, torch.Tensor] | None = None) -> dict[str, Embedding]:
        """modality -> what its encoder takes in; modality -> VonMisesFisher of batch shape (B,), or points (B, dim), out."""
        return {name: self[name](x, present and present[name]) for name, x in inputs.items()}

    @torch.no_grad()
    def fit_features(self, inputs: dict[str, Inputs], present: dict[str, torch.Tensor]) -> None:
        """Show the training items that are in memory to the encoders that take their units from them."""
        for name, branch in self.items():
            if hasattr(branch.encoder, "fit") and present[name].any():
                branch.encoder.fit(inputs[name][present[name]])


def build_model(config: configuration.Model, dims: dict[str, int]) -> Model:
    """A model over the modalities of `dims`: modality -> the width of its features or vectors in memory, 0 where its files are read."""
    unknown = [name for name in config.encoders if name not in dims]
    if unknown:
        raise UserError(f"model.encoders: {unknown[0]!r} is not a modality that is used; {near(unknown[0], dims)}")
    branches = {}
    for name, d in dims.items():
        chosen = config.encoders.get(name)
        with under(f"model.encoders.{name}"):
            encoder = Frozen(d) if chosen is None else build_encoder(chosen, d or None)
        branches[name] = Branch(encoder, build_head(config, getattr(encoder, "d_out", d)), chosen.lr if chosen else None)
    try:
        return Model(branches)
    except KeyError as error:  # torch.nn does not take every name: no dot, none of its own attributes
        raise UserError(f"a modality cannot have this name: {error.args[0]}") from None


def parameter_groups(model: Model, *others: nn.Module, lr: float) -> list[dict]:
    """The optimiser's groups: what is trained at `lr`, then the encoders with rates of their own; what is frozen is in none."""
    own = {id(p): (branch.lr or lr, True) for branch in model.values() for p in branch.encoder.parameters()}
    # Encoders by themselves whatever their rate: they may be spread over processes, and torch updates no group in which some are.
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(lr, False): []}
    for module in (model, *others):
        for p in module.parameters():
            if p.requires_grad:
                groups.setdefault(own.get(id(p), (lr, False)), []).append(p)
    return [{"params": params, "lr": rate} for (rate, _), params in groups.items()]


def build_objective(
    config: configuration.Objective, dim: int, modalities: Iterable[str] = (), classes: Sequence[str] = ()
) -> nn.Module:
    """The loss that the configuration names, over embeddings of dimension `dim`: loss(embeddings, present, ...) -> (scalar, parts).

    modalities, classes: for those that classify.
    """
    if config.name in CLASSIFIERS:
        return build_classifier(config, dict.fromkeys(modalities, dim), classes)
    loss = LOSSES[config.name]
    takes = inspect.signature(loss).parameters
    given = {key: value for key, value in dataclasses.asdict(config).items() if key != "name" and value is not None}
    given |= {"dim": dim} if "dim" in takes else {}
    given |= {"sampler": SAMPLERS[config.sampler]} if config.sampler else {}
    for key in given.keys() - takes.keys() - set(SHARED):
        raise UserError(f"objective.{key}: {config.name} does not take it; it takes {', '.join(takes)}")
    for key, parameter in takes.items():
        if parameter.default is parameter.empty and key not in given:
            raise UserError(f"objective.{key}: {config.name} needs it")
    try:
        return loss(**{key: value for key, value in given.items() if key in takes})
    except ValueError as error:  # of a range that only the loss knows
        raise UserError(f"objective: {error}") from None
