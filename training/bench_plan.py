"""What a step of a full model would take on many GPUs: a plan on paper, from what its parts were seen to hold and to compute on this CPU.

Memory: what autograd keeps of a forward pass is counted tensor by tensor, at a small batch, and is proportional to the items; weights,
gradients and the optimiser's moments follow from the parameters. Time: the operations of matrix products and convolutions, which are
nearly all, at a stated speed of the GPU. Nothing here was run on a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .bench_step import CLASSES, loss_of, random_inputs, tensors_of
from .config import Config
from .encoders.networks import pipeline
from .errors import UserError
from .heads import Embedding
from .model import build_model, build_objective

MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1}  # tensors of a parameter's size that an optimiser keeps
GIB = 2**30


@dataclass
class Part:
    """One modality: parameters; bytes kept for the backward pass, of a batch of any size and of each item; an item's operations."""

    parameters: int
    trained: int
    fixed: float  # the weights in bfloat16, where they are
    kept: float
    forward: float
    backward: float


@dataclass
class Plan:
    """Bytes on each GPU and seconds a step."""

    recipe: str
    batch: int  # items of a step, on all GPUs
    gpus: int
    speed: float  # operations a second that a GPU is taken to reach
    precision: str
    parts: dict[str, Part] = field(default_factory=dict)
    objective: int = 0  # trained parameters of the loss
    loss: float = 0.0  # bytes that the loss of the whole batch keeps
    moments: int = 2

    def memory(self) -> dict[str, float]:
        trained = self.objective + sum(part.trained for part in self.parts.values())
        return {
            "weights": 4.0 * (self.objective + sum(part.parameters for part in self.parts.values())),
            "gradients": 4.0 * trained,
            "moments of the optimiser": 4.0 * self.moments * trained,
            **{f"activations, {name}": part.fixed + part.kept * self.batch / self.gpus for name, part in self.parts.items()},
            "the loss, whole batch": self.loss,
        }

    def seconds(self) -> dict[str, float]:
        share = self.batch / self.gpus / self.speed
        return {name: share * (part.forward + part.backward) for name, part in self.parts.items()}

    def text(self) -> str:
        words = f"{self.recipe}: {self.batch} items on {self.gpus} GPUs, {self.precision}, {self.speed / 1e12:g} TFLOP/s each"
        lines = [f"A plan on paper, not a measurement. {words}"]
        for name, part in self.parts.items():
            counted = f"{part.parameters / 1e6:.1f} M parameters, {part.trained / 1e6:.1f} M trained"
            lines.append(f"  {name}: {counted}, an item {part.kept / 2**20:.1f} MiB, {(part.forward + part.backward) / 1e9:.1f} GFLOP")
        memory, seconds = self.memory(), self.seconds()
        lines += [f"{name:36}{value / GIB:10.2f} GiB" for name, value in [*memory.items(), ("on each GPU", sum(memory.values()))]]
        lines += [f"{name:36}{1e3 * value:10.1f} ms" for name, value in [*seconds.items(), ("a step", sum(seconds.values()))]]
        return "\n".join([*lines, f"{self.batch / sum(seconds.values()):.0f} items/s if reading, exchange and the loss cost nothing"])


def plan(config: Config, *, recipe: str = "", gpus: int = 16, speed: float = 100e12) -> Plan:
    """The plan of the model of `config` with random weights, from one and two items of each modality on the CPU.

    UserError for a recipe without encoders that read files or texts.
    """
    encoders = {name: replace(encoder, pretrained=None) for name, encoder in config.model.encoders.items()}
    readers = {name: pipeline(encoder) for name, encoder in encoders.items()}
    if not readers or None in readers.values():
        raise UserError(f"bench plan: {recipe or 'the recipe'}: expected encoders that read files or texts in model.encoders")
    half, batch = config.run.precision == "bf16", config.optim.batch_size
    made = Plan(recipe, batch, gpus, speed, config.run.precision, moments=MOMENTS[config.optim.name])
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = build_model(replace(config.model, encoders=encoders), dict.fromkeys(encoders, 0)).train()
        laws = {}
        for name, branch in model.items():

            def run(n: int, name: str = name, branch: nn.Module = branch) -> Embedding:
                x = random_inputs(readers[name], n)
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    return branch(x)

            _, one, _, _ = _seen(functools.partial(run, 1), branch.parameters())
            law, two, forward, backward = _seen(functools.partial(run, 2), branch.parameters())
            counts = [(p.numel(), p.requires_grad) for p in branch.parameters()]
            trained = sum(n for n, learns in counts if learns)
            made.parts[name] = Part(sum(n for n, _ in counts), trained, 2 * one - two, two - one, forward / 2, backward / 2)
            laws[name] = [x.detach().repeat(-(-batch // 2), *[1] * (x.ndim - 1))[:batch].requires_grad_() for x in tensors_of(law)]
        objective = build_objective(config.objective, config.model.dim, encoders, CLASSES)
        made.objective = sum(p.numel() for p in objective.parameters())
        made.loss = _seen(lambda: loss_of(objective, laws), objective.parameters())[1]
    return made


def _seen(run: Callable[[], Embedding], parameters: Iterable[nn.Parameter]) -> tuple[Embedding, float, float, float]:
    """What `run` gives, the bytes that autograd keeps of it but for parameters, and the operations forward and backward."""
    with FlopCounterMode(display=False) as forward, _kept({p.untyped_storage().data_ptr() for p in parameters}) as kept:
        result = run()
    roots = [x for x in tensors_of(result) if x.requires_grad]
    with FlopCounterMode(display=False) as backward:
        if roots:
            torch.autograd.backward(roots, [torch.ones_like(x) for x in roots])
    return result, float(sum(kept.values())), float(forward.get_total_flops()), float(backward.get_total_flops())


@contextmanager
def _kept(ours: set[int]) -> Iterator[dict[int, int]]:
    """{address: bytes} of the storages that are saved for a backward pass inside, each once, `ours` apart."""
    found: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in ours:
            found[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        yield found
