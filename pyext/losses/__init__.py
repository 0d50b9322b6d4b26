"""Training losses over any number of modalities: `loss(embeddings, present=None) -> (scalar, {part: detached scalar})`."""

from .contrastive import Contrastive
from .entropic_contrastive import EntropicContrastive
from .harnessed import Harnessed
from .learning_to_match import LearningToMatch
from .mc_infonce import MCInfoNCE
from .mmcosine import MMCosine
from .mpc import MPC
from .pcme import PCME
from .probabilistic_contrastive import ProbabilisticContrastive
from .regression import Regression
from .spherical_sliced import SphericalSliced
from .triplet import Triplet

__all__ = [
    "MPC",
    "PCME",
    "Contrastive",
    "EntropicContrastive",
    "Harnessed",
    "LearningToMatch",
    "MCInfoNCE",
    "MMCosine",
    "ProbabilisticContrastive",
    "Regression",
    "SphericalSliced",
    "Triplet",
]
