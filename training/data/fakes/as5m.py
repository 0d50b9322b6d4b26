"""A look-alike of a catalogue like AS5M: albums of three songs with one cover."""

from __future__ import annotations

from pathlib import Path

from .media import cut, picture, sound, table


def write(folder: Path, n: int) -> tuple[int, int]:
    """Traps: one cover for many songs, an artist with two albums, genres that want "an", commas, empty fields, a row without a cover; a
    sound missing, one cut short, whose songs keep their cover."""
    rows: list[list[object]] = [["audio", "image", "title", "artist", "collection", "genre", "release_date"]]
    for number in range(n):
        album = number // 3
        rows.append(
            [
                f"previews/{number:03d} song.wav",
                f"covers/{album}.jpg",
                f"Song, the {number}th",
                f"Artist {max(album, 1)}",
                f"Album {album}",
                ("Electronic", "Rock", "", "Indie Pop")[album % 4],
                f"20{10 + album}-01-02" if number % 4 else "",
            ]
        )
        sound(folder / f"previews/{number:03d} song.wav", number, rate=44_100)
        picture(folder / f"covers/{album}.jpg", album)
    (folder / "previews/001 song.wav").unlink()
    cut(folder / "previews/000 song.wav")
    rows.append(["previews/000 song.wav", "", "No cover"])
    table(folder / "songs.csv", rows, bom=True)
    return n, 3
