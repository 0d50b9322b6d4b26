"""All noise is a function of (seed, purpose, step, item): there is no state of a generator to save, and k processes draw what one does."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def derive(seed: int, *purpose: object) -> int:
    """A 63-bit seed for `purpose`, e.g. derive(0, "epoch", 3).

    Stateless on purpose: the noise of epoch 3 does not depend on what was drawn before it, so a resumed run needs no saved generator.
    """
    text = ":".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Dropout(nn.Dropout):
    """nn.Dropout, whose mask for an item depends on the key of its row alone, once `key_rows` has given the rows keys.

    The mask of torch's own depends on how many rows come before, so on how a batch is shared out. Rows are the first dimension.
    """

    keys: Tensor | None = None  # (B,) int32

    def forward(self, x: Tensor) -> Tensor:
        """x, (B, ...), with a share p of its entries 0 and the others divided by 1 - p; x itself out of training."""
        if self.keys is None or not self.training or self.p == 0:
            return super().forward(x)
        columns = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device)
        word = _mix(self.keys[:, None] ^ _mix(columns)) & 0x7FFFFFFF                         # (B, columns), 31 bits
        return torch.where((word >= self.p * 2**31).view_as(x), x / (1 - self.p), 0.0)


def key_rows(model: nn.Module, seed: int, first: int, rows: int, device: torch.device) -> None:
    """What is drawn in the next forward pass of `rows` items, the first of which is number `first` of its batch, comes from `seed`.

    By item in every `Dropout`. All else (a transformer's own dropout) draws from torch's generator, seeded by `seed` and `first`: the same
    again in a second pass and in a resumed run, but not where a batch is cut otherwise.
    """
    torch.manual_seed(derive(seed, "rows", first))
    places = torch.arange(first, first + rows, dtype=torch.int32, device=device)
    for layer, module in enumerate(m for m in model.modules() if isinstance(m, Dropout)):
        module.keys = _mix(places + (derive(seed, "layer", layer) % 2**32 - 2**31))


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit words whose every output bit depends on every input bit: two rounds of multiply and fold. int32 in and out."""
    for multiplier, shift in ((0x7FEB352D, 15), (0x846CA68B - 2**32, 16)):
        x = (x ^ ((x >> 16) & 0xFFFF)) * multiplier
        x = x ^ ((x >> shift) & (2 ** (32 - shift) - 1))
    return x
