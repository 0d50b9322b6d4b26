"""A look-alike of VoxCeleb2 with MMCosine's lists and the official metadata."""

from __future__ import annotations

from pathlib import Path

from .media import cut, picture, sound, table, text


def write(folder: Path, n: int) -> tuple[int, int]:
    """Traps: paths with a leading slash, folders with # in their names, metadata with blanks behind every value, an utterance in several
    pairs; a sound cut short (its face stays), one missing without a face."""
    train: list[list[object]] = []
    test: list[str] = []
    for number in range(n):
        speaker, utterance = f"id{12 + number % 3:05d}", f"{number + 1:05d}"
        if number % 6 == 5:
            speaker = f"id{9000 + number:05d}"
            test.append(f"{speaker}/_x-Video_{number % 10}/{utterance}")
        name = f"{speaker}/_x-Video_{number % 10}/{utterance}"
        split = "test" if number % 6 == 5 else "train"
        faces = f"{name.replace('/', '#')}.txt#000.mp4"
        sound(folder / f"audio/{split}/{name}.wav", number)
        if number != 1:
            for frame in range(3):
                picture(folder / f"image/{split}/{faces}/{frame:07d}.png", 3 * number + frame)
        if split == "train":
            train.append([f"/{name}.wav", f"/{faces}", speaker, 3])
        sound(folder / f"{'test' if split == 'test' else 'dev'}/aac/{name}.wav", 50 + number)
    cut(folder / f"audio/train{train[0][0]}")
    (folder / f"audio/train{train[1][0]}").unlink()
    (folder / f"dev/aac{train[1][0]}").unlink()  # the one place more in which the reader looks
    table(folder / "train_vox2.csv", train)
    pairs = [(1, test[0], test[0]), *((0, test[0], name) for name in test)]
    table(folder / "test_pairs.csv", [[label, f"/{one}.wav", f"/{other}.wav"] for label, one, other in pairs])
    speakers = sorted({str(row[2]) for row in train})
    rows = [f"{speaker} ,n{speaker[2:]} ,m ,dev " for speaker in speakers]
    rows += [f"{name.split('/')[0]} ,n000001 ,f ,test " for name in test]
    text(folder / "vox2_meta.csv", ["VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set ", *rows])
    return n - 1, 2
