"""The Power Spherical distribution."""

import math

import torch
from torch import Tensor
from torch.distributions import register_kl

from .._checks import compute_dtype
from ..ops.vmf_cumulant import log_sphere_area, vmf_cgf
from ._directional import Directional
from ._gamma import digamma_difference, log_gamma_ratio
from .constraints import check_one_dimension, finite_nonnegative, unit_sphere
from .hyperspherical_uniform import HypersphericalUniform
from .von_mises_fisher import VonMisesFisher


class PowerSpherical(Directional):
    r"""Density proportional to :math:`(1+\mu\cdot z)^\kappa` on the unit sphere of :math:`R^d`, for any d >= 2 and kappa >= 0.

    With :math:`b=(d-1)/2`, :math:`(1+\mu\cdot z)/2` is :math:`Beta(b+\kappa,b)`: draws need no rejection, and all moments are elementary.
    At large kappa it is close to a von Mises–Fisher law of concentration kappa/2.

    Args:
        loc: mean direction :math:`\mu`, unit vectors (..., d).
        concentration: :math:`\kappa` >= 0 and finite, broadcastable to (...); 0 is the uniform law.
        validate_args: check arguments and values; default as in torch.distributions.

    `rsample` is differentiable in both: in kappa by the implicit gradient of torch's gamma draws, in mu by the reflection that carries the
    first axis to mu. Scalars of a law are computed in float64, and 1 - mu.z by itself, so that neither high dimensions nor large
    concentrations lose digits.

    Source: De Cao and Aziz, *The Power Spherical distribution*, 2020.
    """

    arg_constraints = {"loc": unit_sphere, "concentration": finite_nonnegative}

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008  immutable
        sample_shape = torch.Size(sample_shape)
        dtype = compute_dtype(self.loc.dtype)
        shape, mu = self._extended_shape(sample_shape), self.loc.to(dtype)
        kappa, b = self._kappa_and_half()
        # Beta(b + kappa, b) by two gammas: 1 - w and 1 - w^2 come from the smaller one, whatever the other
        first = torch._standard_gamma((b + kappa).expand(shape[:-1])) + (kappa - kappa)          # which draws numbers even for a NaN
        second = torch._standard_gamma(torch.full_like(first, b))
        total = first + second
        w, radius = ((first - second) / total)[..., None].to(dtype), (2 * (first * second).sqrt() / total)[..., None].to(dtype)
        if dtype != self.loc.dtype:  # a half vector is unit only to three digits
            mu = torch.nn.functional.normalize(mu, dim=-1)

        # (w, radius g/|g|) about e1, carried to mu by the reflection that swaps e1 and -sign(mu_0) mu, which is singular nowhere
        g = torch.randn((*shape[:-1], self.dim - 1), dtype=dtype, device=mu.device)
        g = torch.where(g == 0, torch.finfo(dtype).tiny, g)  # at d = 2, g is all there is
        r = radius / torch.linalg.vector_norm(g, dim=-1, keepdim=True).clamp(min=torch.finfo(dtype).tiny)
        head, rest = mu[..., :1], mu[..., 1:]
        dot, sign = (g * rest).sum(-1, keepdim=True), torch.where(head < 0, -1.0, 1.0).to(dtype)
        along = w + sign * r * dot / (1 + head.abs())
        return torch.cat([w * head + r * dot, along * rest - sign * r * g], -1).to(self.loc.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        near, far = (value - self.loc).square().sum(-1), (value + self.loc).square().sum(-1)     # 2 (1 -+ mu.z)
        close = near < far
        half = torch.where(close, torch.log1p(-torch.where(close, near, 0.0) / 4), torch.log(torch.where(close, 1.0, far) / 4))
        kappa, _ = self._kappa_and_half()
        power = kappa * half.masked_fill((kappa == 0) & half.isinf(), 0.0)                   # mu's antipode under the uniform law
        return (power - self._log_mean_power() - log_sphere_area(self.dim)).to(half.dtype)

    def entropy(self) -> Tensor:
        return (log_sphere_area(self.dim) - self._kl_uniform()).to(self.loc.dtype)

    def _mean_resultant(self) -> Tensor:
        kappa, b = self._kappa_and_half()
        return (kappa / (2 * b + kappa)).to(self.loc.dtype)

    def _kappa_and_half(self) -> tuple[Tensor, float]:
        return self.concentration.double(), (self.dim - 1) / 2

    def _variances(self) -> tuple[Tensor, Tensor]:
        """Along mu, 4 a b / (s^2 (s + 1)) with a = b + kappa, s = a + b; across it, E(1 - w^2) / (d - 1) = 2 a / (s (s + 1))."""
        kappa, b = self._kappa_and_half()
        a, s = b + kappa, 2 * b + kappa
        across = 2 * a / (s * (s + 1))
        return (across * 2 * b / s).to(self.loc.dtype), across.to(self.loc.dtype)

    def _log_mean_power(self) -> Tensor:
        """log E_uniform ((1 + w)/2)^kappa = log Gamma(b + kappa) Gamma(2b) / (Gamma(b) Gamma(2b + kappa)), paired by what is close."""
        kappa, b = self._kappa_and_half()
        b = torch.full_like(kappa, b)
        by_kappa = log_gamma_ratio(b, kappa) - log_gamma_ratio(2 * b, kappa)
        by_b = log_gamma_ratio(b, b) - log_gamma_ratio(b + kappa, b)
        return torch.where(kappa < b, by_kappa, by_b)

    def _kl_uniform(self) -> Tensor:
        """kappa E log((1 + w)/2) - log E_uniform ((1 + w)/2)^kappa."""
        kappa, b = self._kappa_and_half()
        return -kappa * digamma_difference(b + kappa, torch.full_like(kappa, b)) - self._log_mean_power()


@register_kl(PowerSpherical, HypersphericalUniform)
def _kl_power_uniform(p: PowerSpherical, q: HypersphericalUniform) -> Tensor:
    check_one_dimension(p, q)
    return p._kl_uniform().to(p.loc.dtype).expand(torch.broadcast_shapes(p.batch_shape, q.batch_shape))


@register_kl(HypersphericalUniform, PowerSpherical)
def _kl_uniform_power(p: HypersphericalUniform, q: PowerSpherical) -> Tensor:
    check_one_dimension(p, q)
    kappa, b = q._kappa_and_half()
    half = torch.full_like(kappa, b)
    kl = q._log_mean_power() + kappa * digamma_difference(half, half)                        # E_uniform log((1 + w)/2) = psi(b) - psi(2b)
    return kl.to(q.loc.dtype).expand(torch.broadcast_shapes(p.batch_shape, q.batch_shape))


@register_kl(PowerSpherical, VonMisesFisher)
def _kl_power_vmf(p: PowerSpherical, q: VonMisesFisher) -> Tensor:
    check_one_dimension(p, q)
    kappa, b = p._kappa_and_half()
    point = q.concentration.isinf()
    k = torch.where(point, 0.0, q.concentration.double())
    # 1 - E mu_q.z
    miss = 2 * b / (2 * b + kappa) + kappa / (2 * b + kappa) * 0.5 * (p.loc - q.loc).double().square().sum(-1)
    kl = torch.where(point, math.inf, p._kl_uniform() + vmf_cgf(k, q.dim) - k + k * miss)
    return kl.to(torch.promote_types(p.loc.dtype, q.loc.dtype))
