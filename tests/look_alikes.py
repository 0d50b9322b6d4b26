"""Small look-alikes of what corpora are built from, shared by their tests."""

import zlib

import numpy as np
import soundfile
import torch
from PIL import Image

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="30pt" height="20pt"><rect x="5" y="5" width="10" height="5" fill="{}"/></svg>'


class Thumbnail:
    """Stands in for Lite0: 8 x 8 pixels. Noise is then far from other noise, and white is near to white."""

    name, version, dim, modality, batch = "thumbnail", "1", 192, "image", 8

    def encode(self, contents):
        return torch.stack([torch.from_numpy(np.asarray(Image.open(c).resize((8, 8)), np.float32).reshape(-1)) for c in contents]) - 127


def sound(path, seed, seconds=0.2):
    soundfile.write(path, 0.3 * np.random.default_rng(seed).standard_normal(int(seconds * 44_100)), 44_100)


def stamp(root, name, english, languages=("fr", "es"), seed=None, svg=False, picture=True):
    """Writes one stamp; pictures and sounds are random but for the seed."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(name.encode()) % 10**6 if seed is None else seed
    rng = np.random.default_rng(seed)
    lines = [english, *(f"{code}.utf8={code} {english}" for code in ("de", "fr", "es"))]
    path.with_name(path.name + ".txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if svg:
        path.with_name(path.name + ".svg").write_text(SVG.format(f"#{seed % 0xFFFFFF:06x}"))
    elif picture:
        Image.fromarray(rng.integers(0, 255, (40, 60, 4), np.uint8)).save(path.with_name(path.name + ".png"))
    for number, code in enumerate(languages):
        sound(path.with_name(path.name + ("_desc.ogg" if code == "en" else f"_desc_{code}.ogg")), seed + number)
    return path
