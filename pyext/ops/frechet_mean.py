"""Means of points on the sphere."""

import warnings
from typing import Any

import torch
from torch import Tensor

from .._checks import check_floating, check_min_dim, check_unit, compute_dtype, shares, values_are_free, whole_number
from .._linalg import matmul, solve


def frechet_mean(z: Tensor, weights: Tensor | None = None, *, max_iter: int = 50, tol: float = 1e-7) -> Tensor:
    r"""Karcher mean, :math:`\arg\min_m\sum_i w_i\,\theta(m,z_i)^2` with :math:`\theta` the angle; unique when the points lie in an open
    half sphere.

    Newton's method with the mean curvature, :math:`m\leftarrow\exp_m(t/h)`, :math:`t=\sum_iw_i\log_m z_i`, from the normalised average.
    The gradient is that of the solution (implicit function theorem), so it does not depend on the iterations.

    Args:
        z: unit vectors (..., n, d).
        weights: nonnegative, broadcastable to (..., n); divided by their sum. Default uniform.
        max_iter: the most steps, >= 0; on a CPU they end when every |t| <= tol, elsewhere all are taken, since looking would cost a sync.
        tol: tangent length >= 0 at which a CPU stops, in radians; not below a few roundings of the dtype.

    Returns:
        Unit vectors (..., d), differentiable once in z and weights. NaN where the average vanishes, as between antipodes (there is no one
        mean). Points that no half sphere holds can have several stationary points; the result is the one that the iteration reached,
        and its gradient that of its own branch.

    Warns:
        RuntimeWarning: on a CPU, where a mean is not defined, and where the iteration ended before every |t| was at most `tol` (at least
            a few roundings of the dtype).

    Raises:
        ValueError: on wrong shapes, dtypes, max_iter or tol and, on a CPU, vectors of a weight above 0 that are not unit, and weights that
            are negative, not finite or all 0.
    """
    name = "frechet_mean"
    max_iter = whole_number(name, "max_iter", max_iter, 0)
    if not tol >= 0:
        raise ValueError(f"{name}: tol: expected a number >= 0, got {tol!r}")
    dtype, points, weights = _prepare(name, z, weights)
    if values_are_free(z):
        check_unit(name, "z", z[weights > 0])
    start = _direction(name, _combine(weights, points).detach())
    tol = max(tol, 8 * torch.finfo(points.dtype).eps)
    m, left = _FrechetMean.apply(points, weights, start, max_iter, tol)
    if values_are_free(left) and bool((left > tol).any()):
        warnings.warn(
            f"frechet_mean: not converged after {max_iter} steps, |t| up to {left[left == left].max().item():.3g}: the points may be spread"
            " over more than a half sphere; raise max_iter or tol",
            RuntimeWarning,
            stacklevel=2,
        )
    return m.to(dtype)


def chordal_mean(z: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Normalised average :math:`\sum_iw_iz_i/|\sum_iw_iz_i|`, the minimiser of squared chords. Shapes, errors, and the NaN and the
    warning where the average vanishes as in `frechet_mean`."""
    dtype, z, weights = _prepare("chordal_mean", z, weights)
    return _direction("chordal_mean", _combine(weights, z)).to(dtype)


def _direction(function: str, average: Tensor) -> Tensor:
    """(..., d) normalised; NaN, with a warning, where nothing but rounding is left of it."""
    length = average.norm(dim=-1, keepdim=True)
    vanishes = length <= 8 * torch.finfo(average.dtype).eps
    if values_are_free(average) and bool(vanishes.any()):
        warnings.warn(f"{function}: {int(vanishes.sum())} averages vanish: their means are not defined, and NaN", RuntimeWarning, 3)
    return average / torch.where(vanishes, torch.nan, length)


def _prepare(function: str, z: Tensor, weights: Tensor | None) -> tuple[torch.dtype, Tensor, Tensor]:
    dtype = check_floating(function, z=z, weights=weights)
    check_min_dim(function, z=(z, 2))
    n, d = z.shape[-2:]
    if n == 0:
        raise ValueError(f"{function}: z: expected at least one point, got shape {tuple(z.shape)}")
    if d == 0:
        raise ValueError(f"{function}: z: expected vectors of dimension >= 1, got shape {tuple(z.shape)}")
    z = z.to(compute_dtype(dtype))
    return dtype, z, shares(function, "weights", weights, z)


def _combine(weights: Tensor, z: Tensor) -> Tensor:
    return matmul(weights[..., None, :], z)[..., 0, :]                                       # (..., d)


def _angles(z: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c = cos theta, s^2 = sin^2 theta and phi = theta / sin theta between m and each z, (..., n)."""
    c = matmul(z, m[..., None])[..., 0].clamp(-1, 1)
    s2 = (1 - c) * (1 + c)
    s = s2.sqrt()
    phi = torch.where(1 - c < 1e-4, 1 + (1 - c) * (1 / 3 + (1 - c) * (2 / 15)), torch.atan2(s, c) / s)
    return c, s2, phi


class _FrechetMean(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, weights: Tensor, m: Tensor, max_iter: int, tol: float) -> tuple[Tensor, Tensor]:
        """The mean from a first guess m, and the last |t|."""
        length = torch.zeros_like(m[..., :1])
        for _ in range(max_iter):
            c, _, phi = _angles(z, m)
            across = (weights * phi * c).sum(-1, keepdim=True)                          # curvature across the geodesics; along them it is 1
            t = _combine(weights * phi, z) - across * m                                 # sum w log_m z
            t = t - (t * m).sum(-1, keepdim=True) * m                                   # what c's rounding, of sqrt(d) eps, left along m
            h = (across + (1 - across) / max(z.shape[-1] - 1, 1)).clamp(min=0.25)
            length = t.norm(dim=-1, keepdim=True)
            step = length / h
            m = step.cos() * m + torch.where(length > 0, step.sin() / length, 1.0) * t
            m = torch.nn.functional.normalize(m, dim=-1, eps=0)
            if values_are_free(length) and bool((~(length > tol)).all()):
                break
        return m, length

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        m, length = output
        ctx.save_for_backward(*inputs[:2], m)
        ctx.mark_non_differentiable(length)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple:
        z, weights, m = ctx.saved_tensors
        c, s2, phi = _angles(z, m)
        small = 1 - c < 1e-4
        away = z - c[..., None] * m[..., None, :]                                            # (..., n, d), sin theta v
        # Hessian on the tangent space at m: alpha I + Q'Q, rows of Q = sqrt(w (1 - theta cot theta)) v
        alpha = (weights * phi * c).sum(-1)
        Q = (weights * torch.where(small, 1 / 3, (1 - phi * c) / s2)).sqrt()[..., None] * away
        g = grad - (grad * m).sum(-1, keepdim=True) * m
        n, d = z.shape[-2:]
        eye = torch.eye(min(n, d), dtype=z.dtype, device=z.device) * alpha[..., None, None]
        if n <= d:  # Woodbury
            inner = solve(eye + Q @ Q.mT, Q @ g[..., None])
            y = (g - (Q.mT @ inner)[..., 0]) / alpha[..., None]
        else:
            y = solve(eye + Q.mT @ Q, g[..., None])[..., 0]
        # log_m is an isometry along the geodesic and stretches by phi across it
        slope = (away @ y[..., None])[..., 0]                                                # (..., n)
        bend = torch.where(small, -2 / 3, (c - phi) / s2)
        grad_z = weights[..., None] * (phi[..., None] * y[..., None, :] + slope[..., None] * (bend[..., None] * away - m[..., None, :]))
        return grad_z, phi * slope, None, None, None
