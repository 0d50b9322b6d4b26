"""Random great circles."""

import math
from functools import partial

import torch
from torch import Tensor

from .._checks import whole_number
from .._linalg import matmul
from .._seed import normals


def great_circles(
    n: int,
    d: int,
    *,
    method: str = "iid",
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Orthonormal frames of `n` planes through the origin of :math:`R^d`; each cuts the unit sphere in a great circle.

    Args:
        n: how many, >= 1.
        d: dimension, >= 2.
        method: "iid", independent and uniform (any d); "orthogonal", uniform but orthogonal to each other in blocks of d // 2, with less
            variance in an average over 100 circles: between concentrated sets up to 8.2x at d = 16, 5.4x at 64, 1.06x at 512, where 100
            fill no block, between spread-out ones 1.4x to 3x, at d = 3 none; "fibonacci", d = 3 only, planes whose normals are a randomly
            rotated Fibonacci lattice of the half sphere (concentrated sets: 54x less variance at 25 circles, 157x at 100; spread-out ones:
            15x at 32). docs/circles.md has the curves.
        generator: source of the randomness, on `device`.
        device, dtype: of the result; default torch's defaults.

    Returns:
        (n, d, 2), each (d, 2) with orthonormal columns.

    Raises:
        ValueError: on n, d or a method out of range.
    """
    n, d = whole_number("great_circles", "n", n, 1), whole_number("great_circles", "d", d, 2)
    dtype = dtype or torch.get_default_dtype()
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"great_circles: dtype: expected float32 or float64, got {dtype}")

    normal = partial(normals, generator=generator, device=device, dtype=dtype)
    if method == "iid":
        return torch.stack(_gram_schmidt(*normal(2, n, d)), -1)
    if method == "orthogonal":
        block = d // 2
        q, _ = torch.linalg.qr(normal(-(-n // block), d, 2 * block))                          # (blocks, d, 2 block)
        # A plane does not change when its columns do, so QR's sign convention is of no account.
        return q.unflatten(-1, (block, 2)).movedim(-2, 1).flatten(0, 1)[:n].contiguous()
    if method == "fibonacci":
        if d != 3:
            raise ValueError(f"great_circles: method: 'fibonacci' needs d = 3, got d = {d}")
        return _fibonacci(n, torch.stack(_gram_schmidt(*normal(2, 3)), -1), normal(2))
    raise ValueError(f"great_circles: method: expected 'iid', 'orthogonal' or 'fibonacci', got {method!r}")


def orthonormal_frames(frames: Tensor) -> Tensor:
    """Gram–Schmidt on the two columns of (..., d, 2)."""
    return torch.stack(_gram_schmidt(*frames.unbind(-1)), -1)


def _gram_schmidt(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x = x / x.norm(dim=-1, keepdim=True)
    y = y - (x * y).sum(-1, keepdim=True) * x
    y = y - (x * y).sum(-1, keepdim=True) * x  # twice is enough (Kahan), also for nearly parallel columns
    return x, y / y.norm(dim=-1, keepdim=True)


def _fibonacci(n: int, frame: Tensor, turn: Tensor) -> Tensor:
    """Planes normal to a Fibonacci lattice of the half sphere, under the uniform rotation given by a frame and a spin about its axis."""
    i = torch.arange(n, dtype=frame.dtype, device=frame.device)
    height = (i + 0.5) / n                                                                   # equal areas of z > 0: a plane has two normals
    angle = i * (math.pi * (3 - math.sqrt(5))) + torch.atan2(turn[1], turn[0])
    radius = (1 - height * height).sqrt()
    lattice = torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1)          # (n, 3)
    rotation = torch.cat([frame, torch.linalg.cross(frame[:, 0], frame[:, 1])[:, None]], 1)  # (3, 3)
    normal = matmul(lattice, rotation.T)
    # The axis least aligned with the normal spans the plane safely once the normal is projected out.
    axis = torch.zeros_like(normal).scatter_(-1, normal.abs().argmin(-1, keepdim=True), 1.0)
    x = axis - (axis * normal).sum(-1, keepdim=True) * normal
    x = x / x.norm(dim=-1, keepdim=True)
    return torch.stack([x, torch.linalg.cross(normal, x)], -1)
