"""The items in memory, or in files to be read, and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .config import Config, Data
from .data.features import features
from .data.manifest import Item, Manifest
from .encoders import ENCODERS
from .encoders.networks import pipeline
from .errors import UserError, near, under
from .model import Inputs
from .pipelines import Pipeline
from .pipelines.stream import samples_of, worker_count
from .seeding import derive


@dataclass(frozen=True)
class Batch:
    """Some items: what the encoders take, which modalities are there, and who they are.

    What lies in files is read when `stream` comes to it; until then the place of such a modality is held by the pipeline that will.
    """

    inputs: dict[str, Inputs | Pipeline]  # modality -> (B, dim) float32, zeros where missing; or a tensor or dict that its encoder takes
    present: dict[str, torch.Tensor]  # modality -> (B,) bool
    items: list[Item]
    root: Path = Path()  # of the items' paths
    workers: int = 0  # processes that read
    device: torch.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.items)

    @property
    def modalities(self) -> list[str]:
        return list(self.present)

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self.items]

    @property
    def dims(self) -> dict[str, int]:
        """modality -> the width of its features, 0 where files are read."""
        return {name: x.shape[1] if isinstance(x, torch.Tensor) else 0 for name, x in self.inputs.items()}

    def select(self, index: list[int]) -> Batch:
        """The items at these places, in this order; what lies in files stays there."""
        at = torch.as_tensor(index, dtype=torch.long)
        inputs = {name: _each(x, lambda part: part[at.to(part.device)]) for name, x in self.inputs.items()}
        present = {name: there[at.to(there.device)] for name, there in self.present.items()}
        return replace(self, inputs=inputs, present=present, items=[self.items[i] for i in index])

    def stream(self, index_lists: Iterable[list[int]], key: int | None = None) -> Iterator[Batch]:
        """The batches at these lists of places, whole, in order; files are read ahead by `workers` processes.

        key: that of the augmentation, one a training epoch; None does not augment. What comes is a function of (key, item) alone, whatever
        the number of workers and wherever the lists begin. UserError names a file that cannot be read.
        """
        readers = {name: x for name, x in self.inputs.items() if not isinstance(x, (torch.Tensor, dict))}
        if not readers:
            yield from map(self.select, index_lists)
            return
        for index, samples in samples_of(self.items, readers, self.root, index_lists, key, self.workers, self.device):
            batch = self.select(index)
            yield replace(batch, inputs=batch.inputs | {name: moved(x, self.device) for name, x in samples.items()})

    def split(self, name: str) -> Batch:
        """The items of one split; UserError when there is none."""
        chosen = [i for i, item in enumerate(self.items) if item.split == name]
        if not chosen:
            counts = ", ".join(f"{s} {sum(item.split == s for item in self.items)}" for s in ("train", "val", "test"))
            raise UserError(
                f"the manifest has no item in the split {name!r} (it has {counts}); fit with --set data.split_seed=0 divides them anew"
            )
        return self.select(chosen)

    def matchable(self) -> Batch:
        """The items with at least two modalities: no loss can learn from fewer."""
        count = torch.stack(list(self.present.values())).sum(0)  # (B,)
        return self.select((count >= 2).nonzero().flatten().tolist())

    def to(self, device: torch.device) -> Batch:
        inputs = {name: moved(x, device) for name, x in self.inputs.items()}
        return replace(self, inputs=inputs, present={name: there.to(device) for name, there in self.present.items()}, device=device)


def _each(x: Inputs | Pipeline, change: Callable[[torch.Tensor], torch.Tensor]) -> Inputs | Pipeline:
    """x with `change` made to its tensors."""
    if isinstance(x, dict):
        return {name: change(part) for name, part in x.items()}
    return change(x) if isinstance(x, torch.Tensor) else x


def moved(x: Inputs | Pipeline, device: torch.device) -> Inputs | Pipeline:
    """x on `device`."""
    return _each(x, lambda part: part.to(device, non_blocking=device.type == "cuda"))


def load_batch(manifest: Manifest, config: Config, progress: bool = True) -> Batch:
    """Every item of the manifest as one Batch on the CPU: features and vectors in memory, files to be read where an encoder is trained."""
    inputs, present = {}, {}
    for name, encoder in encoders_of(manifest, config.data, config.model.encoders).items():
        with under(f"model.encoders.{name}"):
            reader = pipeline(config.model.encoders[name]) if encoder == "trained" else None
        if encoder != "trained" or reader is None:
            inputs[name], present[name] = features(manifest, name, "vector" if encoder == "trained" else encoder, progress=progress)
        else:
            inputs[name] = reader
            with under(f"model.encoders.{name}"):
                reader.check(manifest.items)
            present[name] = torch.tensor([item.modalities.get(name) is not None for item in manifest.items])
    return Batch(inputs, present, list(manifest.items), manifest.root, worker_count(config.data.workers))


def load_features(manifest: Manifest, data: Data, progress: bool = True) -> Batch:
    """Every item of the manifest with the features that `data` names, as one Batch on the CPU."""
    return load_batch(manifest, Config(data=data), progress)


def encoders_of(manifest: Manifest, data: Data, trained: Container[str] = ()) -> dict[str, str]:
    """modality -> encoder for every modality that is used: a frozen one, "trained" for those of `trained`, "vector" for vectors."""
    for name in data.modalities:
        if name not in manifest.modalities:
            raise UserError(f"data.modalities: {manifest.path} has none called {name!r}; {near(name, manifest.modalities)}")
    for name, frozen in data.encoders.items():
        if frozen not in ENCODERS:
            raise UserError(f"data.encoders.{name}: unknown name {frozen!r}; {near(frozen, ENCODERS)}")
    chosen = {}
    for name in data.modalities or manifest.modalities:
        entry = next((item.modalities[name] for item in manifest.items if item.modalities.get(name)), None)
        if entry is None:
            if name in data.modalities:
                raise UserError(f"data.modalities: no item of {manifest.path} has {name!r}")
        elif name in trained:
            chosen[name] = "trained"
        elif "vector" in entry:
            chosen[name] = "vector"
        elif name in data.encoders:
            chosen[name] = data.encoders[name]
        elif name.partition("_")[0] in data.encoders:  # text_fr is encoded as text is
            chosen[name] = data.encoders[name.partition("_")[0]]
        else:
            fitting = [known for known, made in ENCODERS.items() if (made.modality == "text") == ("texts" in entry)]
            raise UserError(
                f"{manifest.path}: nothing says how to encode {name!r}; give --set data.encoders.{name}=NAME ({', '.join(fitting)}), "
                f"--set model.encoders.{name}=NAME (trained; docs/encoders.md), "
                "or name the modalities to use by data.modalities"
            )
    if len(chosen) < 2:
        raise UserError(f"{manifest.path}: expected at least two modalities to match, got {', '.join(chosen) or 'none'}")
    return chosen


def batches(n: int, batch_size: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """The places of n items in a random order, in batches of nearly equal size: at most batch_size, at least 2.

    Equal sizes rather than a small last batch: the contrastive loss of a batch depends on its size. Only 3 items in batches of 2 (and
    the like) make a batch one larger than batch_size, since a batch of one item has nothing to contrast with.
    """
    generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
    order = torch.randperm(n, generator=generator).tolist()
    count = max(1, min(-(-n // batch_size), n // 2))
    for k in range(count):
        yield order[k * n // count : (k + 1) * n // count]
