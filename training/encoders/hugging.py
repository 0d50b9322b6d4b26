"""Towers of `transformers` (4.57 and 5) as encoders: building them at random, loading published ones, reading what they expect."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import Encoder
from ..errors import UserError
from .hub import absent, offline
from .trainable import Trainable


class Tower(Trainable):
    """A network of `transformers`: which class and configuration it is, and how it is made small.

    Its weights are random, of the published sizes, or those of a published model, by name or local folder; of a model that joins two towers
    this one is taken. What comes out is the pooled state before the published projection: heads bring their own.
    """

    kind: str  # "ClapAudio": the model is ClapAudioModel, its configuration ClapAudioConfig
    tower: str = ""  # its attribute in a joint model
    full: dict[str, Any] = {}  # where the published size is not the configuration's default
    tiny: dict[str, Any] = {}  # a model of the same anatomy that trains in milliseconds
    always: dict[str, Any] = {}  # keys of the configuration that are ours whatever the published ones say
    arguments: dict[str, Any] = {}  # of the model's constructor
    dropouts: tuple[str, ...] = ()  # the configuration's keys that `dropout` sets

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.d_out = model.config.hidden_size

    @classmethod
    def build(cls, config: Encoder) -> Tower:
        return cls(cls._published(config) if config.pretrained else cls._random(config))

    @classmethod
    def configuration(cls, config: Encoder) -> Any:
        """The tower's configuration in `transformers`."""
        import transformers

        kind = getattr(transformers, cls.kind + "Config")
        if not config.pretrained:
            return kind(**{**cls.full, **(cls.tiny if config.size == "tiny" else {}), **cls._ours(config)})
        joint = _read(transformers.AutoConfig.from_pretrained, config.pretrained)
        part = getattr(joint, cls.tower.replace("_model", "_config"), joint) if cls.tower else joint
        if part.model_type != kind.model_type:
            wanted = f"expected a model of type {kind.model_type!r} for {config.name}"
            raise UserError(f"pretrained: {config.pretrained}: {wanted}, got {joint.model_type!r}")
        return part

    @classmethod
    def _random(cls, config: Encoder) -> nn.Module:
        import transformers

        model = getattr(transformers, cls.kind + "Model")(cls.configuration(config), **cls.arguments)
        return getattr(model, cls.tower, model)  # transformers 4 wraps CLIP's towers once more

    @classmethod
    def _published(cls, config: Encoder) -> nn.Module:
        import transformers

        cls.configuration(config)  # checks the type
        options = {**cls.arguments, **cls._ours(config), "dtype": torch.float32, "output_loading_info": True}
        model, report = _read(transformers.AutoModel.from_pretrained, config.pretrained, **options)
        tower = getattr(model, cls.tower, model)
        inside = tower.state_dict().keys()
        # A weight that the files lack would stay random without a word.
        missing = sorted(name for name in report["missing_keys"] if name.removeprefix(cls.tower + ".") in inside)
        if missing:
            raise UserError(f"pretrained: {config.pretrained}: lacks {len(missing)} weights of {config.name}, the first {missing[0]!r}")
        return tower

    @classmethod
    def _ours(cls, config: Encoder) -> dict[str, Any]:
        if config.dropout is not None and not cls.dropouts:
            raise UserError(f"dropout: {config.name} has none to set")
        return {**cls.always, **({} if config.dropout is None else dict.fromkeys(cls.dropouts, config.dropout))}


@functools.cache
def expectations(name: str | None) -> dict[str, Any]:
    """preprocessor_config.json of a published model: rates, mel bands, colours. Empty for random weights, or where there is none."""
    if not name:
        return {}
    from transformers.utils import cached_file

    path = _read(cached_file, name, filename="preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError) as error:
        raise UserError(f"pretrained: {path}: cannot be read: {error}") from None


def _read(call: Any, name: str, **arguments: Any) -> Any:
    """What a loader of `transformers` gives, without its progress bars, or a UserError with its reason in one line."""
    from transformers.utils import logging

    before, local = logging.get_verbosity(), offline(name)
    logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return call(name, local_files_only=local, **arguments)
    except Exception as error:  # of any kind: safetensors', the hub's, a configuration's
        if local and isinstance(error, OSError):
            raise UserError(absent(name)) from None
        raise UserError(f"pretrained: {name}: cannot be loaded: {' '.join(str(error).split())[:300] or type(error).__name__}") from None
    finally:
        logging.set_verbosity(before)
