"""The von Mises-Fisher distribution."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from ..ops.vmf_cumulant import vmf_cgf, vmf_entropy, vmf_kl_uniform, vmf_log_normalizer, vmf_mean_resultant, vmf_variance
from ..ops.vmf_sample import vmf_sample
from ._parameters import direction_and_concentration
from .constraints import check_one_dimension, unit_sphere
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

    def __init__(self, loc: Tensor, concentration: Tensor | float, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = direction_and_concentration("VonMisesFisher", loc, concentration)
        super().__init__(self.concentration.shape, self.loc.shape[-1:], validate_args=validate_args)

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
        point = self.concentration.isinf()
        k = torch.where(point, 0.0, self.concentration)
        finite = vmf_log_normalizer(k, self.dim) + k * (self.loc * value).sum(-1)
        return torch.where(point, torch.where((value == self.loc).all(-1), math.inf, -math.inf), finite)

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
        """Along mu, Var(w) = A'; across it, E(1 - w^2) / (d - 1) = A / kappa = (1 - A^2 - A') / (d - 1) in each direction."""
        k = self.concentration
        A, along = vmf_mean_resultant(k, self.dim), vmf_variance(k, self.dim)
        small = k < 1  # there the second form cancels nothing, nor do its derivatives
        return along, torch.where(small, (1 - A * A - along) / (self.dim - 1), A / torch.where(small, 1.0, k))


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_vmf_vmf(p: VonMisesFisher, q: VonMisesFisher) -> Tensor:
    check_one_dimension(p, q)
    kp, point = p.concentration.double(), q.concentration.isinf()
    kq = torch.where(point, 0.0, q.concentration.double())
    A, apart = vmf_mean_resultant(kp, p.dim), (p.loc - q.loc).double().square().sum(-1) / 2  # 1 - mu_p.mu_q
    kl = vmf_kl_uniform(kp, p.dim) + vmf_cgf(kq, p.dim) + kq * (A * apart - A)
    kl = torch.where(point, torch.where(kp.isinf() & (apart == 0), 0.0, math.inf), kl)
    return kl.to(torch.promote_types(p.loc.dtype, q.loc.dtype))


@register_kl(VonMisesFisher, HypersphericalUniform)
def _kl_vmf_uniform(p: VonMisesFisher, q: HypersphericalUniform) -> Tensor:
    check_one_dimension(p, q)
    return vmf_kl_uniform(p.concentration, p.dim).expand(torch.broadcast_shapes(p.batch_shape, q.batch_shape))


@register_kl(HypersphericalUniform, VonMisesFisher)
def _kl_uniform_vmf(p: HypersphericalUniform, q: VonMisesFisher) -> Tensor:
    check_one_dimension(p, q)
    return vmf_cgf(q.concentration, q.dim).expand(torch.broadcast_shapes(p.batch_shape, q.batch_shape))  # E_uniform mu.z = 0
