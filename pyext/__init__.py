"""Transport on the sphere: distributions on the hypersphere and optimal transport for training losses."""

from importlib.metadata import version

__version__ = version("transphere")

from . import losses
from ._library import build_info
from .distributions import HypersphericalUniform, PowerSpherical, VonMisesFisher
from .ops.circular_embedding import circular_embedding, embedding_distance
from .ops.circular_wasserstein import circular_wasserstein
from .ops.frechet_mean import chordal_mean, frechet_mean
from .ops.great_circles import great_circles
from .ops.learning_to_match import learning_to_match
from .ops.learning_to_match_sharded import learning_to_match_sharded
from .ops.mahalanobis_cost import mahalanobis_cost
from .ops.parallel_slices import sliced_wasserstein_sphere_parallel
from .ops.psd_project import psd_project
from .ops.sinkhorn import SinkhornResult, partial_sinkhorn, sinkhorn
from .ops.sinkhorn_sharded import sinkhorn_sharded
from .ops.sliced_wasserstein import sliced_wasserstein_sphere, sliced_wasserstein_sphere_pairs, sliced_wasserstein_sphere_uniform
from .ops.vmf_cumulant import vmf_entropy, vmf_kl_uniform, vmf_log_normalizer, vmf_mean_resultant, vmf_variance
from .ops.vmf_fit import vmf_fit
from .ops.vmf_sample import vmf_sample
from .parametrizations import PositiveSemidefinite

__all__ = [
    "HypersphericalUniform",
    "PositiveSemidefinite",
    "PowerSpherical",
    "SinkhornResult",
    "VonMisesFisher",
    "build_info",
    "chordal_mean",
    "circular_embedding",
    "circular_wasserstein",
    "embedding_distance",
    "frechet_mean",
    "great_circles",
    "learning_to_match",
    "learning_to_match_sharded",
    "losses",
    "mahalanobis_cost",
    "partial_sinkhorn",
    "psd_project",
    "sinkhorn",
    "sinkhorn_sharded",
    "sliced_wasserstein_sphere",
    "sliced_wasserstein_sphere_pairs",
    "sliced_wasserstein_sphere_parallel",
    "sliced_wasserstein_sphere_uniform",
    "vmf_entropy",
    "vmf_fit",
    "vmf_kl_uniform",
    "vmf_log_normalizer",
    "vmf_mean_resultant",
    "vmf_sample",
    "vmf_variance",
]
