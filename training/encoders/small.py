"""Encoders of what is in memory: features, vectors and classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import Encoder
from ..errors import UserError
from ..pipelines import Pipeline
from ..seeding import Dropout
from .trainable import Trainable


class _OfVectors(Trainable):
    """Its items are vectors of the manifest, which are in memory: there is nothing to read."""

    in_memory = True

    @classmethod
    def pipeline(cls, config: Encoder) -> Pipeline | None:
        return None

    def layers(self) -> list[list[nn.Module]]:
        return [[], [self]]


class Mlp(_OfVectors):
    """Vectors (attributes, features) through one hidden layer; each column first brought to mean 0 and deviation 1."""

    def __init__(self, d_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.d_out = width
        self.standard = Frozen(d_in)
        self.layer = nn.Sequential(nn.Linear(d_in, width), nn.GELU(), Dropout(dropout), nn.Linear(width, width))

    @classmethod
    def build(cls, config: Encoder, d_in: int) -> Mlp:
        return cls(d_in, config.width or 256, config.dropout or 0.0)

    def fit(self, x: Tensor) -> None:
        self.standard.fit(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.standard(x))


class ClassEmbedding(_OfVectors):
    """A trained vector for each class. Its items are vectors of one number: the class, from 0."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.d_out = width
        self.table = nn.Embedding(classes, width)

    @classmethod
    def build(cls, config: Encoder, d_in: int) -> ClassEmbedding:
        if d_in != 1 or not config.classes:
            got = f"{d_in} numbers and classes = {config.classes}"
            raise UserError(f"encoder embedding: expected vectors of one number and the key classes, got {got}")
        return cls(config.classes, config.width or 256)

    def fit(self, x: Tensor) -> None:
        """Look at the training items once: whole numbers below the number of classes."""
        wrong = x[(x != x.round()) | (x < 0) | (x >= self.table.num_embeddings)]
        if len(wrong):
            raise UserError(f"encoder embedding: expected classes 0 to {self.table.num_embeddings - 1}, got {wrong[0].item():g}")

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.squeeze(1).long())


class Frozen(nn.Module):
    """The encoder of features that a frozen network has made already: the identity, up to the units of its columns.

    Each column is brought to mean 0 and deviation 1 over the training items, once, before training.
    """

    def __init__(self, d_in: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(d_in))
        self.register_buffer("scale", torch.ones(d_in))

    def fit(self, x: Tensor) -> None:
        """Take mean and deviation of x, (n, d_in); a column that does not vary keeps its unit."""
        self.mean.copy_(x.mean(0))
        deviation = x.std(0, correction=0)  # (d_in,)
        self.scale.copy_(torch.where(deviation > 1e-6 * (1 + x.abs().amax(0)), deviation, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale
