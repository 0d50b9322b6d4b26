"""Maximum likelihood for von Mises-Fisher laws."""

from typing import Any

import torch
from torch import Tensor

from .._checks import check_floating, check_min_dim, check_unit, compute_dtype, shares
from .._linalg import matmul

STEPS = 2  # Halley's: the start is right to 5 %, one step leaves 2e-5, two 2e-15


def vmf_fit(z: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Mean direction and concentration of greatest likelihood for points on the unit sphere of :math:`R^d`, d >= 2.

    :math:`\hat\mu=m/|m|` with :math:`m=\sum_iw_iz_i/\sum_iw_i`, and :math:`\hat\kappa` solves :math:`A_d(\kappa)=\bar R=|m|`
    (`vmf_mean_resultant`) by two of Halley's steps from the middle of Amos's bounds, which also bracket every step. Concentrated points
    lose no digits: the equation is then written for :math:`1-\bar R^2=\sum_iw_i|z_i-m|^2/\sum_iw_i`. As every maximum likelihood estimate
    of a concentration it is biased upwards where the points are few beside d.

    Args:
        z: unit vectors (..., n, d), n >= 1.
        weights: nonnegative, broadcastable to (..., n), not all 0; only their ratios count. Default uniform.

    Returns:
        mu (..., d) and kappa (...), of z's dtype. Where m = 0, kappa is 0 and mu the first basis vector; where the points coincide, to
        rounding, kappa is inf. Differentiable in z and weights as the solution is, :math:`d\kappa=d\bar R/A'(\kappa)`, but not where kappa
        is 0 or inf; the gradient in z has no component that scales all points alike.

    Raises:
        ValueError: on wrong shapes, dtypes or devices and, on a CPU, vectors that are not unit, or negative, non-finite or vanishing
            weights.

    Source: Amos, *Computation of modified Bessel functions and their ratios*, 1974; Hornik and Grün, *On maximum likelihood estimation of
    the concentration parameter of von Mises–Fisher distributions*, 2014.
    """
    name = "vmf_fit"
    dtype = check_floating(name, z=z, weights=weights)
    check_min_dim(name, z=(z, 2))
    n, d = z.shape[-2:]
    if n == 0 or d < 2:
        raise ValueError(f"{name}: z: expected shape (..., n, d) with n >= 1 and d >= 2, got {tuple(z.shape)}")
    check_unit(name, "z", z)
    z = z.to(compute_dtype(dtype))
    share = shares(name, "weights", weights, z)                                              # (..., n)

    mean = matmul(share[..., None, :], z)[..., 0, :]                                         # (..., d)
    length = torch.linalg.vector_norm(mean, dim=-1)
    away = torch.linalg.vector_norm(z - mean[..., None, :], dim=-1)                          # (..., n)
    spread = (share * away * away).sum(-1)                                                   # 1 - length^2, without cancellation
    there = (length > 0)[..., None]
    first = torch.eye(1, d, dtype=z.dtype, device=z.device)[0]
    mu = torch.where(there, mean / torch.where(there, length[..., None], 1.0), first)
    # Points that are unit only to rounding: this ratio of moments is |m| where they are, and goes with `spread` in any case.
    resultant = length / (spread + length.square()).sqrt()
    kappa = _Solve.apply(resultant.double(), (spread / (spread + length.square())).detach().double(), d, 4 * torch.finfo(z.dtype).eps)
    return mu.to(dtype), kappa.to(dtype)


class _Solve(torch.autograd.Function):
    """kappa with A_d(kappa) = R, from R and v = 1 - R^2 in float64; inf where v < floor^2."""

    generate_vmap_rule = True

    @staticmethod
    def forward(R: Tensor, v: Tensor, d: int, floor: float) -> Tensor:
        cumulant = torch.ops.transphere.vmf_cumulant
        n, nu = d - 1, d / 2 - 1
        coincide = v < floor * floor
        safe = torch.where(coincide, 1.0, v)
        # Amos: k / (a + hypot(k, b)) is below A for a = nu + 1/2, b = nu + 3/2, and above it for a = b = nu + 1/2 and a = nu, b = nu + 2
        bound = lambda a, b: R / safe * (a + (a * a + safe * (b * b - a * a)).sqrt())  # noqa: E731
        low, high = torch.maximum(bound(nu + 0.5, nu + 0.5), bound(nu, nu + 2)), bound(nu + 0.5, nu + 1.5)
        k = 0.5 * (low + high)
        for _ in range(STEPS):
            at = torch.where(k > 0, k, 1.0)
            A, A1 = cumulant(at, d, 1), cumulant(at, d, 2)
            excess = torch.where(R < 0.7, A - R, (safe - (A1 + n * A / at)) / (A + R))       # A - R: 1 - A^2 = A' + n A / k
            A2 = -2 * A * A1 - n * (A1 - A / at) / at
            step = excess / (A1 - 0.5 * excess * A2 / A1)
            k = torch.where(k > 0, torch.minimum(torch.maximum(at - step, low), high), 0.0)
        return torch.where(coincide, torch.inf, k)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.d = inputs[2]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        (k,) = ctx.saved_tensors
        return grad / torch.ops.transphere.vmf_cumulant(k, ctx.d, 2), None, None, None
