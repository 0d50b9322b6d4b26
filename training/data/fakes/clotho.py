"""A look-alike of Clotho v2.1."""

from __future__ import annotations

from pathlib import Path

from .media import captions, cut, sound, split_of, table

_NAMES = {"train": "development", "val": "validation", "test": "evaluation"}


def write(folder: Path, n: int) -> tuple[int, int]:
    """Traps: names with blanks (in front too), dots and brackets, commas in captions, metadata in ISO-8859-1, one sound_id in two
    splits; one sound missing, one cut short."""
    forms = ("Santa Motor {}.wav", "FR.CTC.08.CoyuyoS.{:03d}.wav", " typical neighborhood {}.wav", "Bus(Drive_Reverse)_{}-2.wav")
    texts = {split: [["file_name", *(f"caption_{k}" for k in range(1, 6))]] for split in _NAMES}
    columns = ["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]
    facts: dict[str, list[list[str]]] = {split: [columns] for split in _NAMES}
    for number in range(n):
        split, name = split_of(number), forms[number % len(forms)].format(number)
        sound(folder / _NAMES[split] / name, number)
        texts[split].append([name, *captions(number, 5)])
        source = 2 if number == 5 else number  # the last of the first six comes from the recording of the third
        facts[split].append([name, "hum;tone", 66300 + source, f"https://freesound.org/s/{source}", "[0, 100]", "Jos\u00e9", "CC0"])
    (folder / "development" / forms[1].format(1)).unlink()
    cut(folder / "development" / forms[0].format(0))
    for split, name in _NAMES.items():
        table(folder / f"clotho_captions_{name}.csv", texts[split])
        table(folder / f"clotho_metadata_{name}.csv", facts[split], encoding="iso-8859-1")
    return n - 2, 2
