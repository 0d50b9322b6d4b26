"""What the laws with a mean direction and a concentration share."""

import torch
from torch import Tensor


def direction_and_concentration(law: str, loc: Tensor, concentration: Tensor | float) -> tuple[Tensor, Tensor]:
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
