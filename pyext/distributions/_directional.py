"""What the laws with a mean direction and a concentration share."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from .constraints import unit_sphere


class Directional(Distribution):
    """A law on the unit sphere that is symmetric about loc (..., d); w = loc.z has its mean in `_mean_resultant` and, with the variance in
    each direction across loc, its own in `_variances`."""

    support = unit_sphere
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor | float, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = _direction_and_concentration(type(self).__name__, loc, concentration)
        super().__init__(self.concentration.shape, self.loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: Distribution | None = None) -> "Directional":
        new = self._get_checked_instance(Directional, _instance)
        batch_shape = torch.Size(batch_shape)
        new.loc = self.loc.expand(batch_shape + self.event_shape)
        new.concentration = self.concentration.expand(batch_shape)
        super(Directional, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def dim(self) -> int:
        return self.event_shape[0]

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def mean(self) -> Tensor:
        return self._mean_resultant()[..., None] * self.loc

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

    def _mean_resultant(self) -> Tensor:
        raise NotImplementedError

    def _variances(self) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def _direction_and_concentration(law: str, loc: Tensor, concentration: Tensor | float) -> tuple[Tensor, Tensor]:
    """loc (..., d) and concentration (...) of one batch shape, dtype and device."""
    if not isinstance(loc, Tensor) or loc.dim() < 1 or loc.shape[-1] < 2:
        raise ValueError(f"{law}: loc: expected a tensor (..., d) with d >= 2, got {tuple(loc.shape) if isinstance(loc, Tensor) else loc}")
    if not loc.is_floating_point():
        raise ValueError(f"{law}: loc: expected a floating dtype, got {loc.dtype}")
    if isinstance(concentration, Tensor) and concentration.dim() and concentration.device != loc.device:
        raise ValueError(f"{law}: concentration: expected device {loc.device} as loc, got {concentration.device}")
    try:
        concentration = torch.as_tensor(concentration, dtype=loc.dtype, device=loc.device)
    except (TypeError, RuntimeError, ValueError):
        raise ValueError(f"{law}: concentration: expected a tensor or a number, got {concentration!r}") from None
    try:
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
    except RuntimeError:
        shapes = f"{tuple(loc.shape[:-1])}, got {tuple(concentration.shape)}"
        raise ValueError(f"{law}: concentration: expected a shape that broadcasts with {shapes}") from None
    return loc.expand(*batch_shape, loc.shape[-1]), concentration.expand(batch_shape)
