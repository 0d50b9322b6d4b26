"""(M + M') / 2 in plain PyTorch; csrc/symmetric_part.h has the arrays."""

from torch import Tensor


def symmetric_part(M: Tensor) -> Tensor:
    return (0.5 * (M + M.mT)).contiguous()
