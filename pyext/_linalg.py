"""Linear systems."""

import torch
from torch import Tensor


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
