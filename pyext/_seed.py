"""Where the random numbers of an op come from."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ._checks import compute_dtype, whole_number


def seed_words(seed: int | None, generator: torch.Generator | None, device: torch.device) -> torch.Tensor:
    """int64[2] with two 32-bit words on `device`: from `seed`, else drawn from `generator`, else from torch's own generator.

    A draw happens on the device, without a host read, so it is safe under torch.compile and in a CUDA graph (where each replay draws anew).
    Processes that never seed torch, or all seed it alike, share the state of its own generator: what is drawn from that is moved by the
    rank in torch.distributed's default group, if there is one, so that no two ranks make the same draws. `seed` and `generator` are taken
    as they are.
    """
    if seed is not None:
        if generator is not None:
            raise ValueError("seed, generator: expected at most one of them, got both")
        seed = _unsigned(seed)
        low, high = seed % 2**32, seed // 2**32
        return torch.arange(2, device=device) * (high - low) + low  # made there: a copy from the host would wait, and no graph takes it
    words = torch.randint(0, 2**32, (2,), generator=generator, device=device, dtype=torch.int64)
    rank = _rank() if generator is None else 0
    return (words + rank * 0x9E3779B9) & 0xFFFFFFFF if rank else words


def generator_of(seed: int) -> torch.Generator:
    """On the CPU, so that every device gets the same draws."""
    return torch.Generator().manual_seed(_unsigned(seed))


def normals(*shape: int, generator: torch.Generator | None, device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
    """Drawn in float32, and so the same for every dtype."""
    source = {} if generator is None else {"generator": generator}  # even None asks for sizes that torch.compile knows
    return torch.randn(*shape, **source, device=device, dtype=torch.float32).to(dtype)


def take_or_draw(
    function: str,
    n: int,
    like: Tensor,
    shape: tuple[int, ...],
    projections: Tensor | None,
    generator: torch.Generator | None,
    seed: int | None,
    draw: Callable[..., Tensor],
) -> Tensor:
    """Planes or axes (P, *shape) for points `like`, in the dtype that these are computed in: the given ones, or `draw(n, ...)`."""
    dtype = compute_dtype(like.dtype)
    if sum(source is not None for source in (projections, generator, seed)) > 1:
        raise ValueError(f"{function}: expected at most one of projections, generator and seed")
    if projections is None:
        n = whole_number(function, "n_projections", n, 1)
        if seed is not None:
            return draw(n, generator=generator_of(seed), device="cpu", dtype=dtype).to(like.device)
        return draw(n, generator=generator, device=like.device, dtype=dtype)
    if not isinstance(projections, Tensor) or not projections.is_floating_point():
        got = projections.dtype if isinstance(projections, Tensor) else type(projections).__name__
        raise ValueError(f"{function}: projections: expected a tensor of a floating dtype, got {got}")
    if tuple(projections.shape[1:]) != shape or not projections.shape[0]:
        expected = ", ".join(map(str, ("P", *shape)))
        raise ValueError(f"{function}: projections: expected shape ({expected}), got {tuple(projections.shape)}")
    if projections.device != like.device:
        raise ValueError(f"{function}: projections: expected device {like.device}, got {projections.device}")
    return projections.detach().to(dtype)


def _unsigned(seed: Any) -> int:
    if not isinstance(seed, Integral) or not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed: expected an integer of 64 bits, got {seed!r}")
    return int(seed) % 2**64


def _rank() -> int:
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
