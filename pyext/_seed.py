"""Where the two seed words of an op come from."""

import torch


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
        if not isinstance(seed, int) or not -(2**63) <= seed < 2**64:
            raise ValueError(f"seed: expected an integer of 64 bits, got {seed!r}")
        seed %= 2**64
        return torch.tensor([seed % 2**32, seed // 2**32], dtype=torch.int64, device=device)
    words = torch.randint(0, 2**32, (2,), generator=generator, device=device, dtype=torch.int64)
    rank = _rank() if generator is None else 0
    return (words + rank * 0x9E3779B9) & 0xFFFFFFFF if rank else words


def _rank() -> int:
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
