"""Features of frozen encoders, computed once for each content and kept in the cache."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..encoders import Encoder
from ..encoders import encoder as encoder_by_name
from ..errors import UserError, near
from .cache import cache_dir, disk_errors
from .manifest import Item, Manifest


def features(manifest: Manifest, modality: str, encoder: str, progress: bool = True) -> tuple[Tensor, Tensor]:
    """Features of one modality of all items, in the manifest's order.

    ``encoder``: a name of `encoders`, or "vector" for modalities that hold vectors already. An item with several texts gets
    the mean of their features. Returns float32 (N, dim), zero where the modality is missing, and present, bool (N,).
    Raises UserError for an unknown modality or encoder, an item of another kind, and a file that is missing or cannot be read.
    """
    if modality not in manifest.modalities:
        raise UserError(f"modality: {manifest.path} has none called {modality!r}; {near(modality, manifest.modalities)}")
    entries = [item.modalities.get(modality) for item in manifest.items]
    present = torch.tensor([entry is not None for entry in entries])
    if not present.any():
        raise UserError(f"modality: {modality!r} is missing from every item of {manifest.path}")
    if encoder == "vector":
        rows = [_entry(item, modality, "vector") for item in manifest.items if item.modalities.get(modality) is not None]
        found = torch.tensor(rows, dtype=torch.float32)
    else:
        chosen = encoder_by_name(encoder)
        kind = "texts" if chosen.modality == "text" else "path"
        values = [_entry(item, modality, kind) for item in manifest.items if item.modalities.get(modality) is not None]
        values = values if kind == "texts" else [[manifest.root / value] for value in values]
        flat = cached(chosen, [content for group in values for content in group], progress)
        found = torch.stack([part.mean(0) for part in flat.split([len(group) for group in values])])
    x = found.new_zeros(len(entries), found.shape[1])
    x[present] = found
    return x, present


def cached(encoder: Encoder, contents: Sequence[str | Path], progress: bool = True) -> Tensor:
    """float32 (n, dim) features of texts (str) or files (Path), from the cache where their content was met before.

    Every batch is committed by itself, so an interrupt, or a file that cannot be read, loses one batch at most.
    """
    path = cache_dir() / "features" / f"{encoder.name}-{encoder.version}.sqlite"
    order = [_key(content) for content in contents]
    content_of = dict(zip(order, contents, strict=True))  # equal contents are encoded once
    with _database(path) as database:
        rows = {key: row for key in content_of if (row := _load(database, key, encoder.dim)) is not None}
        missing = [key for key in content_of if key not in rows]
        with tqdm(total=len(missing), desc=encoder.name, unit="item", disable=not (progress and missing)) as bar:
            for start in range(0, len(missing), encoder.batch):
                keys = missing[start : start + encoder.batch]
                batch = np.ascontiguousarray(encoder.encode([content_of[key] for key in keys]).numpy(), dtype=np.float32)  # (b, dim)
                for key, row in zip(keys, batch, strict=True):
                    if row.shape != (encoder.dim,) or not np.isfinite(row).all():
                        raise UserError(f"{content_of[key]}: {encoder.name} gave features of shape {row.shape} or not finite")
                    rows[key] = row
                with database:
                    database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", [(key, rows[key].tobytes()) for key in keys])
                bar.update(len(keys))
    return torch.from_numpy(np.stack([rows[key] for key in order])) if order else torch.zeros(0, encoder.dim)


def _entry(item: Item, modality: str, kind: str) -> object:
    entry = item.modalities[modality]
    if kind not in entry:
        raise UserError(f"item {item.id!r}: modality {modality!r}: the encoder takes {kind!r}, got an entry with {', '.join(entry)}")
    return entry[kind]


def _key(content: str | Path) -> bytes:
    if isinstance(content, str):
        return hashlib.sha256(content.encode()).digest()
    try:
        return hashlib.sha256(content.read_bytes()).digest()
    except OSError as error:
        raise UserError(f"{content}: cannot be read: {error.strerror}") from error


def _load(database: sqlite3.Connection, key: bytes, dim: int) -> np.ndarray | None:
    found = database.execute("SELECT value FROM features WHERE key = ?", (key,)).fetchone()
    if found is None or len(found[0]) != 4 * dim:
        return None
    row = np.frombuffer(found[0], np.float32)  # (dim,)
    return row if np.isfinite(row).all() else None


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path, timeout=60)) as database:
            database.execute("CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
            yield database
    except sqlite3.OperationalError as error:  # the disk is full, read-only, or locked by another process for a minute
        hint = "free some space, or set TRANSPHERE_CACHE to a folder that can be written"
        raise UserError(f"feature cache {path}: {error}; {hint}") from error
    except sqlite3.DatabaseError as error:
        raise UserError(f"feature cache {path} is damaged: {error}; delete the file, its features are computed again") from error
