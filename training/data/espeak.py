"""Synthetic speech by espeak-ng's library, called through ctypes. It is never to be taken for human speech."""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from pathlib import Path

import numpy as np

from ..errors import UserError
from .packages import fetch
from .pins import espeak

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
