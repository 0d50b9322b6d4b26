"""Linear circular optimal transport: an embedding in which distances approximate W_2 on the circle."""

import torch
from torch import Tensor

from .._checks import check_floating, check_min_dim, compute_dtype, shares, whole_number
from .circular_wasserstein import batch_shape


def circular_embedding(u: Tensor, size: int = 128, *, weights: Tensor | None = None) -> Tensor:
    r"""Embedding of the LCOT distance (Martin et al., *LCOT: Linear circular optimal transport*, ICLR 2024): the displacements
    :math:`\hat u(s)=F^{-1}(s-\alpha)-s` of the uniform law, transported to the points, at s = (k + 1/2)/size.

    F is the distribution function of the points on [0, 1), continued by :math:`F^{-1}(s+1)=F^{-1}(s)+1`, and the best cut against the
    uniform law is known: :math:`\alpha=\sum_ia_it_i-1/2`. One sort a set serves all of its distances,
    :math:`LCOT(u,v)^2=\int_0^1\|\hat u(s)-\hat v(s)\|^2_{R/Z}ds\approx` `embedding_distance`, an upper bound of :math:`W_2(u,v)`
    that equals it where one of the two is uniform. Angles of points on great circles make it the sliced LSSOT distance (Liu et al., ICLR
    2025).

    Args:
        u: points in turns, (..., n), n >= 1; any real, taken modulo 1.
        size: number of values of the embedding, >= 1.
        weights: nonnegative, broadcastable to `u`; each row is divided by its sum. Default uniform.

    Returns:
        (..., size); NaN where a point is. Differentiable once in u with the choice of point at each s held fixed: how the steps of
        :math:`F^{-1}(s-\alpha)` move with :math:`\alpha` between the values of s leaves no trace.

    Raises:
        ValueError: on wrong shapes, dtypes and, on a CPU, negative or non-finite weights or a row of zeros.
    """
    name = "circular_embedding"
    dtype = check_floating(name, u=u, weights=weights)
    check_min_dim(name, u=(u, 1))
    n = u.shape[-1]
    if n == 0:
        raise ValueError(f"{name}: expected at least one point")
    size = whole_number(name, "size", size, 1)
    u = u.to(compute_dtype(dtype))
    t, order = (u - u.detach().floor()).sort(-1)
    a = shares(name, "weights", weights, u[..., None]).gather(-1, order)
    level = a.detach().double().cumsum(-1)
    level = level / level[..., -1:]
    s = (torch.arange(size, dtype=torch.float64, device=u.device) + 0.5) / size
    where = s - ((a * t).sum(-1, keepdim=True).detach().double() - 0.5)                      # (..., size)
    turns = where.floor()
    index = torch.searchsorted(level, where - turns, right=True).clamp(max=n - 1)
    return (t.gather(-1, index) + (turns - s).to(t.dtype)).to(dtype)


def embedding_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""Root mean square, around the circle, of the differences between embeddings (..., size) of `circular_embedding`; the batch dimensions
    broadcast. Gradient 0 where it is 0.

    Raises:
        ValueError: on wrong shapes or dtypes.
    """
    name = "embedding_distance"
    dtype = check_floating(name, a=a, b=b)
    check_min_dim(name, a=(a, 1), b=(b, 1))
    size = a.shape[-1]
    if size == 0 or b.shape[-1] != size:
        raise ValueError(f"{name}: expected as many values in a and b, one or more, got shapes {tuple(a.shape)} and {tuple(b.shape)}")
    batch_shape(name, a.shape[:-1], b.shape[:-1])
    d = a.to(compute_dtype(dtype)) - b.to(compute_dtype(dtype))
    return (torch.linalg.vector_norm(d - d.detach().round(), dim=-1) / size**0.5).to(dtype)
