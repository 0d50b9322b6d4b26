"""Anderson's acceleration of an iteration, for a batch of problems at a time and without reading anything back."""

import torch
from torch import Tensor

RIDGE = 1e-8  # relative to the diagonal: differences are nearly parallel
FURTHEST = 5.0  # in logarithms: what goes further is noise
WORSE = 10.0  # times the lowest error: the history begins anew
QUICK = 0.05  # times the last error: an iteration that is quick by itself is left alone


class Anderson:
    """Of the last few updates of x the affine combination whose steps cancel best in the norm that weights give, in turns with plain ones
    (docs/mathematics.md, "Acceleration"). x: (B, m) in float64; each of the B problems begins its history anew by itself. dimensions:
    (B, 1), those in which x moves; no more updates are combined, since they would be dependent."""

    def __init__(self, weights: Tensor, dimensions: Tensor, memory: int = 12) -> None:
        self.weights, self.count = weights, 0                                                # (B, m)
        self.steps = self.weights.new_zeros(weights.shape[0], memory, weights.shape[1])      # (B, k, m): differences of steps,
        self.moves = torch.zeros_like(self.steps)                                            # and of what updates led to
        self.products = self.steps.new_zeros(weights.shape[0], memory, memory)               # of the steps with each other
        self.limit = dimensions.clamp(1, memory)                                             # (B, 1)
        self.place = torch.arange(memory, device=weights.device)                             # (k)
        self.held = torch.zeros_like(self.weights[:, :1], dtype=torch.bool)                  # (B, 1): whether there is a last update
        self.step = self.x = torch.zeros_like(self.weights)
        self.lowest = torch.full_like(self.weights[:, :1], torch.inf)
        self.last = torch.zeros_like(self.lowest)

    def moved(self, shift: Tensor) -> None:
        """x is `shift` (B, m) less from now on."""
        self.x = self.x - shift

    def move(self, x: Tensor, step: Tensor, error: Tensor) -> Tensor:
        """(B, m), by how much to go on from x, where an update by `step` has led; error, (B, 1): that before it."""
        worse = error > WORSE * self.lowest
        plain = worse | (error < QUICK * self.last) | bool(self.count % 2)
        self.lowest = torch.where(worse, torch.inf, torch.minimum(self.lowest, error))
        self.last = torch.where(worse, 0, error)
        known, k = (self.held & ~worse)[:, :, None], self.count % self.steps.shape[1]
        self.steps[:, k : k + 1] = torch.where(known, (step - self.step)[:, None], 0)
        self.moves[:, k : k + 1] = torch.where(known, (x - self.x)[:, None], 0)
        self._forget(worse)
        self.x, self.step, self.held, self.count = x, step, ~worse, self.count + 1

        # With the newest difference, and with the step itself.
        dots = self.steps @ (self.weights[:, :, None] * torch.stack([self.steps[:, k], step], 2))  # (B, k, 2)
        self.products[:, k] = self.products[:, :, k] = dots[:, :, 0]
        square = self.products.diagonal(dim1=1, dim2=2)
        recent = (k - self.place) % len(self.place) < self.limit                             # (B, k)
        scale = torch.where((square > 0) & recent, square.rsqrt(), 0)
        equal = scale[:, :, None] * self.products * scale[:, None]
        equal.diagonal(dim1=1, dim2=2).fill_(1 + RIDGE)                                      # an empty place has no other entry
        along = scale[:, :, None] * dots[:, :, 1:]
        combination = torch.linalg.solve_ex(equal, along)[0] * scale[:, :, None]             # (B, k, 1)
        move = -(self.moves.mT @ combination)[:, :, 0]
        far = ~(move.abs().amax(1, keepdim=True) <= FURTHEST)                                # or not a number
        self._forget(far)
        self.held = self.held & ~far
        return torch.where(plain | far, 0, move)

    def _forget(self, which: Tensor) -> None:
        for kept in (self.steps, self.moves, self.products):
            kept.masked_fill_(which[:, :, None], 0)
