"""Pairwise Mahalanobis costs at the speed of their matrix products."""

from typing import Any

import torch
from torch import Tensor

from .._checks import check_floating, check_min_dim, compute_dtype
from .._library import define, op
from .._linalg import no_autocast
from ..reference.mahalanobis_cost import mahalanobis_cost as _reference
from ..reference.mahalanobis_cost import mahalanobis_cost_backward as _reference_backward
from .circular_wasserstein import batch_shape
from .symmetric_part import symmetric_part


def mahalanobis_cost(x: Tensor, y: Tensor, M: Tensor | None = None, *, squared: bool = False, backend: str | None = None) -> Tensor:
    r"""Costs :math:`C_{ij}=\sqrt{q_{ij}}`, :math:`q_{ij}=(x_i-y_j)^\top M(x_i-y_j)`, between all points of two sets.

    :math:`q_{ij}=x_i^\top Mx_i+y_j^\top My_j-2x_i^\top My_j` by matrix products on points that are centred together first; pairs so close
    that this cancels are computed again from their difference. Equal points have exactly 0. With W the slopes of q, A the Laplacian
    [[diag W1, -W], [-W', diag W'1]] and z = [x; y], the gradients are :math:`2AzM` and :math:`z^\top Az`. Nothing of size (n, m, d)
    exists: memory is O(nm + (n + m)d + d^2) a problem. Products are float32 or float64; TF32 only where torch's own switch asks for it.

    Args:
        x, y: points (..., n, d) and (..., m, d); the batch dimensions broadcast. Half dtypes are computed in float32.
        M: (d, d), of which only the symmetric part counts, or a diagonal (d,), or None for the Euclidean distance. Any floating dtype.
        squared: return q itself.
        backend: None for the fastest, or "reference", "cpu", "cuda", "triton".

    Returns:
        (..., n, m) in x's dtype, differentiable once in x, y and M; the gradient in M is symmetric. Where q <= 0, at equal points and along
        directions in which M is not positive, the cost is 0 and so is its gradient: `psd_project` M to rule the latter out. A point that is
        not finite leaves its own row or column without finite values, and no other.

    Raises:
        ValueError: on wrong shapes, dtypes or devices.
        RuntimeError: if the backend was not built.
    """
    name = "mahalanobis_cost"
    dtype = check_floating(name, x=x, y=y)
    check_min_dim(name, x=(x, 2), y=(y, 2))
    (n, d), m = x.shape[-2:], y.shape[-2]
    if y.shape[-1] != d:
        raise ValueError(f"{name}: y: expected shape (..., m, {d}) as x has {d} coordinates, got {tuple(y.shape)}")
    batch = batch_shape(name, x.shape[:-2], y.shape[:-2])
    compute = compute_dtype(dtype)
    if M is not None:
        check_floating(name, M=M)
        if M.device != x.device:
            raise ValueError(f"{name}: M: expected device {x.device} as x, got {M.device}")
        if M.shape not in ((d, d), (d,)):
            raise ValueError(f"{name}: M: expected shape {(d, d)} or {(d,)}, got {tuple(M.shape)}")
        compute = torch.promote_types(compute, compute_dtype(M.dtype))
        M = M.to(compute)
    with no_autocast(x):
        z = torch.cat([x.to(compute).expand(*batch, n, d), y.to(compute).expand(*batch, m, d)], -2)
        z = z.reshape(batch.numel(), n + m, d)
        with torch.no_grad():
            # Any common shift that lies among the points will do; one that is not finite must not spread through it.
            centre = z.detach()[:, :: max(1, (n + m) // 64)].mean(1, keepdim=True).nan_to_num(0.0, 0.0, 0.0)
        z -= centre
        with torch.no_grad():
            zM = z.detach() if M is None else z * M if M.dim() == 1 else z @ symmetric_part(M, backend)
            G = z[:, :n] @ zM[:, n:].mT                                                      # (B, n, m)
        cost = op(name, backend, z)(z, M, zM, G, squared)
    return cost.reshape(*batch, n, m).to(dtype)


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    z, M, zM, _, ctx.squared = inputs
    ctx.save_for_backward(z, M, zM, output)


def _backward(op: Any, ctx: Any, grad: Tensor) -> tuple:
    z, M, zM, cost = ctx.saved_tensors
    (n, m), d, (wants_z, wants_M) = grad.shape[1:], z.shape[-1], ctx.needs_input_grad[:2]
    W, rows, columns = op("mahalanobis_cost_backward")(grad, cost, ctx.squared)
    degree = torch.cat([rows, columns], 1)[..., None]                                        # (B, n + m, 1)

    def laplacian(t: Tensor, scale: float) -> Tensor:
        """scale A t, t (B, n + m, d)."""
        At = (scale * degree) * t
        At[:, :n].baddbmm_(W, t[:, n:], alpha=-scale)
        At[:, n:].baddbmm_(W.mT, t[:, :n], alpha=-scale)
        return At

    grad_z = grad_M = None
    with no_autocast(z):
        Az = laplacian(z, 1) if wants_M else None
        if M is not None and M.dim() == 1:
            grad_z = laplacian(zM, 2) if Az is None else Az * (2 * M)
            grad_M = None if Az is None else (z * Az).sum((0, 1))
        else:
            if wants_z:  # of A (z M) and (A z) M the one with fewer multiplications
                by_M = wants_M and 2 * n * m > (n + m) * d
                grad_z = Az @ op("symmetric_part")(2 * M.detach()[None]) if by_M else laplacian(zM, 2)
            if wants_M:
                grad_M = op("symmetric_part")((z.flatten(0, 1).mT @ Az.flatten(0, 1))[None])[0]
    return grad_z if wants_z else None, grad_M if wants_M else None, None, None, None


define(
    "mahalanobis_cost_backward(Tensor grad, Tensor cost, bool squared) -> (Tensor W, Tensor rows, Tensor columns)",
    reference=_reference_backward,
    fake=lambda grad, cost, squared: (cost.new_empty(cost.shape), cost.new_empty(cost.shape[:2]), cost.new_empty(cost.shape[::2])),
)
# zM and G are functions of z and M that are computed before; the gradient is that of the whole, in z and M.
define(
    "mahalanobis_cost(Tensor z, Tensor? M, Tensor zM, Tensor G, bool squared) -> Tensor",
    reference=_reference,
    fake=lambda z, M, zM, G, squared: G.new_empty(G.shape),
    backward=_backward,
    setup_context=_setup_context,
)
