"""The von Mises-Fisher distribution."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from ..ops.vmf_cumulant import vmf_entropy, vmf_kl_uniform, vmf_log_normalizer, vmf_mean_resultant, vmf_variance
from ..ops.vmf_sample import vmf_sample
from .constraints import unit_sphere
from .hyperspherical_uniform import HypersphericalUniform


class VonMisesFisher(Distribution):
    r"""Density :math:`C_d(\kappa)e^{\kappa\,\mu\cdot z}` on the unit sphere of :math:`R^d`, for any d >= 2 and kappa >= 0.

    Args:
        loc: mean direction :math:`\mu`, unit vectors (..., d).
        concentration: :math:`\kappa` >= 0, broadcastable to (...); 0 is the uniform law.
        validate_args: check arguments and values; default as in torch.distributions.

    `rsample` is differentiable in both (see `vmf_sample`), `log_prob`, `entropy` and the divergences in all their arguments.
    """

    arg_constraints = {"loc": unit_sphere, "concentration": constraints.nonnegative}
    support = unit_sphere
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None) -> None:
        if not isinstance(loc, Tensor) or loc.dim() < 1 or loc.shape[-1] < 2:
            raise ValueError(f"VonMisesFisher: loc: expected a tensor (..., d) with d >= 2, got {getattr(loc, 'shape', loc)}")
        concentration = torch.as_tensor(concentration, dtype=loc.dtype, device=loc.device)
        try:
            batch_shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        except RuntimeError:
            shapes = f"{tuple(loc.shape[:-1])}, got {tuple(concentration.shape)}"
            raise ValueError(f"VonMisesFisher: concentration: expected a shape that broadcasts with {shapes}") from None
        self.loc = loc.expand(*batch_shape, loc.shape[-1])
        self.concentration = concentration.expand(batch_shape)
        super().__init__(batch_shape, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: Distribution | None = None) -> "VonMisesFisher":
        new = self._get_checked_instance(VonMisesFisher, _instance)
        batch_shape = torch.Size(batch_shape)
        new.loc = self.loc.expand(batch_shape + self.event_shape)
        new.concentration = self.concentration.expand(batch_shape)
        super(VonMisesFisher, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def dim(self) -> int:
        return self.event_shape[0]

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008  immutable
        sample_shape = torch.Size(sample_shape)
        z = vmf_sample(self.loc, self.concentration, math.prod(sample_shape))                # (*batch, n, d)
        return z.movedim(-2, 0).reshape(sample_shape + self.batch_shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return vmf_log_normalizer(self.concentration, self.dim) + self.concentration * (self.loc * value).sum(-1)

    def entropy(self) -> Tensor:
        return vmf_entropy(self.concentration, self.dim)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def mean(self) -> Tensor:
        return vmf_mean_resultant(self.concentration, self.dim)[..., None] * self.loc

    @property
    def variance(self) -> Tensor:
        along, across = self._variances()
        return across[..., None] + (along - across)[..., None] * self.loc.square()

    @property
    def covariance_matrix(self) -> Tensor:
        along, across = self._variances()
        eye = torch.eye(self.dim, dtype=self.loc.dtype, device=self.loc.device)
        outer = self.loc[..., :, None] * self.loc[..., None, :]
        return across[..., None, None] * eye + (along - across)[..., None, None] * outer

    def _variances(self) -> tuple[Tensor, Tensor]:
        """Along mu, Var(w); across it, E(1 - w^2) / (d - 1) = A / kappa in each direction."""
        k = self.concentration
        safe = torch.where(k > 0, k, 1.0)
        across = torch.where(k > 0, vmf_mean_resultant(safe, self.dim) / safe, 1 / self.dim)
        return vmf_variance(k, self.dim), across


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_vmf_vmf(p: VonMisesFisher, q: VonMisesFisher) -> Tensor:
    if p.dim != q.dim:
        raise ValueError(f"kl_divergence: expected one dimension, got {p.dim} and {q.dim}")
    resultant = vmf_mean_resultant(p.concentration, p.dim)
    normalizers = vmf_log_normalizer(p.concentration, p.dim) - vmf_log_normalizer(q.concentration, p.dim)
    return normalizers + resultant * (p.concentration - q.concentration * (p.loc * q.loc).sum(-1))


@register_kl(VonMisesFisher, HypersphericalUniform)
def _kl_vmf_uniform(p: VonMisesFisher, q: HypersphericalUniform) -> Tensor:
    if p.dim != q.dim:
        raise ValueError(f"kl_divergence: expected one dimension, got {p.dim} and {q.dim}")
    return vmf_kl_uniform(p.concentration, p.dim).expand(torch.broadcast_shapes(p.batch_shape, q.batch_shape))


@register_kl(HypersphericalUniform, VonMisesFisher)
def _kl_uniform_vmf(p: HypersphericalUniform, q: VonMisesFisher) -> Tensor:
    if p.dim != q.dim:
        raise ValueError(f"kl_divergence: expected one dimension, got {p.dim} and {q.dim}")
    kl = -p.entropy().to(q.loc) - vmf_log_normalizer(q.concentration, q.dim)  # E_uniform mu.z = 0
    return kl.expand(torch.broadcast_shapes(p.batch_shape, q.batch_shape))


@register_kl(HypersphericalUniform, HypersphericalUniform)
def _kl_uniform_uniform(p: HypersphericalUniform, q: HypersphericalUniform) -> Tensor:
    if p.dim != q.dim:
        raise ValueError(f"kl_divergence: expected one dimension, got {p.dim} and {q.dim}")
    return p.entropy() * 0 + torch.zeros(torch.broadcast_shapes(p.batch_shape, q.batch_shape))
