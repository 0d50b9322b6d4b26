"""From a new text or file to a point of a run's sphere: its own frozen encoder, its model, the mean of the samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .batch import encoders_of
from .data.features import cached
from .encoders import ENCODERS, encoder
from .errors import UserError, near
from .evaluator import draw, joint_mean
from .seeding import derive

if TYPE_CHECKING:
    from .run import Run

TEXT, IMAGE = "text", "image"  # what an encoder may take; any other kind is a sort of sound


def encoder_names(run: Run) -> dict[str, str]:
    """modality -> name of its encoder, or "vector"."""
    return encoders_of(run.manifest, run.config.data)


def kind_of(run: Run, modality: str) -> str:
    """What the modality's encoder takes: "text", "image", "speech", ..., or "vector"."""
    name = encoder_names(run)[modality]
    return name if name == "vector" else ENCODERS[name].modality


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


def encode(run: Run, modality: str, contents: Sequence[str]) -> torch.Tensor:
    """(n, d_in) features of new contents, as the run's items have them: texts as they are, else paths of files.

    A vector modality takes the path of a JSON list or of a .npy file, or the list itself. Features are kept in the cache by content.
    Raises UserError for a file that is missing or cannot be read, an empty text, and vectors of another length.
    """
    name, dim = encoder_names(run)[modality], run.facts["dims"][modality]
    if name == "vector":
        x = torch.tensor(np.stack([_vector(content, modality) for content in contents]), dtype=torch.float32)
    else:
        takes_text = ENCODERS[name].modality == TEXT
        blank = [content for content in contents if not content.strip()]
        if blank:
            raise UserError(f"query {modality}: expected a {'text' if takes_text else 'file'}, got nothing")
        x = cached(encoder(name), list(contents) if takes_text else [Path(content) for content in contents], progress=False)
    if x.shape[1] != dim:
        raise UserError(f"query {modality}: expected {dim} numbers, got {x.shape[1]}")
    return x.to(next(run.model.parameters()).device)


def _vector(content: str, modality: str) -> np.ndarray:
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
    if value.ndim != 1 or not np.isfinite(value).all():
        raise UserError(f"query {modality}: {content[:80]}: expected a list of finite numbers, got shape {value.shape}")
    return value


@torch.no_grad()
def points_of(run: Run, contents: Mapping[str, Sequence[str]], mean: str = "frechet") -> torch.Tensor:
    """(n, d): for n new items the mean over the samples of all the modalities that they are given in, {modality: n contents}."""
    samples = []
    for name, values in contents.items():
        law = run.model({name: encode(run, name, values)})[name]
        samples.append(draw(law, run.config.run.eval_samples, derive(run.config.run.seed, "query", name)))  # (n, L, d)
    return joint_mean(samples, [z.new_ones(len(z), dtype=torch.bool) for z in samples], mean)
