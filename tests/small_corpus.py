"""Pictures, captions and sounds of 60 things in three kinds, and encoders that read off which one: a run on files in a second."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from PIL import Image

from transphere.training.errors import CorruptFile

THINGS, KINDS, LATENT = 60, 3, 6


def latent(number):
    """(6,) of a thing: its kind and itself."""
    kind = torch.randn(LATENT, generator=torch.Generator().manual_seed(1000 + number % KINDS))
    return kind + 0.7 * torch.randn(LATENT, generator=torch.Generator().manual_seed(number))


class _Fake:
    version, batch = "test", 16

    def encode(self, contents):
        weight = torch.randn(LATENT, self.dim, generator=torch.Generator().manual_seed(self.dim))
        return torch.stack([self.latent(content) @ weight for content in contents])


class FakeText(_Fake):
    name, dim, modality = "minilm-l6", 10, "text"

    def latent(self, text):
        if thing := re.search(r"thing (\d+)", text):
            return latent(int(thing[1]))
        kind = int(re.search(r"kind (\d+)", text)[1])
        return torch.stack([latent(k) for k in range(kind, THINGS, KINDS)]).mean(0)


class FakeImage(_Fake):
    name, dim, modality = "efficientnet-lite0", 12, "image"

    def latent(self, path):
        try:
            with Image.open(path) as image:
                return latent(image.convert("RGB").getpixel((0, 0))[0])
        except OSError as error:
            raise CorruptFile(f"{path}: not an image that can be read") from error


class FakeSound(_Fake):
    name, dim, modality = "moonshine-tiny", 8, "speech"

    def latent(self, path):
        return latent(int(Path(path).read_text()))


def install(monkeypatch, cache):
    """Let the three stand in for the real encoders, with a cache of their own."""
    from transphere.training.encoders import ENCODERS

    monkeypatch.setenv("TRANSPHERE_CACHE", str(cache))
    for fake in (FakeText, FakeImage, FakeSound):
        monkeypatch.setitem(ENCODERS, fake.name, fake)


def write(folder, missing_speech=()):
    """The files and the manifest; returns its path."""
    rows = []
    for k in range(THINGS):
        Image.new("RGB", (40, 30), (k, 200, 100)).save(folder / f"bild ü{k}.png")
        (folder / f"{k}.ogg").write_text(str(k))
        entries = {"image": {"path": f"bild ü{k}.png"}, "text": {"texts": [f"A thing {k} <b>&"]}, "speech": {"path": f"{k}.ogg"}}
        if k in missing_speech:
            entries["speech"] = None
        split = "train" if k % 10 < 6 else "val" if k % 10 < 8 else "test"
        row = {"id": f"id/{k}", "split": split, "group": f"g{k}", "label": f"kind_{k % KINDS}", "caption": f"thing {k}"}
        rows.append({**row, "modalities": entries})
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
