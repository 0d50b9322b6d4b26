"""From a new text or file to a point of a run's sphere: its own encoder, its model, the mean of the samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .batch import encoders_of
from .data.features import cached
from .data.manifest import Item
from .encoders import ENCODERS, encoder
from .encoders.networks import pipeline
from .errors import UserError, near
from .evaluator import draw, joint_mean
from .heads import location
from .model import Inputs
from .pipelines.picture import Picture
from .seeding import derive

if TYPE_CHECKING:
    from .run import Run

CHUNK = 64  # contents that are encoded at a time
TEXT, IMAGE = "text", "image"  # what an encoder may take; any other kind is a sort of sound


def encoder_names(run: Run) -> dict[str, str]:
    """modality -> name of its frozen encoder, "trained" or "vector"."""
    return encoders_of(run.manifest, run.config.data, run.config.model.encoders)


def kind_of(run: Run, modality: str) -> str:
    """What the modality's encoder takes: "text", "image", "speech", ..., or "vector"."""
    name = encoder_names(run)[modality]
    if name != "trained":
        return name if name == "vector" else ENCODERS[name].modality
    reader = pipeline(run.config.model.encoders[modality])
    if reader is None:
        return "vector"
    return TEXT if reader.kind == "texts" else IMAGE if isinstance(reader, Picture) else "audio"


def modality_for(run: Run, flag: str) -> str:
    """The one modality of the run that --text, --image or --audio means; UserError where there is none, or several."""
    found = [name for name in run.facts["dims"] if _answers(kind_of(run, name), flag)]
    if len(found) == 1:
        return found[0]
    kinds = ", ".join(f"{name} ({kind_of(run, name)})" for name in run.facts["dims"])
    problem = f"several take it: {', '.join(found)}" if found else "none of the run's modalities is encoded from it"
    raise UserError(f"--{flag}: {problem}; say which by --query MODALITY={'TEXT' if flag == TEXT else 'FILE'}; the run has {kinds}")


def _answers(kind: str, flag: str) -> bool:
    return kind == flag if flag in (TEXT, IMAGE) else kind not in (TEXT, IMAGE, "vector")


def check_modality(run: Run, name: str, where: str) -> str:
    """The name back, or UserError: the run has no such modality."""
    if name not in run.facts["dims"]:
        raise UserError(f"{where}: the run has no modality {name!r}; {near(name, run.facts['dims'])}")
    return name


def encode(run: Run, modality: str, contents: Sequence[str]) -> Inputs:
    """What the model takes for n new contents: texts as they are, else paths of files.

    A vector modality takes the path of a JSON list or of a .npy file, or the list itself. Features of frozen encoders are kept in the
    cache by content. Raises UserError for a file that is missing or cannot be read, an empty text, and vectors of another length.
    """
    name, kind, dim = encoder_names(run)[modality], kind_of(run, modality), run.facts["dims"][modality]
    blank = [content for content in contents if not content.strip()]
    if blank:
        raise UserError(f"query {modality}: expected a {'text' if kind == TEXT else 'file'}, got nothing")
    values = list(contents) if kind == TEXT else [Path(content) for content in contents]
    gone = [value for value in values if kind not in (TEXT, "vector") and not value.is_file()]
    if gone:
        raise UserError(f"query {modality}: {gone[0]}: no such file")
    if kind == "vector":
        x = torch.tensor(np.stack([_vector(content, modality, dim) for content in contents]), dtype=torch.float32)
    elif name == "trained":
        reader = pipeline(run.config.model.encoders[modality])
        item = Item("query", "test", "query", "", {})
        x = reader.collate([reader.read([value] if kind == TEXT else value, item, None) for value in values])
    else:
        x = cached(encoder(name), values, progress=False)
    device = next(run.model.parameters()).device
    return x.to(device) if isinstance(x, torch.Tensor) else {key: part.to(device) for key, part in x.items()}


def _vector(content: str, modality: str, dim: int) -> np.ndarray:
    try:
        if content.lstrip().startswith("["):
            value = np.asarray(json.loads(content), dtype=np.float64)
        elif content.endswith(".npy"):
            value = np.load(content, allow_pickle=False).astype(np.float64)
        else:
            value = np.asarray(json.loads(Path(content).read_text(encoding="utf-8")), dtype=np.float64)
    except OSError as error:
        raise UserError(f"query {modality}: {content}: cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"query {modality}: {content[:80]}: expected a list of numbers, as JSON or .npy ({error})") from None
    if value.shape != (dim,) or not (np.abs(value) <= np.finfo(np.float32).max).all():
        got = f"shape {value.shape}" if value.shape != (dim,) else "some that are not"
        raise UserError(f"query {modality}: {content[:80]}: expected a list of {dim} finite numbers, got {got}")
    return value


@torch.no_grad()
def samples(run: Run, modality: str, contents: Sequence[str], purpose: str = "query") -> torch.Tensor:
    """(n, L, d): samples of the distributions of n new contents of one modality; those of another `purpose` are others."""
    seed, n_samples = run.config.run.seed, run.config.run.eval_samples
    parts = []
    for start in range(0, len(contents), CHUNK):
        law = run.model({modality: encode(run, modality, contents[start : start + CHUNK])})[modality]
        bad = (~torch.isfinite(location(law)).all(-1)).nonzero().flatten().tolist()
        if bad:
            raise UserError(f"query {modality}: {contents[start + bad[0]][:80]}: the model gives no finite point for it")
        parts.append(draw(law, n_samples, derive(seed, purpose, modality, start)))
    return torch.cat(parts)


def points_of(run: Run, contents: Mapping[str, Sequence[str]], mean: str = "frechet") -> torch.Tensor:
    """(n, d): for n new items the mean over the samples of all the modalities that they are given in, {modality: n contents}."""
    drawn = [samples(run, name, values) for name, values in contents.items()]
    return joint_mean(drawn, [z.new_ones(len(z), dtype=torch.bool) for z in drawn], mean)
