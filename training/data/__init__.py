"""Corpora, manifests and cached features."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UserError, near
from .cache import cache_dir
from .manifest import Item, Manifest

__all__ = ["CORPORA", "Item", "Manifest", "build", "cache_dir", "find_manifest"]

CORPORA = {
    "tux": "676 photographs and drawings, English captions, human speech (French, or --language xx); from Debian, 161 MB",
    "tux-texts": "tux with French and Spanish captions and the category (a vector) as further modalities",
    "tux-voices": "tux with its recordings in French, Spanish, Catalan and Romanian, each an item; speakers differ with the language",
    "emoji": "1,200 drawings, English names, synthetic speech; from PyPI, 42 MB, needs no apt",
    "emoji-styles": "1,585 emoji in four styles, names in four languages, keywords, synthetic speech; from npm, 163 MB",
    "openclipart": "3,193 pieces of clip art, English titles, keywords, synthetic speech; from Debian, 25 MB",
    "art4apps": "585 drawings, names in four languages, synthetic speech; from Debian, 16 MB",
    "union": "tux, emoji-styles, openclipart and art4apps: 10,794 pictures, English captions, synthetic speech",
}


def find_manifest(name: str) -> Path:
    """The manifest that a person names: a file, a folder with a manifest.jsonl, or a corpus, which is built where it is not there yet."""
    path = Path(name)
    if path.is_dir():
        return path / "manifest.jsonl"
    if not path.exists() and name in CORPORA:
        return build(name)
    if not path.exists() and os.sep not in name and not path.suffix:
        raise UserError(f"data: {name!r} is no file and no corpus; {near(name, CORPORA)}")
    return path


def build(name: str, out: str | Path | None = None, *, language: str | None = None, strict: bool = False, progress: bool = True) -> Path:
    """Builds corpus ``name`` (a key of CORPORA) and returns its manifest's path; what is there already is kept.

    ``out`` defaults to ``cache_dir()/corpora/<name>``. ``language`` is that of tux's speech, "fr" by default. ``strict`` makes
    a corrupt image or sound an error instead of a skipped item. Raises UserError, of it SourceUnavailable when a Debian package
    cannot be had on this machine.
    """
    # the builders need the encoders, which need `packages` of this folder: imported here, not in a circle
    from . import tux

    if name in ("tux", "tux-texts"):
        return tux.build(cache_dir(), language or "fr", out, strict, progress, texts=name == "tux-texts")
    if name == "tux-voices":
        if language is not None:
            raise UserError(f"language: corpus {name!r} speaks {', '.join(tux.VOICES)}, all four, got {language!r}")
        return tux.build_voices(cache_dir(), out, strict, progress)
    if name in CORPORA:
        from . import art4apps, emoji, emoji_styles, openclipart, union

        if language not in (None, "en"):
            raise UserError(f"language: corpus {name!r} speaks 'en' only, got {language!r}")
        corpora = {"emoji": emoji, "emoji-styles": emoji_styles, "openclipart": openclipart, "art4apps": art4apps, "union": union}
        return corpora[name].build(cache_dir(), out, strict, progress)
    raise UserError(f"corpus: unknown name {name!r}; {near(name, CORPORA)}")
