"""Transport on the sphere: distributions on the hypersphere and optimal transport for training losses."""

from importlib.metadata import version

__version__ = version("transphere")

from . import losses
from ._library import build_info
from .distributions import HypersphericalUniform, VonMisesFisher
from .ops.circular_wasserstein import circular_wasserstein
from .ops.frechet_mean import chordal_mean, frechet_mean
from .ops.great_circles import great_circles
from .ops.learning_to_match import learning_to_match
from .ops.sinkhorn import SinkhornResult, partial_sinkhorn, sinkhorn
from .ops.sinkhorn_sharded import sinkhorn_sharded
from .ops.sliced_wasserstein import sliced_wasserstein_sphere, sliced_wasserstein_sphere_pairs
from .ops.vmf_cumulant import vmf_entropy, vmf_kl_uniform, vmf_log_normalizer, vmf_mean_resultant, vmf_variance
from .ops.vmf_sample import vmf_sample

__all__ = [
    "HypersphericalUniform",
    "SinkhornResult",
    "VonMisesFisher",
    "build_info",
    "chordal_mean",
    "circular_wasserstein",
    "frechet_mean",
    "great_circles",
    "learning_to_match",
    "losses",
    "partial_sinkhorn",
    "sinkhorn",
    "sinkhorn_sharded",
    "sliced_wasserstein_sphere",
    "sliced_wasserstein_sphere_pairs",
    "vmf_entropy",
    "vmf_kl_uniform",
    "vmf_log_normalizer",
    "vmf_mean_resultant",
    "vmf_sample",
    "vmf_variance",
]
