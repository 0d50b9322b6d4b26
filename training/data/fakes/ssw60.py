"""A look-alike of SSW60."""

from __future__ import annotations

from pathlib import Path

from .media import cut, picture, sound, table, video

_TAXA = ((0, "cangoo", "Canada Goose"), (1, "wooduc", "Wood Duck"), (2, "mallar3", "Mallard"))


def write(folder: Path, n: int) -> tuple[int, int]:
    """Traps: commas in quoted families, a label that no species has, videos without sound or frames; a sound cut short, a video missing
    and with it its item."""
    families = "Anatidae (Ducks, Geese, and Waterfowl)"
    taxa = [["label", "species_code", "common_name", "family"], *([label, code, name, families] for label, code, name in _TAXA)]
    table(folder / "taxa.csv", taxa)
    heads = ["asset_id", "label", "split"]
    parts: dict[str, list[list[object]]] = {"video_ml": [[*heads, "fps", "reliable_audio"]]}
    parts |= {part: [list(heads)] for part in ("audio_ml", "images_nabirds", "images_inat")}
    for number in range(n):
        label, split = number % 3, "test" if number % 6 == 5 else "train"
        asset = 483821 + number
        parts["video_ml"].append([asset, label, split, 25, number % 2])
        video(folder / f"video_ml/{asset}.mp4", number)
        if number not in (1, 2):
            sound(folder / f"video_ml/{asset}.wav", number, rate=22_050)
            picture(folder / f"video_ml/{asset}/frame_00001.jpg", number)
        parts["audio_ml"].append([asset, label, split])
        sound(folder / f"audio_ml/{asset}.wav", 100 + number, rate=22_050)
        for part in ("images_nabirds", "images_inat"):
            parts[part].append([f"{asset}a", label, "val" if part == "images_inat" and number % 6 == 4 else split])
            picture(folder / f"{part}/{asset}a.jpg", 200 + number)
    cut(folder / "video_ml/483821.wav")
    (folder / "video_ml/483822.mp4").unlink()
    parts["video_ml"].append([999999, 60, "train", 25, 0])
    for part, rows in parts.items():
        table(folder / f"{part}.csv", rows)
    return n - 1, 3
