"""Flickr8k (Hodosh et al., JAIR 2013) with the Flickr Audio Caption Corpus (Harwath and Glass, ASRU 2015): five written captions a
picture, each also read aloud.

Flicker8k_Dataset/*.jpg (sic); Flickr8k.token.txt: `NAME.jpg#k<TAB>caption`, with keys `NAME.jpg.1#k` of a picture that does not
exist; Flickr_8k.{train,dev,test}Images.txt; flickr_audio/wav2capt.txt: `WAV JPG #k`, wav2spk.txt: `WAV SPEAKER`, wavs/*.wav.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import CorruptFile
from ..corpus import Skipped
from ..manifest import Item
from .layout import find, lines, optional, path, relative

VARIANTS = {
    "each": "an item a caption: the picture, the written and the spoken caption; the items of a picture are each other's hits",
    "five": "an item a picture, with its five texts and the first of its recordings",
    "first": "an item a picture, with its first caption, written and spoken",
}
LISTS = {"train": "train", "val": "dev", "test": "test"}


def read(folder: Path, variant: str, skipped: Skipped) -> list[Item]:
    """The items of the three lists of pictures; without flickr_audio there is no speech."""
    place = relative(find(folder, "Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images"), folder)
    texts = _texts(find(folder, "Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt"), skipped)
    wavs = _wavs(folder, skipped)
    items = []
    for split, name in LISTS.items():
        for _, line in lines(find(folder, f"Flickr_8k.{name}Images.txt", f"Flickr8k_text/Flickr_8k.{name}Images.txt")):
            picture = line.strip()
            items += _items(picture, split, f"{place}/{picture}", texts.get(picture, {}), wavs.get(picture, {}), variant)
    return items


def _items(
    picture: str, split: str, image: str, texts: dict[int, str], wavs: dict[int, tuple[str, str | None]], variant: str
) -> list[Item]:
    numbers = sorted(texts.keys() | wavs.keys()) or [0]
    identity = picture.removesuffix(".jpg")

    def item(name: str, caption: str, chosen: list[str], number: int | None) -> Item:
        wav, speaker = wavs.get(number, (None, None))
        modalities = {"image": path(image), "text": {"texts": chosen} if chosen else None, "speech": path(wav)}
        return Item(name, split, identity, caption, modalities, meta={"speaker": speaker} if speaker else {})

    if variant == "each":
        return [item(f"{identity}#{k}", identity, [texts[k]] if k in texts else [], k) for k in numbers]
    chosen = [texts[k] for k in sorted(texts)]
    first = numbers[0] if variant == "first" else min(wavs, default=None)
    return [item(identity, "", chosen if variant == "five" else chosen[:1], first)]


def _texts(token: Path, skipped: Skipped) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    for where, line in lines(token):
        key, tab, text = line.partition("\t")
        picture, _, number = key.rpartition("#")
        if not tab or not number.isdigit() or not picture.endswith(".jpg") or not text.strip():
            skipped.add(where, CorruptFile(f"expected NAME.jpg#k, a tab and a caption, got {line[:60]!r}"))
        else:
            found.setdefault(picture, {})[int(number)] = text.strip()
    return found


def _wavs(folder: Path, skipped: Skipped) -> dict[str, dict[int, tuple[str, str | None]]]:
    listed = optional(folder, "flickr_audio/wav2capt.txt", "wav2capt.txt")
    if listed is None:
        return {}
    speakers = {}
    if speaking := optional(listed.parent, "wav2spk.txt"):
        speakers = dict(line.split()[:2] for _, line in lines(speaking) if len(line.split()) >= 2)
    found: dict[str, dict[int, tuple[str, str | None]]] = {}
    for where, line in lines(listed):
        words = line.split()
        if len(words) != 3 or not words[2].removeprefix("#").isdigit():
            skipped.add(where, CorruptFile(f"expected WAV JPG #k, got {line[:60]!r}"))
            continue
        wav = f"{relative(listed.parent, folder)}/wavs/{words[0]}".removeprefix("./")
        found.setdefault(words[1], {})[int(words[2].removeprefix("#"))] = (wav, speakers.get(words[0]))
    return found
