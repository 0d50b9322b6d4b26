"""Parallelly sliced Wasserstein distance on the sphere: points are projected on axes."""

import torch
from torch import Tensor

from .._checks import check_floating, check_min_dim, shares
from .._linalg import matmul
from .._seed import normals, take_or_draw
from .circular_wasserstein import batch_shape, check_order


def sliced_wasserstein_sphere_parallel(
    x: Tensor,
    y: Tensor,
    n_projections: int = 100,
    *,
    p: float = 2,
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    projections: Tensor | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
) -> Tensor:
    r"""Parallelly sliced Wasserstein distance, :math:`(E_\psi W_p^p(\langle x,\psi\rangle,\langle y,\psi\rangle))^{1/p}` over uniform
    directions :math:`\psi` (Quellmalz, Buecher, Steidl, J. Math. Imaging Vis. 2024): the circles of latitude about an axis are collapsed,
    and what remains is transported on the line.

    A cheaper relative of `sliced_wasserstein_sphere`: half the projection, no angle, no cut to look for, and a gradient of finite variance.
    It measures heights, between -1 and 1, not angles.

    Args:
        x, y: unit vectors (..., n, d) and (..., m, d); the batch dimensions broadcast.
        n_projections: number of axes, when `projections` is not given.
        p: the order, a number in [1, 32].
        x_weights, y_weights: nonnegative, broadcastable to (..., n) and (..., m); each row is divided by its sum. Default uniform.
        projections: (P, d), axes to use instead of random ones; they are normalised. No gradient flows to them.
        generator: source of the axes, on the device of x; default torch's own for the device.
        seed: fixes the axes, the same on every device and for every dtype.

    Returns:
        Distances (...), differentiable once in points and weights.

    Raises:
        ValueError: on wrong shapes, dtypes, devices, p, and as `circular_wasserstein` on weights.
    """
    name = "sliced_wasserstein_sphere_parallel"
    dtype = check_floating(name, x=x, y=y, x_weights=x_weights, y_weights=y_weights)
    check_min_dim(name, x=(x, 2), y=(y, 2))
    check_order(name, p)
    d = x.shape[-1]
    if y.shape[-1] != d:
        raise ValueError(f"{name}: y: expected vectors of dimension {d} as x, got shape {tuple(y.shape)}")
    if x.shape[-2] == 0 or y.shape[-2] == 0:
        raise ValueError(f"{name}: expected at least one point in each set, got {x.shape[-2]} and {y.shape[-2]}")
    batch = batch_shape(name, x.shape[:-2], y.shape[:-2])
    axes = _axes(name, n_projections, x, projections, generator, seed)                       # (d, P)
    u, v = (matmul(z.to(axes.dtype), axes).expand(*batch, z.shape[-2], axes.shape[1]) for z in (x, y))
    a = None if x_weights is None else shares(name, "x_weights", x_weights, u)[..., None, :]
    b = None if y_weights is None else shares(name, "y_weights", y_weights, v)[..., None, :]
    cost = _line_cost(u.mT, v.mT, a, b, p).mean(-1)                                          # (...)
    if p == 1:
        return cost.to(dtype)
    positive = ~(cost <= 0)
    return torch.where(positive, torch.where(positive, cost, 1.0) ** (1 / p), 0.0).to(dtype)  # gradient 0 where the distance is 0


def _line_cost(u: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None, p: float) -> Tensor:
    """W_p^p on the line between the rows of (..., n) and (..., m)."""
    u, by_u = u.sort(-1)
    v, by_v = v.sort(-1)
    if a is None and b is None and u.shape[-1] == v.shape[-1]:
        return _power(u - v, p).mean(-1)
    A, B = _levels(a, by_u), _levels(b, by_v)
    ends = torch.cat([A, B], -1).sort(-1).values                                             # of pieces that go from one u to one v
    length = ends.diff(dim=-1, prepend=torch.zeros_like(ends[..., :1]))
    middle = (ends - 0.5 * length).detach()
    i, j = (torch.searchsorted(L.detach().contiguous(), middle).clamp(max=L.shape[-1] - 1) for L in (A, B))
    return (length * _power(u.gather(-1, i) - v.gather(-1, j), p)).sum(-1)


def _power(d: Tensor, p: float) -> Tensor:
    """|d|^p; of orders above 2 in float64, since they leave float32's range."""
    return (d if p <= 2 else d.double()).abs().pow(p)


def _levels(weights: Tensor | None, order: Tensor) -> Tensor:
    """Mass up to and with each sorted point, (..., n); 1 at the last."""
    n = order.shape[-1]
    if weights is None:
        return (torch.arange(1, n + 1, device=order.device, dtype=torch.float64) / n).expand(order.shape)
    level = weights.double().expand(order.shape).gather(-1, order).cumsum(-1)
    return level / level[..., -1:]


def _axes(
    function: str, n: int, like: Tensor, projections: Tensor | None, generator: torch.Generator | None, seed: int | None
) -> Tensor:
    d = like.shape[-1]
    axes = take_or_draw(function, n, like, (d,), projections, generator, seed, lambda n, **how: normals(n, d, **how))
    return (axes / axes.norm(dim=-1, keepdim=True)).mT
