"""The untrained cascade: English speech to the words that a recogniser hears, and the words to the sentence encoder's numbers.

No learned space lies between them: speech and text are compared as texts. It is what any model of English speech has to beat.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from ..data.packages import fetch
from ..data.pins import MOONSHINE
from .audio import read_sound
from .text import MiniLM

_RATE = 16_000
_SILENCE = _RATE // 2  # before and after, as for the features of the same recogniser
_LONGEST = 30 * _RATE
_BEGIN, _END = 1, 2  # token numbers
_TOKENS_PER_SECOND = 6.5  # at most, by its authors: beyond it repeats itself
_LAYERS, _HEADS, _WIDTH = 6, 8, 36  # of its decoder


class MoonshineTranscript:
    """all-MiniLM-L6-v2 of what Moonshine tiny (English) hears: the likeliest token at each step."""

    name = "moonshine-transcript"
    version = "1"
    dim = 384
    modality = "speech"
    batch = 32

    def __init__(self) -> None:
        self._text = MiniLM()

    @cached_property
    def _parts(self) -> tuple:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        folder = fetch(MOONSHINE) / "moonshine_voice" / "assets" / "tiny-en"
        models = [
            onnxruntime.InferenceSession(str(folder / f"{name}.ort"), options, providers=["CPUExecutionProvider"])
            for name in ("encoder_model", "decoder_model_merged")
        ]
        return *models, list(_tokens((folder / "tokenizer.bin").read_bytes()))

    def encode(self, contents: list[str | Path]) -> Tensor:
        parts = self._parts  # loaded here, not by several threads at once
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        with ThreadPoolExecutor(cores) as pool:
            return self._text.encode(list(pool.map(lambda path: _hear(*parts, path), contents)))  # (n, 384)

    def transcribe(self, path: str | Path) -> str:
        """What is heard in a file."""
        return _hear(*self._parts, path)


def _hear(encoder, decoder, tokens: list[bytes], path: str | Path) -> str:  # noqa: ANN001 (sessions of a library that is imported late)
    samples, _ = read_sound(path, _RATE)
    clip_1N = np.pad(samples[:_LONGEST], _SILENCE)[None]
    heard_1N = np.ones(clip_1N.shape, np.int64)
    states_1TD = encoder.run(None, {"input_values": clip_1N, "attention_mask": heard_1N})[0]
    fixed = {
        "encoder_hidden_states": states_1TD,
        "encoder_attention_mask": heard_1N,  # in samples: the decoder itself takes one in 384 of them
        # No cache of earlier steps: captions are a few words, and the whole is simple.
        "use_cache_branch": np.array([False]),
        **{
            f"past_key_values.{layer}.{part}.{kind}": np.zeros((1, _HEADS, 0, _WIDTH), np.float32)
            for layer in range(_LAYERS)
            for part in ("decoder", "encoder")
            for kind in ("key", "value")
        },
    }
    said = [_BEGIN]
    for _ in range(int(np.ceil(clip_1N.shape[1] / _RATE * _TOKENS_PER_SECOND))):
        logits_1LV = decoder.run(["logits"], {"input_ids": np.array([said], np.int64), **fixed})[0]
        said.append(int(logits_1LV[0, -1].argmax()))
        if said[-1] == _END:
            break
    words = b"".join(tokens[token] for token in said[1:] if token != _END)
    return words.decode("utf-8", "replace").replace("\u2581", " ").strip()


def _tokens(file: bytes) -> Iterator[bytes]:
    """The tokens of a tokenizer.bin: each its length, in two bytes from 128 on, and its bytes."""
    at = 0
    while at < len(file):
        length, at = file[at], at + 1
        if length >= 128:
            length, at = length - 128 + 128 * file[at], at + 1
        yield file[at : at + length]
        at += length
