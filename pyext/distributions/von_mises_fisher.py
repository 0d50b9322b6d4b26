"""The von Mises-Fisher distribution."""

import math

import torch
from torch import Tensor
from torch.distributions import constraints, register_kl

from .._checks import compute_dtype
from ..ops.vmf_cumulant import vmf_cgf, vmf_entropy, vmf_kl_uniform, vmf_log_normalizer, vmf_mean_resultant, vmf_variance
from ..ops.vmf_sample import vmf_sample
from ._directional import Directional
from .constraints import check_one_dimension, unit_sphere
from .hyperspherical_uniform import HypersphericalUniform


class VonMisesFisher(Directional):
    r"""Density :math:`C_d(\kappa)e^{\kappa\,\mu\cdot z}` on the unit sphere of :math:`R^d`, for any d >= 2 and kappa >= 0.

    Args:
        loc: mean direction :math:`\mu`, unit vectors (..., d).
        concentration: :math:`\kappa` >= 0, broadcastable to (...); 0 is the uniform law.
        validate_args: check arguments and values; default as in torch.distributions.

    `rsample` is differentiable in both (see `vmf_sample`), `log_prob`, `entropy` and the divergences in all their arguments.
    """

    arg_constraints = {"loc": unit_sphere, "concentration": constraints.nonnegative}

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008  immutable
        sample_shape = torch.Size(sample_shape)
        z = vmf_sample(self.loc, self.concentration, math.prod(sample_shape))                # (*batch, n, d)
        return z.movedim(-2, 0).reshape(sample_shape + self.batch_shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        dtype = torch.promote_types(self.loc.dtype, value.dtype)
        loc, kappa, z = (x.to(compute_dtype(dtype)) for x in (self.loc, self.concentration, value))
        point = kappa.isinf()
        k = kappa.masked_fill(point, 0.0)
        log_prob, there = vmf_log_normalizer(k, self.dim) + k * (loc * z).sum(-1), (z == loc).all(-1)
        return log_prob.masked_fill(point & there, math.inf).masked_fill(point & ~there, -math.inf).to(dtype)

    def entropy(self) -> Tensor:
        return vmf_entropy(self.concentration, self.dim)

    def _mean_resultant(self) -> Tensor:
        return vmf_mean_resultant(self.concentration, self.dim)

    def _variances(self) -> tuple[Tensor, Tensor]:
        """Along mu, Var(w) = A'; across it, E(1 - w^2) / (d - 1) = A / kappa = (1 - A^2 - A') / (d - 1) in each direction."""
        k = self.concentration.to(compute_dtype(self.loc.dtype))
        A, along = vmf_mean_resultant(k, self.dim), vmf_variance(k, self.dim)
        small = k < 1  # there the second form cancels nothing, nor do its derivatives
        across = torch.where(small, (1 - A * A - along) / (self.dim - 1), A / torch.where(small, 1.0, k))
        return along.to(self.loc.dtype), across.to(self.loc.dtype)


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
