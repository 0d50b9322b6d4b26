"""Published models by name: from the hub while it answers, else from what its cache on this machine has."""

from __future__ import annotations

import functools
from pathlib import Path

from ..errors import UserError

TIMEOUT = 5.0  # seconds
LOCAL = "give a folder instead that holds config.json, the weights and, of texts, the tokenizer"


@functools.cache
def offline(name: str) -> bool:
    """Whether `name` is no folder and the hub does not answer. The loaders of `transformers` would ask it six times, for half a minute.

    UserError for a path where nothing is, which the hub would call a bad name.
    """
    if Path(name).exists():
        return False
    if name.startswith(("/", ".", "~")):
        raise UserError(f"pretrained: {name}: no such folder")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().model_info(name, timeout=TIMEOUT)
    except (HfHubHTTPError, HFValidationError):  # an answer, or a name that it is not asked for
        return False
    except Exception:  # of its transport, whose kind depends on its version
        return True
    return False


def absent(name: str) -> str:
    """What to say of a model that is not there while the hub is not either."""
    return f"pretrained: {name}: is not in the hub's cache on this machine, and the hub does not answer; {LOCAL}"
