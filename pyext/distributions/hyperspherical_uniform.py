"""The uniform distribution on the unit sphere."""

import torch
from torch import Tensor
from torch.distributions import Distribution, register_kl

from .._checks import whole_number
from ..ops.vmf_cumulant import log_sphere_area
from .constraints import check_one_dimension, unit_sphere


class HypersphericalUniform(Distribution):
    r"""Uniform law on the unit sphere of :math:`R^{dim}`; event shape (dim,).

    Args:
        dim: dimension of the space, >= 2.
        batch_shape: independent copies.
        device, dtype: of the samples; default torch's defaults.
    """

    arg_constraints: dict = {}
    support = unit_sphere
    has_rsample = True

    def __init__(
        self,
        dim: int,
        batch_shape: torch.Size = torch.Size(),  # noqa: B008  immutable
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.dim, self._device, self._dtype = whole_number("HypersphericalUniform", "dim", dim, 2), device, dtype
        super().__init__(torch.Size(batch_shape), torch.Size([self.dim]), validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: Distribution | None = None) -> "HypersphericalUniform":
        new = self._get_checked_instance(HypersphericalUniform, _instance)
        new.dim, new._device, new._dtype = self.dim, self._device, self._dtype
        super(HypersphericalUniform, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def __repr__(self) -> str:
        return f"HypersphericalUniform(dim: {self.dim}, batch_shape: {tuple(self.batch_shape)})"

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        g = torch.randn(self._extended_shape(torch.Size(sample_shape)), device=self._device, dtype=self._dtype)
        return torch.nn.functional.normalize(g, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return (value[..., 0] * 0 - log_sphere_area(self.dim)).expand(shape)                 # constant, and differentiable as such

    def entropy(self) -> Tensor:
        return torch.full(self.batch_shape, log_sphere_area(self.dim), device=self._device, dtype=self._dtype)

    @property
    def mean(self) -> Tensor:
        return torch.zeros(self._extended_shape(), device=self._device, dtype=self._dtype)

    @property
    def variance(self) -> Tensor:
        return torch.full(self._extended_shape(), 1 / self.dim, device=self._device, dtype=self._dtype)

    @property
    def covariance_matrix(self) -> Tensor:
        return (torch.eye(self.dim, device=self._device, dtype=self._dtype) / self.dim).expand(*self.batch_shape, self.dim, self.dim)


@register_kl(HypersphericalUniform, HypersphericalUniform)
def _kl_uniform_uniform(p: HypersphericalUniform, q: HypersphericalUniform) -> Tensor:
    check_one_dimension(p, q)
    return torch.zeros(torch.broadcast_shapes(p.batch_shape, q.batch_shape), device=p._device, dtype=p._dtype)
