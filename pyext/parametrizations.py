"""Parametrisations for torch.nn.utils.parametrize."""

import torch
from torch import Tensor, nn

from .ops.psd_project import psd_project


class PositiveSemidefinite(nn.Module):
    r"""A matrix that is :math:`LL^\top`, for gradient steps that never leave the cone and need no projection:

        nn.utils.parametrize.register_parametrization(module, "M", PositiveSemidefinite())

    The steps differ from those on M: the gradient in L is :math:`2\,\nabla_M L`, which vanishes where L does, so directions that M has lost
    come back slowly or not at all; `psd_project` after a step on M has no such trap.

    Args:
        rank: columns of L (d, rank), and the largest rank of M; default d.
    """

    def __init__(self, rank: int | None = None) -> None:
        super().__init__()
        if rank is not None and rank < 1:
            raise ValueError(f"PositiveSemidefinite: rank: expected None or an integer >= 1, got {rank!r}")
        self.rank = rank

    def forward(self, L: Tensor) -> Tensor:
        """L (..., d, rank) -> L L' (..., d, d)."""
        return L @ L.mT

    def right_inverse(self, M: Tensor) -> Tensor:
        """The L of the symmetric positive semidefinite matrix of that rank nearest to M."""
        if M.dim() < 2 or M.shape[-1] != M.shape[-2]:
            raise ValueError(f"PositiveSemidefinite: expected a matrix (..., d, d), got shape {tuple(M.shape)}")
        values, V = torch.linalg.eigh(psd_project(M, method="eigh"))
        rank = M.shape[-1] if self.rank is None else min(self.rank, M.shape[-1])
        return V[..., -rank:] * values[..., None, -rank:].clamp(min=0).sqrt()
