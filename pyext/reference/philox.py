"""Philox4x32-10 in int64 tensors; see csrc/philox.h."""

import torch
from torch import Tensor

MASK = 0xFFFFFFFF


def _multiply(a: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a * m for 32-bit a: the product of two 32-bit words does not fit int64, two 16 x 32 ones do."""
    low, high = a & 0xFFFF, a >> 16
    middle = high * m + ((low * m) >> 16)
    return middle >> 16, (a * m) & MASK


def philox(key: tuple[Tensor, Tensor], c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four words, each an int64 tensor of the counters' broadcast shape."""
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, 0xD2511F53)
        high1, low1 = _multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def uniform(word: Tensor) -> Tensor:
    """The 24 leading bits as a float64 in [0, 1)."""
    return (word >> 8).double() * 2.0**-24


def normals(key: tuple[Tensor, Tensor], samples: Tensor, d: int) -> Tensor:
    """Standard normals (..., d), float64, of the sample numbers `samples` (...); the layout is in csrc/vmf_sample.h."""
    q = (d + 3) // 4
    block = torch.arange(q, device=samples.device)
    sample = samples[..., None]
    words = philox(key, block, torch.zeros_like(block), sample & MASK, sample >> 32)  # 4 of (..., q)
    planes = []
    for radius_word, angle_word in (words[:2], words[2:]):
        radius = (-2 * torch.log(1 - uniform(radius_word))).clamp(min=2.0**-24).sqrt()
        angle = 2 * torch.pi * (uniform(angle_word) + 2.0**-25)
        planes += [radius * angle.cos(), radius * angle.sin()]
    return torch.cat(planes, -1)[..., :d]
