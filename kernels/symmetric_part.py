"""(M + M') / 2; csrc/symmetric_part.h has the arrays. A tile a program."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import check, launch

TILE = 32


@triton.jit(do_not_specialize=["d"])
def _forward(M_ptr, S_ptr, d, TILE: tl.constexpr):
    across = tl.cdiv(d, TILE)
    tile = tl.program_id(0).to(tl.int64)
    b, tile = tile // (across * across), tile % (across * across)
    i = tile // across * TILE + tl.arange(0, TILE)
    j = tile % across * TILE + tl.arange(0, TILE)
    live = (i < d)[:, None] & (j < d)[None, :]
    at = (b * d + i)[:, None] * d + j[None, :]                                               # [I, J]
    mirror_at = (b * d + j)[:, None] * d + i[None, :]                                        # [J, I]
    mirror = tl.load(M_ptr + mirror_at, mask=(j < d)[:, None] & (i < d)[None, :], other=0.0)
    tl.store(S_ptr + at, 0.5 * (tl.load(M_ptr + at, mask=live, other=0.0) + tl.trans(mirror)), mask=live)


def symmetric_part(M: Tensor) -> Tensor:
    check(M.dim() == 3 and M.shape[1] == M.shape[2], "symmetric_part: expected M of shape (B, d, d)")
    M = M.contiguous()
    S, d = torch.empty_like(M), M.shape[-1]
    launch(_forward, M.shape[0] * triton.cdiv(d, TILE) ** 2, M, S, d, TILE=TILE)
    return S
