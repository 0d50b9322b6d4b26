"""Synthetic speech by espeak-ng's library, called through ctypes. It is never to be taken for human speech."""

from __future__ import annotations

import ctypes
import hashlib
import io
import platform
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from ..errors import UserError
from .cache import replacing
from .packages import fetch
from .pins import espeak

VOICES = ("en-us", "en-us+f3", "en-us+m3", "en-us+f1")
_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples go to the callback before espeak_Synth returns
_UTF8 = 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def speak(text: str, voice: str) -> tuple[np.ndarray, int]:
    """int16 samples (n,) of ``text`` spoken by ``voice``, such as "en-us" or "en-us+f3", and their rate in Hz. Not thread-safe."""
    library, rate = _library()
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise UserError(f"espeak-ng: no voice called {voice!r}")
    chunks: list[np.ndarray] = []

    def receive(samples: ctypes._Pointer, count: int, _events: int) -> int:
        if samples and count:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback = _CALLBACK(receive)  # held by this name while the library calls it
    library.espeak_SetSynthCallback(callback)
    data = text.encode() + b"\0"
    if library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, _UTF8, None, None) != 0 or not chunks:
        raise UserError(f"espeak-ng: could not speak {text!r}")
    return np.concatenate(chunks), rate


def say(target: Path, text: str, identity: str) -> None:
    """Writes `text`, spoken by the voice of `identity`, as FLAC; a file that is there is kept. Not thread-safe."""
    if not target.exists():
        samples, rate = speak(text, voice_of(identity))
        sound = io.BytesIO()  # not straight to the disk: libsndfile would not say that it is full
        soundfile.write(sound, samples, rate, format="FLAC")
        with replacing(target) as temporary:
            temporary.write_bytes(sound.getvalue())


def voice_of(identity: str) -> str:
    """One of VOICES, by the hash of an id."""
    return VOICES[hashlib.sha256(identity.encode()).digest()[-1] % len(VOICES)]


def spoken(path: str, identity: str) -> dict[str, object]:
    """The manifest's entry of such a file; it says that the speech is synthetic."""
    return {"path": path, "language": "en", "synthetic": True, "voice": f"espeak-ng {voice_of(identity)}"}


@cache
def _library() -> tuple[ctypes.CDLL, int]:
    home = fetch(espeak()) / "espeakng_loader"
    file = home / ("libespeak-ng.dylib" if platform.system() == "Darwin" else "libespeak-ng.so.1")
    try:
        library = ctypes.CDLL(str(file))
    except OSError as error:
        raise UserError(f"espeak-ng: the library cannot be loaded: {error}") from error
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(Path(home)).encode(), 0)
    if rate <= 0:
        raise UserError(f"espeak-ng: could not start with the voices in {home}")
    return library, rate
