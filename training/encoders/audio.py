"""Reading sound files."""

from __future__ import annotations

import os
from math import gcd
from pathlib import Path

import numpy as np
import soundfile

from ..errors import CorruptFile


def read_sound(path: str | Path, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Mono float32 samples (n,), resampled to ``rate`` Hz where given, and their rate.

    Raises CorruptFile that names a file that is missing, no sound, empty, or cut short.
    """
    check_whole(path)
    try:
        samples, found = soundfile.read(path, dtype="float32", always_2d=True)  # (n, channels)
    except (OSError, RuntimeError) as error:
        raise CorruptFile(f"{path}: not a sound file that can be read: {error}") from error
    if not len(samples) or not np.isfinite(samples).all():
        raise CorruptFile(f"{path}: the sound is {'empty' if not len(samples) else 'not finite'}")
    if _lacks_ogg_end(Path(path)):
        raise CorruptFile(f"{path}: the sound is cut short: its last ogg page is missing")
    mono = samples.mean(1)  # (n,)
    if rate in (None, found):
        return mono, found
    from scipy.signal import resample_poly  # half a second to import, and every command imports this file

    factor = gcd(rate, found)
    return resample_poly(mono, rate // factor, found // factor).astype(np.float32), rate


def check_whole(path: str | Path) -> None:
    """CorruptFile where a WAV or AIFF is shorter than its header says, which libsndfile passes over in silence."""
    try:
        with open(path, "rb") as file:
            head, size = file.read(8), os.fstat(file.fileno()).st_size
    except OSError:
        return  # whoever reads it says what is wrong
    order = {b"RIFF": "little", b"FORM": "big"}.get(head[:4])
    lacking = int.from_bytes(head[4:], order) + 8 - size if order else 0
    if 8 < lacking < 2**31:  # streamed files declare nearly 2^32 bytes; a few of padding are often forgotten
        raise CorruptFile(f"{path}: the sound is cut short: {lacking} bytes are missing")


def _lacks_ogg_end(path: Path) -> bool:
    """Whether an ogg stream lacks its end, which libsndfile passes over in silence (RFC 3533: page header, end-of-stream flag)."""
    data = path.read_bytes()
    if not data.startswith(b"OggS"):
        return False
    page = data.rfind(b"OggS")
    segments = data[page + 27 : page + 27 + data[min(page + 26, len(data) - 1)]]
    return not data[page + 5 : page + 6] or not data[page + 5] & 4 or len(data) < page + 27 + len(segments) + sum(segments)
