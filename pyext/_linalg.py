"""Matrix products that keep their precision, and linear systems."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def no_autocast(like: Tensor) -> AbstractContextManager:
    """Within it, matrix products of tensors on the device of `like` keep their dtype."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)  # there is none for meta tensors


def matmul(A: Tensor, B: Tensor) -> Tensor:
    """A @ B in their own dtype, under autocast too: three digits are too few for angles and means."""
    with no_autocast(A):
        return A @ B


def solve(A: Tensor, b: Tensor) -> Tensor:
    """x (..., n, k) with A x = b, A (..., n, n), not checked for singular ones: that would wait for a device.

    On a CPU one matrix after the other: once torch.set_num_threads was called, oneMKL's batched LU of more than about 130 rows gives wrong
    results or raises (torch 2.13); that of one matrix does not.
    """
    n, k = b.shape[-2:]
    if A.device.type != "cpu" or n <= 64:
        return torch.linalg.solve_ex(A, b)[0]
    each = [torch.linalg.solve_ex(*system)[0] for system in zip(A.reshape(-1, n, n), b.reshape(-1, n, k), strict=True)]
    return torch.stack(each).reshape(b.shape) if each else b
