"""Training losses over any number of modalities: `loss(embeddings, present=None) -> (scalar, {part: detached scalar})`."""

from .harnessed import Harnessed
from .probabilistic_contrastive import ProbabilisticContrastive
from .spherical_sliced import SphericalSliced

__all__ = ["Harnessed", "ProbabilisticContrastive", "SphericalSliced"]
