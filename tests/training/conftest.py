"""What the tests of the training engine share: a synthetic corpus of vectors that trains in a second, and look-alikes of datasets."""

from __future__ import annotations

import json

import pytest
import torch

from transphere.training.data.convert import convert
from transphere.training.data.fakes import fake
from transphere.training.data.manifest import Manifest

TINY = [
    "model.dim=16",
    "model.hidden=32",
    "objective.n_samples=4",
    "objective.n_projections=8",
    "optim.epochs=4",
    "optim.batch_size=32",
    "run.eval_samples=8",
    "run.eval_every=1",
    "run.patience=0",
    "run.device=cpu",
]


def make_manifest(path, items=90, missing=0.0, seed=0, modalities=(("image", 12), ("text", 10), ("speech", 8)), noise=0.3):
    """Write a manifest of vectors that are noisy linear images of one latent vector per item; every fourth item shares a caption."""
    generator = torch.Generator().manual_seed(seed)
    maps = {name: torch.randn(6, dim, generator=generator) for name, dim in modalities}
    rows = []
    for i in range(items):
        latent = torch.randn(6, generator=generator)
        entries = {}
        for number, (name, dim) in enumerate(modalities):
            vector = latent @ maps[name] + noise * torch.randn(dim, generator=generator)
            # The first modality is always there, so that no item is empty.
            gone = number > 0 and float(torch.rand(1, generator=generator)) < missing
            entries[name] = None if gone else {"vector": [round(float(v), 4) for v in vector]}
        split = "train" if i % 10 < 6 else "val" if i % 10 < 8 else "test"
        row = {
            "id": f"kind{i % 3}/item{i:03d}",
            "split": split,
            "group": f"g{i}",
            "label": f"kind{i % 3}",
            "caption": f"thing {i - i % 4 // 3}",
        }
        rows.append({**row, "modalities": entries})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def tiny():
    """--set texts that make any recipe end in about a second."""
    return list(TINY)


@pytest.fixture
def manifest(tmp_path):
    """A manifest of 90 items with three modalities given as vectors."""
    return make_manifest(tmp_path / "manifest.jsonl")


@pytest.fixture
def write_manifest():
    """The function that writes such a manifest, for tests that need another one."""
    return make_manifest


@pytest.fixture
def one_thread():
    """Threads cost more than they give on tensors this small, and far more on a machine that others use too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def made(tmp_path):
    """A function that writes a look-alike and converts it: (items by id, what could not be used)."""

    def make(name, n=12, **options):
        folder = tmp_path / name
        if not folder.exists():
            fake(name, folder, n)
        manifest, faults = convert(name, folder, progress=False, overwrite=True, **options)
        assert manifest == Manifest.read(manifest.path)
        for item in manifest.items:
            for entry in item.modalities.values():
                assert entry is None or "path" not in entry or (manifest.root / entry["path"]).is_file()
        return {item.id: item for item in manifest.items}, faults

    return make
