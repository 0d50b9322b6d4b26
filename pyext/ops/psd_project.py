"""The nearest symmetric matrix whose eigenvalues are at least a floor: the step that keeps a learned metric a metric."""

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .._checks import check_floating, check_min_dim, compute_dtype, values_are_free
from .._linalg import no_autocast
from .symmetric_part import symmetric_part

SLACK = 64  # roundings of |M| by which "auto" lets eigenvalues fall short: what an eigendecomposition makes of coinciding ones
LEADING = 128  # rows of the block that is tried first


def psd_project(M: Tensor, *, floor: float = 0.0, method: str = "auto") -> Tensor:
    r"""Frobenius-nearest symmetric matrix with eigenvalues >= floor: :math:`V\max(\Lambda,\text{floor})V^\top` of the symmetric part
    :math:`V\Lambda V^\top=(M+M^\top)/2` (Higham 1988). The clamped singular values of M, which some code takes, are M itself.

    Args:
        M: (..., d, d). Half dtypes are computed in float32.
        floor: the least eigenvalue allowed; any finite number.
        method: "eigh" is an eigendecomposition. "polar" needs matrix products only: :math:`(A+|A|)/2+\text{floor}\,I`,
            :math:`A=(M+M^\top)/2-\text{floor}\,I`, :math:`|A|=A\,\text{sign}A` with the sign by scaled Newton–Schulz steps (Chen, Chow
            2014), 24 of them in float32. "auto" on a CPU tries a Cholesky factorisation first and, where it succeeds, there is nothing to
            do, else it takes "eigh"; elsewhere it is "polar", since a look at the outcome would cost a sync, as "eigh" does.

    Returns:
        (..., d, d), symmetric to the bit. Eigenvalues fall short of the floor by at most 8 roundings of |M| with "polar" (1e-6 |M| in
        float32; |M| the largest eigenvalue by modulus) and 64 with "eigh", whose eigenvectors are orthogonal to no more than that where
        eigenvalues coincide. "auto" leaves shortfalls of up to 64 roundings, so on a CPU it gives back its own results unchanged.
        Differentiable once; the gradient is that of the projection (Daleckii–Krein), takes an eigendecomposition where there was something
        to do, and is finite also where eigenvalues coincide.

    Raises:
        ValueError: on wrong shapes, dtypes, floor, method and, on a CPU, entries that are not finite.
    """
    name = "psd_project"
    dtype = check_floating(name, M=M)
    check_min_dim(name, M=(M, 2))
    if M.shape[-1] != M.shape[-2]:
        raise ValueError(f"{name}: M: expected shape (..., d, d), got {tuple(M.shape)}")
    if not isinstance(floor, Real) or not math.isfinite(floor):
        raise ValueError(f"{name}: floor: expected a finite number, got {floor!r}")
    if method not in ("auto", "eigh", "polar"):
        raise ValueError(f"{name}: method: expected 'auto', 'eigh' or 'polar', got {method!r}")
    if M.numel() == 0:
        return M.clone()
    with no_autocast(M):
        return _PsdProject.apply(M.to(compute_dtype(dtype)), float(floor), method).to(dtype)


class _PsdProject(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(M: Tensor, floor: float, method: str) -> Tensor:
        S = symmetric_part(M)
        rows = S.norm(dim=-1)                                                                # (..., d)
        if values_are_free(M) and not bool(rows.isfinite().all()):
            raise ValueError("psd_project: M: expected finite entries, whose squares do not overflow")
        if method == "polar" or (method == "auto" and M.device.type != "cpu"):
            return _by_polar(S, floor)
        if method == "eigh" or not values_are_free(M):
            return _by_eigh(S, floor)
        short = _falls_short(S, rows, floor)                                                 # (...)
        if bool(short.all()):
            return _by_eigh(S, floor)
        if bool(short.any()):
            S[short] = _by_eigh(S[short], floor)
        return S

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        M, ctx.floor, _ = inputs
        ctx.save_for_backward(M, output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        M, projected = ctx.saved_tensors
        S = symmetric_part(M)
        if values_are_free(S) and torch.equal(S, projected):  # there was nothing to do
            return symmetric_part(grad), None, None
        with no_autocast(S):
            values, V = torch.linalg.eigh(S)
            above, below = (values - ctx.floor).clamp(min=0), (ctx.floor - values).clamp(min=0)
            above, below = above[..., :, None] + above[..., None, :], below[..., :, None] + below[..., None, :]
            # Divided differences of max(., floor); 1 at the floor, as where nothing was to do.
            K = torch.where(above + below > 0, above / (above + below), 1.0)
            return symmetric_part(V @ (K * (V.mT @ grad @ V)) @ V.mT), None, None


def _falls_short(S: Tensor, rows: Tensor, floor: float) -> Tensor:
    """Which of S (..., d, d) have an eigenvalue below the floor by more than SLACK roundings of |S|; `rows` are the norms of its rows."""
    v = torch.nn.functional.normalize(torch.take_along_dim(S, rows.argmax(-1)[..., None, None], -2), dim=-1, eps=0)
    norm = (v @ S).norm(dim=-1).nan_to_num(0.0)                                              # (..., 1), at most |S|
    shifted = S.clone()
    shifted.diagonal(dim1=-2, dim2=-1).add_(SLACK * torch.finfo(S.dtype).eps * norm - floor)
    shifted = shifted.mT  # the same matrix, in the layout that LAPACK wants
    # A leading block mostly tells: torch clears a whole triangle also after a factorisation that failed at once.
    block = shifted[..., :LEADING, :LEADING]
    short = torch.linalg.cholesky_ex(block)[1] != 0
    if block.shape == shifted.shape or bool(short.all()):
        return short
    return torch.linalg.cholesky_ex(shifted)[1] != 0


def _by_eigh(S: Tensor, floor: float) -> Tensor:
    values, V = torch.linalg.eigh(S)
    if not values_are_free(S):
        return symmetric_part((V * values.clamp(min=floor)[..., None, :]) @ V.mT)
    if S.dim() == 2:
        return _lift(S, floor, values, V)
    d = S.shape[-1]
    matrices = zip(S.reshape(-1, d, d), values.reshape(-1, d), V.reshape(-1, d, d), strict=True)
    return torch.stack([_lift(S_i, floor, values_i, V_i) for S_i, values_i, V_i in matrices]).reshape(S.shape)


def _lift(S: Tensor, floor: float, values: Tensor, V: Tensor) -> Tensor:
    """S (d, d) with its eigenvalues below the floor lifted to it, or built from those above: by the thinner product."""
    k = int((values < floor).sum())
    if 2 * k <= len(S):
        lifted = torch.addmm(S, V[:, :k] * (floor - values[:k]), V[:, :k].mT)
    else:
        lifted = (V[:, k:] * (values[k:] - floor)) @ V[:, k:].mT
        lifted.diagonal().add_(floor)
    return symmetric_part(lifted)


def _by_polar(S: Tensor, floor: float) -> Tensor:
    d = S.shape[-1]
    A = S.reshape(-1, d, d).clone()
    A.diagonal(dim1=-2, dim2=-1).sub_(floor)
    X = A / _at_least_tiny(A.norm(dim=(-2, -1), keepdim=True))
    square = X @ X
    scale = _at_least_tiny(square.norm(dim=(-2, -1), keepdim=True).sqrt())                   # (sum of eigenvalues^4)^(1/4) >= |X|
    X, square = X / scale, square / scale**2
    for step, rho in enumerate(_newton_schulz_scales(torch.finfo(S.dtype).eps)):
        square = square if step == 0 else X @ X
        X = torch.baddbmm(X, X, square, beta=1.5 * rho, alpha=-0.5 * rho**3)                 # rho X (3 - rho^2 X^2) / 2
    projected = symmetric_part(torch.baddbmm(A, A, X, beta=0.5, alpha=0.5))
    projected.diagonal(dim1=-2, dim2=-1).add_(floor)
    return projected.reshape(S.shape)


def _at_least_tiny(norm: Tensor) -> Tensor:
    return norm.clamp(min=torch.finfo(norm.dtype).tiny ** 0.5)


def _newton_schulz_scales(least: float) -> list[float]:
    """Scales rho of steps x <- rho x (3 - rho^2 x^2) / 2 that bring every x in [least, 1] to 1 within `least`.

    With all x in [l, 1] the best rho^2 is 3 / (1 + l + l^2). For small l that sends 1 down to about l, where rounding errors weigh 1/l
    times more before it is back; so l counts as at least 0.3, after which no x that has passed 0.3 falls below 0.6.
    """
    scales, l = [], least
    while l < 1 - math.sqrt(least):
        t = max(l, 0.3)
        rho = math.sqrt(3 / (1 + t + t * t))
        scales.append(rho)
        l = rho * l * (3 - (rho * l) ** 2) / 2
    return [*scales, 1.0]
