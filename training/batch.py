"""Features in memory and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from .config import Data
from .data.features import features
from .data.manifest import Item, Manifest
from .encoders import ENCODERS
from .errors import UserError, near
from .seeding import derive


@dataclass(frozen=True)
class Batch:
    """Some items: what the encoders take, which modalities are there, and who they are."""

    inputs: dict[str, torch.Tensor]  # modality -> (B, dim) float32, zeros where missing
    present: dict[str, torch.Tensor]  # modality -> (B,) bool
    items: list[Item]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self.items]

    def select(self, index: list[int]) -> Batch:
        """The items at these places, in this order."""
        at = torch.as_tensor(index, dtype=torch.long)
        return Batch(
            {name: x[at.to(x.device)] for name, x in self.inputs.items()},
            {name: there[at.to(there.device)] for name, there in self.present.items()},
            [self.items[i] for i in index],
        )

    def split(self, name: str) -> Batch:
        """The items of one split; UserError when there is none."""
        chosen = [i for i, item in enumerate(self.items) if item.split == name]
        if not chosen:
            counts = {s: sum(item.split == s for item in self.items) for s in ("train", "val", "test")}
            raise UserError(f"the manifest has no item in the split {name!r} (it has {counts})")
        return self.select(chosen)

    def matchable(self) -> Batch:
        """The items with at least two modalities: no loss can learn from fewer."""
        count = torch.stack(list(self.present.values())).sum(0)  # (B,)
        return self.select((count >= 2).nonzero().flatten().tolist())

    def stream(self, index_lists: Iterable[list[int]], key: int) -> Iterator[Batch]:
        """The batches of the items at these places, one after the other. `key` is that of the noise on inputs; features have none."""
        for index in index_lists:
            yield self.select(index)

    def to(self, device: torch.device) -> Batch:
        return Batch(
            {name: x.to(device) for name, x in self.inputs.items()},
            {name: there.to(device) for name, there in self.present.items()},
            self.items,
        )


def load_features(manifest: Manifest, data: Data, progress: bool = True) -> Batch:
    """Every item of the manifest with the features that `data` names, as one Batch on the CPU."""
    inputs, present = {}, {}
    for name, encoder in encoders_of(manifest, data).items():
        inputs[name], present[name] = features(manifest, name, encoder, progress=progress)
    return Batch(inputs, present, list(manifest.items))


def encoders_of(manifest: Manifest, data: Data) -> dict[str, str]:
    """modality -> encoder for every modality that is used; "vector" for one that the manifest holds as vectors."""
    for name in data.modalities:
        if name not in manifest.modalities:
            raise UserError(f"data.modalities: {manifest.path} has none called {name!r}; {near(name, manifest.modalities)}")
    chosen = {}
    for name in data.modalities or manifest.modalities:
        entry = next((item.modalities[name] for item in manifest.items if item.modalities.get(name)), None)
        if entry is None:
            if name in data.modalities:
                raise UserError(f"data.modalities: no item of {manifest.path} has {name!r}")
        elif "vector" in entry:
            chosen[name] = "vector"
        elif name in data.encoders:
            chosen[name] = data.encoders[name]
        else:
            raise UserError(
                f"{manifest.path}: nothing says how to encode {name!r}; give --set data.encoders.{name}=NAME ({', '.join(ENCODERS)}), "
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
