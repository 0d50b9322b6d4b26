"""The tux corpus: the stamps of Tux Paint, pictures with English captions and human speech in one of fourteen languages.

Debian's tuxpaint-stamps-default 2022.06.04-1, GPL-2. In its folder NAME.png or NAME.svg is the picture, the first line of
NAME.txt the English caption, followed by lines `xx.utf8=caption`, and NAME_desc_xx.ogg the caption as spoken (NAME_desc.ogg
in English). The symbols (letters, digits, coins, chess) are left out.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..encoders.audio import read_sound
from ..errors import UserError, near
from . import corpus
from .alike import tie_alike
from .cache import replacing
from .groups import assign, connected, normalise_caption
from .manifest import Item, Manifest
from .packages import fetch
from .pins import TUX
from .raster import rasterise

TEXTS = ("fr", "es")
VOICES_NAME = "tux-voices"
VOICES = ("fr", "es", "ca", "ro")  # its languages, of one family, mostly of one speaker each
_VERSION = "2"  # of what is written for a stamp; another one makes old files be written anew


@dataclass(frozen=True)
class Stamp:
    """A picture with its captions and recordings by language; ``id`` is its path without the ending."""

    id: str
    picture: Path
    captions: dict[str, str]
    speech: dict[str, Path]


def build(
    cache: Path, language: str = "fr", out: Path | None = None, strict: bool = False, progress: bool = True, texts: bool = False
) -> Path:
    """Builds the corpus with speech in ``language`` and returns the manifest's path; one that is there and whole is kept.

    ``texts`` adds the captions in TEXTS as modalities text_xx, and the category as one more, "class": a vector with a single 1.

    ``out`` defaults to ``cache/corpora/tux`` (``tux-xx`` for languages other than French). An interrupted build goes on where
    it stopped. Raises SourceUnavailable where the Debian package cannot be had, UserError for an unknown language.
    """
    name = "tux-texts" if texts else "tux"
    folder = Path(out) if out else cache / "corpora" / (name if language == "fr" else f"{name}-{language}")
    return _built(folder, name, [language], strict, progress)


def build_voices(cache: Path, out: Path | None = None, strict: bool = False, progress: bool = True) -> Path:
    """The corpus tux-voices, in the four languages of VOICES at once: an item, "STAMP@xx", for each that a stamp is spoken in."""
    return _built(Path(out) if out else cache / "corpora" / VOICES_NAME, VOICES_NAME, VOICES, strict, progress)


def _built(folder: Path, name: str, languages: Sequence[str], strict: bool, progress: bool) -> Path:
    builder = f"{name} {_VERSION} {' '.join(languages)} {TUX.sha256}"
    if manifest := corpus.built(folder, builder):
        return manifest.path
    stamps = find_stamps(fetch(TUX) / "usr" / "share" / "tuxpaint" / "stamps")
    spoken = Counter(name for stamp in stamps for name in stamp.speech)
    for language in languages:
        if language not in spoken:
            raise UserError(f"language: no speech in {language!r}; {near(language, spoken)}")
    with corpus.building(folder, builder):
        return _build(folder, name, stamps, languages, corpus.Skipped(strict), progress).path


def _build(folder: Path, name: str, stamps: list[Stamp], languages: Sequence[str], skipped: corpus.Skipped, progress: bool) -> Manifest:
    stamps = corpus.prepare(stamps, lambda stamp: _write_picture(folder, stamp), "pictures", skipped, progress)
    group_of = leak_free_groups(stamps, [folder / _picture(stamp) for stamp in stamps], progress)
    items = []
    for language in languages:
        said = [stamp for stamp in stamps if language in stamp.speech]
        said = corpus.prepare(said, partial(_copy_speech, folder, language), "recordings", skipped, progress)
        splits = assign([group_of[stamp.id] for stamp in said])
        items += [_item(stamp, language, group_of[stamp.id], split) for stamp, split in zip(said, splits, strict=True)]
    if name == "tux-texts":
        items = _more(items, {stamp.id: stamp for stamp in stamps})
    if name == VOICES_NAME:
        items = [replace(item, id=f"{item.id}@{item.modalities['speech']['language']}") for item in items]
    about = {
        "corpus": name,
        "source": f"Debian {TUX}, sha256 {TUX.sha256}",
        "licence": "GPL-2; see usr/share/doc/tuxpaint-stamps-default/copyright of the package",
        "speech": f"human, language {', '.join(languages)}",
    }
    return corpus.finish(folder, items, about, skipped)


def find_stamps(root: Path) -> list[Stamp]:
    """The stamps below ``root`` that have a picture, an English caption and speech in any language, sorted by id."""
    stamps = []
    for text in sorted(root.rglob("*.txt")):
        stem = text.with_suffix("")
        identity = stem.relative_to(root).as_posix()
        pictures = [picture for ending in (".svg", ".png") if (picture := stem.parent / (stem.name + ending)).is_file()]
        captions = _captions(text)
        speech = {}
        for sound in stem.parent.glob(_literal(stem.name) + "_desc*.ogg"):
            name = sound.name.removeprefix(stem.name + "_desc").removesuffix(".ogg").removeprefix("_") or "en"
            if name.replace("_", "").isalpha():  # not "da.ogg.ogg"
                speech[name] = sound
        if pictures and captions.get("en") and speech and not identity.startswith("symbols/"):
            stamps.append(Stamp(identity, pictures[0], captions, speech))
    return stamps


def leak_free_groups(stamps: list[Stamp], pictures: list[Path], progress: bool = True) -> dict[str, str]:
    """id -> group of stamps that share the English caption, one they are spoken in, a recording, or nearly the picture.

    All languages count whichever one is used: an equal recording or translation says that two stamps show the same thing.
    """
    keys: dict[str, list] = {stamp.id: [] for stamp in stamps}
    for stamp in stamps:
        for language in {"en", *stamp.speech} & set(stamp.captions):
            keys[stamp.id].append(("caption", language, normalise_caption(stamp.captions[language])))
        keys[stamp.id] += [("recording", hashlib.md5(sound.read_bytes()).hexdigest()) for sound in stamp.speech.values()]
    tie_alike(keys, dict(zip(keys, pictures, strict=True)), progress)
    return connected(keys)


def _captions(text: Path) -> dict[str, str]:
    lines = text.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    captions = {"en": lines[0].strip()}
    for line in lines[1:]:
        language, separator, caption = line.partition(".utf8=")
        if separator and caption.strip():
            captions[language.strip()] = caption.strip()
    return captions


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _picture(stamp: Stamp) -> str:
    return f"images/{stamp.id}.png"


def _speech(stamp: Stamp, language: str) -> str:
    return f"speech/{language}/{stamp.id}.ogg"


def _write_picture(folder: Path, stamp: Stamp) -> None:
    target = folder / _picture(stamp)
    if not target.exists():
        rasterise(stamp.picture, target)


def _copy_speech(folder: Path, language: str, stamp: Stamp) -> None:
    source, target = stamp.speech[language], folder / _speech(stamp, language)
    if not target.exists():
        read_sound(source)
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)


def _more(items: list[Item], stamp_of: dict[str, Stamp]) -> list[Item]:
    labels = sorted({item.label for item in items})
    more = []
    for item in items:
        captions = stamp_of[item.id].captions
        texts = {f"text_{code}": {"texts": [captions[code]]} if code in captions else None for code in TEXTS}
        one_hot = {"vector": [float(label == item.label) for label in labels]}
        more.append(replace(item, modalities={**item.modalities, **texts, "class": one_hot}))
    return more


def _item(stamp: Stamp, language: str, group: str, split: str) -> Item:
    spoken = stamp.captions.get(language)  # what is said; a few recordings have no caption in their language
    modalities = {
        "image": {"path": _picture(stamp)},
        "text": {"texts": [stamp.captions["en"]]},
        "speech": {"path": _speech(stamp, language), "language": language, **({"text": spoken} if spoken else {})},
    }
    return Item(stamp.id, split, group, normalise_caption(stamp.captions["en"]), modalities, label=stamp.id.split("/")[0])
