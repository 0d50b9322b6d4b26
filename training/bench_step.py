"""What a training step of a full model costs, on random weights: time and memory by section, the share of each loss, and whether files can
be read as fast as the model takes them."""

from __future__ import annotations

import contextlib
import inspect
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor, nn

from transphere import VonMisesFisher

from .batch import Batch, moved
from .config import Config
from .data.manifest import Item
from .distributed import World, pick_device
from .encoders.networks import pipeline
from .errors import UserError
from .heads import Embedding
from .model import Inputs, build_model, build_objective, parameter_groups
from .optim import build_optimizer
from .pipelines import Pipeline
from .pipelines.picture import Picture
from .pipelines.stream import worker_count
from .run import environment
from .step import Step

CLASSES = [str(number) for number in range(101)]  # as many as UCF-101 has


@dataclass
class Report:
    """Milliseconds, medians over the steps, and bytes."""

    recipe: str
    batch: int
    encoders: dict[str, dict]  # modality -> name, parameters, how many are trained
    sections: dict[str, float] = field(default_factory=dict)  # they add up to the step
    losses: dict[str, float] = field(default_factory=dict)  # a loss alone, forward and backward to the embeddings
    memory: dict[str, float] = field(default_factory=dict)
    loader: dict[str, float] = field(default_factory=dict)
    environment: dict = field(default_factory=dict)

    @property
    def step(self) -> float:
        return sum(self.sections.values())

    @property
    def overhead(self) -> float | None:
        """The time that L_S adds to a step of the baseline, as a share of that (ISMIR 2024, supplement, table 1); None without L_S."""
        if not {"contrastive", "harnessed"} <= self.losses.keys():
            return None
        more = self.losses["harnessed"] - self.losses["contrastive"]
        return more / (self.step - more)

    def text(self) -> str:
        lines = [f"{self.recipe}: {self.batch} items a step, {self.environment['machine']}, GPU: {self.environment['gpu']}"]
        for name, e in self.encoders.items():
            lines.append(f"  {name}: {e['name']}, {e['parameters'] / 1e6:.1f} M parameters, {e['trained'] / 1e6:.1f} M of them trained")
        for name, ms in [*self.sections.items(), ("step", self.step)]:
            lines.append(f"{name:36}{ms:12.1f} ms{100 * ms / self.step:9.2f} %")
        for name, ms in self.losses.items():
            lines.append(f"{name + ' alone':36}{ms:12.1f} ms{100 * ms / self.step:9.2f} %")
        if self.overhead is not None:
            lines.append(f"L_S adds {100 * self.overhead:.2f} % to a step of the baseline, which has L_C alone")
        lines += [f"{name:36}{value / 2**20:12.1f} MiB" for name, value in self.memory.items()]
        if self.loader:
            takes = f"the model takes {1e3 * self.batch / self.step:.1f}"
            lines.append(f"reading alone: {self.loader['items_per_second']:.1f} items/s by {self.loader['workers']:.0f} processes; {takes}")
        return "\n".join(lines)


def bench_step(config: Config, *, recipe: str = "", batch: int | None = None, steps: int = 3, loader: bool = True) -> Report:
    """Measure a step of the model of `config`, with random weights, on `batch` random items (by default as many as the recipe has), in the
    chunks that optim.accumulate says. steps: how many after one to warm up; 0: that one alone.

    UserError for a recipe without encoders that are trained, and for chunks with a BatchNorm in training.
    """
    if not config.model.encoders:
        raise UserError(f"bench step: {recipe or 'the recipe'} has no model.encoders; the heads over features train in milliseconds")
    encoders = {name: replace(encoder, pretrained=None) for name, encoder in config.model.encoders.items()}
    readers = {name: pipeline(encoder) for name, encoder in encoders.items()}
    if None in readers.values():
        raise UserError("bench step: expected encoders that read files or texts; vectors have no fixed width")
    config = config.replace(model={"encoders": encoders}, optim={"batch_size": batch or config.optim.batch_size})
    device, size = pick_device(config.run.device), config.optim.batch_size
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        work = _Work(config, device)
        counts = {name: _counts(branch.encoder) for name, branch in work.model.items()}
        report = Report(recipe, size, {name: {"name": encoders[name].name, **counts[name]} for name in encoders})
        inputs = {name: moved(random_inputs(reader, size), device) for name, reader in readers.items()}
        clock = _Clock(device)
        report.memory["weights and inputs"] = clock.memory()
        for step in range(steps + 1):
            embeddings = work.step(inputs, clock)
            if step == 0 < steps:  # it allocates, and warms up
                clock.seconds.clear()
        report.sections, report.memory["peak of a step"] = clock.medians(), clock.peak()
        report.losses, report.memory["losses alone, over what is held"] = work.losses(embeddings, max(5, steps))
    report.environment = environment()
    if loader:
        report.loader = reading_rate(config)
    return report


class _Work:
    """A model in training, one section after the other."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self.model = build_model(config.model, dict.fromkeys(config.model.encoders, 0)).to(device).train()
        self.objective = self.loss(config.objective.name)
        self.optimizer = build_optimizer(config.optim, parameter_groups(self.model, self.objective, lr=config.optim.lr))
        self.passes = Step(self.model, config, World(device=device))
        self.passes.check()

    def loss(self, name: str) -> nn.Module:
        made = replace(self.config.objective, name=name)
        return build_objective(made, self.config.model.dim, self.config.model.encoders, CLASSES).to(self.device)

    def step(self, inputs: dict[str, Inputs], clock: _Clock) -> dict[str, Embedding]:
        out = self._whole(inputs, clock) if self.config.optim.accumulate == 1 else self._in_chunks(inputs, clock)
        with clock("optimiser"):
            self.optimizer.step()
            if hasattr(self.objective, "project_"):
                self.objective.project_()
            self.optimizer.zero_grad()
        return out

    def _in_chunks(self, inputs: dict[str, Inputs], clock: _Clock) -> dict[str, Embedding]:
        """As the trainer takes a step with optim.accumulate."""
        size = self.config.optim.batch_size
        present = {name: torch.ones(size, dtype=torch.bool) for name in inputs}
        batch = Batch(inputs, present, [Item(str(i), "train", str(i), "", {}) for i in range(size)], device=self.device)
        with clock("embedding, without a graph"):
            done = self.passes.embed(batch, 0, size, seed=0)
        with clock("loss, forward and backward"):
            loss_of(self.objective, done.leaves).backward()
        with clock("chunks again, forward and backward"):
            self.passes.backward(done)
        return done.laws

    def _whole(self, inputs: dict[str, Inputs], clock: _Clock) -> dict[str, Embedding]:
        out: dict[str, Embedding] = {}
        half = self.config.run.precision == "bf16"
        for name, x in inputs.items():
            with clock(f"{name}, forward"), torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                out[name] = self.model[name](x)
        with clock("loss, forward and backward"):
            leaves = _leaves(out)
            loss_of(self.objective, leaves).backward()
        with clock("encoders and heads, backward"):
            roots = [x for law in out.values() for x in tensors_of(law)]
            slopes = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for own in leaves.values() for leaf in own]
            torch.autograd.backward(roots, slopes)
        return out

    def losses(self, embeddings: dict[str, Embedding], repeats: int) -> tuple[dict[str, float], float]:
        """Milliseconds of the loss, and beside L of its parts L_C and L_S, each by itself; and the memory that they add."""
        name = self.config.objective.name
        clock = _Clock(self.device)
        before = clock.memory()
        for part in ("harnessed", "contrastive", "sliced") if name == "harnessed" else (name,):
            loss = self.objective if part == name else self.loss(part)
            for repeat in range(repeats + 1):
                leaves = _leaves(embeddings)
                with clock(part):
                    loss_of(loss, leaves).backward()
                if repeat == 0:
                    clock.seconds[part].clear()
        return clock.medians(), max(0.0, clock.peak() - before)


class _Clock:
    """Seconds by section, and memory: of the GPU's allocator, or of the process (its peak since the clock was made)."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, defaultdict(list)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew

    @contextlib.contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        self.seconds[section].append(time.perf_counter() - started)

    def medians(self) -> dict[str, float]:
        return {section: 1e3 * statistics.median(values) for section, values in self.seconds.items()}

    def memory(self) -> float:
        return float(torch.cuda.memory_allocated(self.device)) if self.device.type == "cuda" else _status("VmRSS")

    def peak(self) -> float:
        return float(torch.cuda.max_memory_allocated(self.device)) if self.device.type == "cuda" else _status("VmHWM")

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _status(key: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(key))
    except (OSError, StopIteration):  # no Linux
        return float("nan")


def tensors_of(law: Embedding) -> tuple[Tensor, ...]:
    """Mean direction and concentration of a distribution, or a point by itself."""
    return (law.loc, law.concentration) if isinstance(law, VonMisesFisher) else (law,)


def _leaves(embeddings: dict[str, Embedding]) -> dict[str, list[Tensor]]:
    return {name: [x.detach().clone().requires_grad_() for x in tensors_of(law)] for name, law in embeddings.items()}


def loss_of(loss: nn.Module, leaves: Mapping[str, Sequence[Tensor]]) -> Tensor:
    """The loss of the embeddings that `tensors_of` took apart; of labels one after the other where it classifies."""
    laws = {name: VonMisesFisher(*x, validate_args=False) if len(x) == 2 else x[0] for name, x in leaves.items()}
    if "labels" not in inspect.signature(loss.forward).parameters:
        return loss(laws)[0]
    first = next(iter(leaves.values()))[0]
    return loss(laws, labels=torch.arange(len(first), device=first.device) % len(CLASSES))[0]


def _counts(encoder: nn.Module) -> dict[str, int]:
    sizes = [(p.numel(), p.requires_grad) for p in encoder.parameters()]
    return {"parameters": sum(n for n, _ in sizes), "trained": sum(n for n, trained in sizes if trained)}


def random_inputs(reader: Pipeline, size: int) -> Inputs:
    """A batch of the shape that the pipeline makes: of longest texts, random numbers for floats."""
    words = reader.of_text("word " * 1000) if reader.kind == "texts" else reader.blank()
    batch = reader.collate([words] * size)
    parts = batch if isinstance(batch, dict) else {"": batch}
    drawn = {name: torch.randn_like(x) if x.is_floating_point() else x for name, x in parts.items()}
    return drawn if isinstance(batch, dict) else drawn[""]


def reading_rate(config: Config, batches: int = 4, limit: int = 64) -> dict[str, float]:
    """Items a second that `data.workers` processes read from files of usual sizes: sound of 30 s at 44.1 kHz (flac), pictures of 1280 x 720
    (JPEG), texts of the template or of ten words; with the recipe's augmentation. Batches of at most `limit`."""
    size = min(config.optim.batch_size, limit)
    readers = {name: pipeline(encoder) for name, encoder in config.model.encoders.items()}
    with tempfile.TemporaryDirectory() as folder:
        entries = {name: _sample(reader, Path(folder)) for name, reader in readers.items()}
        fields = {field for reader in readers.values() for field in getattr(reader, "fields", ())}
        item = Item("0", "train", "0", "", entries, meta=dict.fromkeys(fields, "three more words"))
        items = [replace(item, id=str(i)) for i in range(size)]
        for reader in readers.values():
            reader.check(items)
        workers = worker_count(config.data.workers)
        present = {name: torch.ones(size, dtype=torch.bool) for name in readers}
        ahead = max(1, 2 * workers)  # what the workers have begun before the clock starts
        stream = Batch(readers, present, items, Path(folder), workers).stream([list(range(size))] * (ahead + batches), key=0)
        for _ in range(ahead):
            next(stream)
        started = time.perf_counter()
        for _ in stream:
            pass
        seconds = time.perf_counter() - started
    return {"items_per_second": batches * size / seconds, "workers": workers}


def _sample(reader: Pipeline, folder: Path) -> dict:
    random = np.random.default_rng(0)
    if reader.kind == "texts":
        return {"texts": ["ten words are what a usual caption may well have"]}
    if isinstance(reader, Picture):
        small = Image.fromarray(random.integers(0, 255, (36, 64, 3), dtype=np.uint8))
        small.resize((1280, 720), Image.Resampling.BICUBIC).save(folder / "picture.jpg", quality=90)
        return {"path": "picture.jpg"}
    soundfile.write(folder / "sound.flac", 0.1 * random.normal(size=30 * 44_100), 44_100)
    return {"path": "sound.flac"}
