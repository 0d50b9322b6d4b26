"""How every kernel is launched: on its tensors' device, with the options that Triton would otherwise choose by its version."""

from typing import Any

import torch
import triton

FP_FUSION = True  # fused multiply-adds, said aloud: the default depends on Triton's version


def launch(kernel: Any, programs: int, *args: Any, num_warps: int = 4, **constants: Any) -> None:
    """Run `programs` programs of `kernel` on the current stream of args[0]'s device; none where there is nothing to do."""
    if programs:
        with torch.cuda.device_of(args[0]):
            kernel[(programs,)](*args, num_warps=num_warps, enable_fp_fusion=FP_FUSION, **constants)


def power_of_2(n: int, most: int) -> int:
    """The least power of 2 that holds n, at most `most`."""
    return min(triton.next_power_of_2(max(n, 1)), most)


def check(condition: bool, message: str) -> None:
    """The launcher's own checks, as csrc/ops has them: the public functions have checked before, other callers may not have."""
    if not condition:
        raise RuntimeError(message)
