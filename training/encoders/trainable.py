"""What encoders that are trained with the model have in common: an interface, freezing, and recomputation."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from torch import nn
from torch.utils.checkpoint import checkpoint

from ..config import Encoder
from ..errors import UserError
from ..pipelines import Pipeline


class Trainable(nn.Module):
    """An encoder that lives in a Branch: what its pipeline reads, to one vector an item.

    ``d_out``: the width of the vector. ``forward(x)``: (B, ...) or a dict of such, as the pipeline gives it, to (B, d_out).
    """

    d_out: int
    frozen = 0  # layers that are not trained, -1: none is
    in_memory = False  # whether its items are vectors, not files or texts

    @classmethod
    def build(cls, config: Encoder) -> Trainable:
        """The encoder that `config` describes: with pretrained weights where it names some, else with random ones."""
        raise NotImplementedError

    @classmethod
    def pipeline(cls, config: Encoder) -> Pipeline:
        """What reads an item of this encoder's modality."""
        raise NotImplementedError

    def layers(self) -> list[list[nn.Module]]:
        """The network from its input to its output: the stem, then one entry a layer. What is in none of them is always trained."""
        raise NotImplementedError

    def freeze(self, count: int) -> None:
        """Keep the stem and the first `count` layers as they are, batch norms and dropout included; 0: nothing, -1: the whole encoder."""
        layers = self.layers()
        if count > len(layers) - 1:
            raise UserError(f"freeze: expected at most its {len(layers) - 1} layers, or -1 for the whole encoder, got {count}")
        self.frozen = count
        for module in [self] if count < 0 else self._frozen_modules():
            module.requires_grad_(False)
        self.train(self.training)

    def _frozen_modules(self) -> list[nn.Module]:
        return [module for layer in self.layers()[: self.frozen + 1] for module in layer] if self.frozen > 0 else []

    def train(self, mode: bool = True) -> Trainable:
        """Training mode for what is trained; what is frozen stays in evaluation mode."""
        super().train(mode and self.frozen >= 0)
        for module in self._frozen_modules():  # looked up each time: a batch norm may have been replaced by one over all processes
            module.eval()
        return self

    def recompute(self) -> None:
        """Forget the activations inside the layers and compute them again in the backward pass: less memory for a third more time."""
        for layer in self.layers()[1:]:
            for module in layer:
                module.forward = functools.partial(
                    checkpoint, module.forward, use_reentrant=False, context_fn=functools.partial(_contexts, module)
                )


def _contexts(module: nn.Module) -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
    return contextlib.nullcontext(), _statistics_kept(module)


@contextlib.contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """The second forward pass must not count its batch into the running statistics again."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)

