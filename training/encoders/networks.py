"""Encoders that are trained with the model, by name."""

from __future__ import annotations

from torch import nn

from ..config import Encoder
from ..errors import UserError, near
from ..pipelines import Pipeline
from .pann import PannResNet38
from .small import ClassEmbedding, Mlp
from .towers import Bert, ClapAudio, ClapFused, ClipImage, ClipImage16, ClipText, Hubert, ResNet18, ResNet18Audio, Vit
from .trainable import Trainable

NETWORKS: dict[str, type[Trainable]] = {
    "clap": ClapAudio,
    "clap-fused": ClapFused,
    "clip-image": ClipImage,
    "clip-image-16": ClipImage16,
    "clip-text": ClipText,
    "bert": Bert,
    "hubert": Hubert,
    "vit": Vit,
    "pann-resnet38": PannResNet38,
    "resnet18": ResNet18,
    "resnet18-audio": ResNet18Audio,
    "mlp": Mlp,
    "embedding": ClassEmbedding,
}


def network(name: str) -> type[Trainable]:
    """The class of an encoder; UserError for an unknown name."""
    if name not in NETWORKS:
        raise UserError(f"unknown encoder {name!r}; {near(name, NETWORKS)}")
    return NETWORKS[name]


def build_encoder(config: Encoder, d_in: int | None = None) -> nn.Module:
    """The encoder that `config` describes, partly frozen and recomputing where it says so. `d_in`: the width of vectors in memory."""
    chosen = network(config.name)
    encoder = chosen.build(config) if d_in is None else chosen.build(config, d_in)
    encoder.freeze(config.freeze)
    if config.checkpoint:
        encoder.recompute()
    return encoder


def pipeline(config: Encoder) -> Pipeline | None:
    """What reads the files or texts of an encoder; None where it takes vectors."""
    reader = network(config.name).pipeline(config)
    if config.frames and getattr(reader, "kind", None) != "frames":
        raise UserError(f"frames: {config.name} sees no pictures")
    return reader
