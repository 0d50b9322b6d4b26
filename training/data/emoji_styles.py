"""The emoji-styles corpus: 1,585 emoji in four styles, with names in four languages, English keywords, and synthetic speech.

npm's emoji-datasource-google 16.0.0 (Noto, Apache-2.0), emoji-datasource-twitter 16.0.0 (Twemoji, CC-BY-4.0), openmoji 17.0.0
(CC-BY-SA-4.0), @lobehub/fluent-emoji-3d 1.1.0 (Fluent 3D, MIT); names of unicode-emoji-json 0.9.0 (MIT), keywords and translations of
cldr-annotations-full 48.2.0 (Unicode-3.0). Joined by code points, without U+FE0F. Flags, keycaps and skin tones are left out.

An item is an emoji in one style, its id "CODE-POINTS/style" and its style in `meta`. All styles of an emoji, and of its family (gender,
hair, direction, colour, hour), are one group.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import UserError
from .drawn import Drawing, DrawnCorpus
from .emoji import Emoji, family
from .packages import fetch
from .pins import CLDR, EMOJI_NAMES, FLUENT, NOTO, OPENMOJI_COLOUR, TWEMOJI

LANGUAGES = ("fr", "es", "de")
STYLES = {  # style -> package, folder in it
    "noto": (NOTO, "package/img/google/64"),
    "twemoji": (TWEMOJI, "package/img/twitter/64"),
    "openmoji": (OPENMOJI_COLOUR, "package/color/svg"),
    "fluent": (FLUENT, "package/assets"),
}
_PACKAGES = (*(package for package, _ in STYLES.values()), EMOJI_NAMES, CLDR)


def _fetched() -> list[Drawing]:
    folders = {style: fetch(package) / inside for style, (package, inside) in STYLES.items()}
    names = _json(fetch(EMOJI_NAMES) / "package" / "data-by-emoji.json")
    told = fetch(CLDR) / "package" / "annotations"
    annotations = {language: _annotations(told / language / "annotations.json") for language in ("en", *LANGUAGES)}
    return find_drawings(folders, names, annotations)


CORPUS = DrawnCorpus(
    name="emoji-styles",
    version="1",
    packages=_PACKAGES,
    source=f"npm {', '.join(map(str, _PACKAGES))}",
    licence="Noto Apache-2.0, Twemoji CC-BY-4.0, OpenMoji CC-BY-SA-4.0, Fluent MIT; names MIT and Unicode-3.0; speech by GPL-3",
    find=_fetched,
)
build = CORPUS.build


def find_drawings(
    folders: Mapping[str, Path], names: Mapping[str, Mapping], annotations: Mapping[str, Mapping[str, Mapping]]
) -> list[Drawing]:
    """Every style of the emoji that all styles have.

    folders: style -> folder; names: sequence -> {"name", "group"}; annotations: language -> sequence -> CLDR's entry.
    """
    pictures = {style: {_bare(file.stem): file for file in sorted(folder.iterdir())} for style, folder in folders.items()}
    found = []
    for sequence, entry in names.items():
        code = _bare("-".join(f"{ord(c):04x}" for c in sequence))
        left_out = entry["group"] == "Flags" or entry["name"].startswith(("flag", "keycap"))
        if left_out or not all(code in files for files in pictures.values()):
            continue
        said = {language: _find(told, sequence) for language, told in annotations.items()}
        texts = {
            "text_keywords": [", ".join(said["en"]["default"])] if said["en"].get("default") else [],
            **{f"text_{language}": said[language].get("tts", [])[:1] for language in LANGUAGES},
        }
        keys = tuple(family(Emoji(code.upper(), entry["name"], Path())))
        for style, files in pictures.items():
            identity = f"{code.upper()}/{style}"
            found.append(Drawing(identity, entry["name"], files[code], entry["group"].lower(), code.upper(), texts, keys, {"style": style}))
    return found


def _find(told: Mapping[str, Mapping], sequence: str) -> Mapping:
    return told.get(sequence) or told.get(sequence.replace("\ufe0f", "")) or {}


def _bare(name: str) -> str:
    return "-".join(part for part in name.lower().split("-") if part != "fe0f")


def _annotations(file: Path) -> Mapping[str, Mapping]:
    return _json(file, lambda value: value["annotations"]["annotations"])


def _json(file: Path, inside: Callable = lambda value: value) -> Mapping:
    try:
        return inside(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not the file that was expected: {error}; delete the package's folder, it is fetched again") from error
