"""A look-alike of Flickr8k and Flickr Audio Captions."""

from __future__ import annotations

from pathlib import Path

from .media import captions, cut, picture, sound, split_of, text


def write(folder: Path, n: int) -> tuple[int, int]:
    """Traps: keys NAME.jpg.1#k of a picture that is not there, Windows lines, a ragged line; a recording missing, a picture cut short,
    both of which only leave a modality empty."""
    lists: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    tokens, joined, speakers = [], [], []
    for number in range(n):
        stem = f"{1000268201 + number}_693b08cb0e"
        lists[{"val": "dev"}.get(split_of(number), split_of(number))].append(f"{stem}.jpg")
        picture(folder / f"Flicker8k_Dataset/{stem}.jpg", number)
        for k, caption in enumerate(captions(number, 5)):
            tokens.append(f"{stem}.jpg#{k}\t{caption} .")
            joined.append(f"{stem}_{k}.wav {stem}.jpg #{k}")
            speakers.append(f"{stem}_{k}.wav {number % 3}")
            sound(folder / f"flickr_audio/wavs/{stem}_{k}.wav", 5 * number + k)
    (folder / "flickr_audio/wavs/1000268202_693b08cb0e_3.wav").unlink()
    cut(folder / "Flicker8k_Dataset/1000268201_693b08cb0e.jpg")
    text(folder / "Flickr8k.token.txt", [*tokens, "2258277193_586949ec62.jpg.1#0\tPeople waiting for the metro train"], crlf=True)
    for name, pictures in lists.items():
        text(folder / f"Flickr_8k.{name}Images.txt", pictures)
    text(folder / "flickr_audio/wav2capt.txt", [*joined, "ragged.wav"])
    text(folder / "flickr_audio/wav2spk.txt", speakers)
    return 5 * n, 4
