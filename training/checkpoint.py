"""The files of a run: each is either whole or not there."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .data.cache import disk_errors, replacing
from .errors import UserError


def write(path: Path, content: str | bytes) -> None:
    """Write a whole file, atomically and through to the disk; UserError when the disk refuses, and what was there stays."""
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise UserError(f"cannot write {path}: {error.__cause__.strerror}; what was written before is whole") from None


def write_json(path: Path, value: object) -> None:
    write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict | None:
    """The object in a file, or None where there is no such file; UserError for one that holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return value
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def save_state(path: Path, state: dict) -> None:
    """Tensors, numbers and strings of a run that shall go on. The state saved before stays, under the name `previous(path)`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    fresh = path.with_suffix(".new")
    write(fresh, buffer.getvalue())
    with disk_errors(path):
        if path.exists():
            os.replace(path, previous(path))
        os.replace(fresh, path)


def previous(path: Path) -> Path:
    """Where the state before that in `path` is: last.pt, last-previous.pt."""
    return path.with_stem(path.stem + "-previous")


def repair(path: Path) -> bool:
    """Is there a state to go on from? Where `path` is missing or cannot be read, the one before takes its place, with a message.

    UserError when there are files, and none can be read.
    """
    broken: UserError | None = None
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        try:
            step = load_state(candidate).get("step")
        except UserError as error:
            broken = broken or error
            continue
        if candidate != path:
            why = f"{path} cannot be read" if broken else f"{path} is missing"
            print(f"{why}: going on from the checkpoint before it, {candidate.name}, of step {step}", file=sys.stderr)
            with disk_errors(path):
                os.replace(candidate, path)
        return True
    if broken:
        raise broken
    return False


def load_state(path: Path) -> dict:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("it holds something else")
        return state
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        first = str(error).splitlines()[0].partition(". ")[0] if str(error) else "it ends too early"
        raise UserError(f"{path}: not a readable checkpoint ({first}); delete it to start the run anew") from None


def save_weights(path: Path, weights: dict[str, torch.Tensor], facts: dict) -> None:
    """The weights alone, in the safetensors format, with a few facts beside them (one entry: its format does not keep their order)."""
    write(path, save({name: x.detach().cpu().contiguous() for name, x in weights.items()}, metadata={"transphere": json.dumps(facts)}))


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The weights and the facts of `save_weights`."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; the run has no best checkpoint yet")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["transphere"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 (it is no mapping)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not readable weights of a run ({error})") from None
