"""Sound: reading, cutting and repeating, log-mel spectrograms as CLAP and PANN compute them, and their masking."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from ..data.manifest import Item
from ..encoders.audio import check_whole, read_sound
from ..errors import CorruptFile
from . import Sample, stack

_FLOOR = 1e-10  # power, in both of the published front ends


class LogMel:
    """10 log10 max(1e-10, F |STFT|^2): mel spectrogram in decibels, (n,) samples to float32 (1 + n // hop, bins).

    Periodic Hann window, frames centred on multiples of the hop, ends reflected. `scale` "slaney": librosa's filter bank, of unit area on
    Slaney's mel scale; "htk": torchaudio's, of unit height on HTK's. In float64, where quiet bins beside loud ones keep their digits.
    """

    def __init__(self, rate: int, hop: int, low: float, high: float, scale: str = "slaney", window: int = 1024, bins: int = 64) -> None:
        from transformers.audio_utils import mel_filter_bank

        self.window, self.hop = torch.hann_window(window, dtype=torch.float64), hop
        norm = "slaney" if scale == "slaney" else None
        filters = mel_filter_bank(window // 2 + 1, bins, low, high, rate, norm=norm, mel_scale=scale)
        self.filters = torch.from_numpy(filters)  # (1 + window / 2, bins) float64

    def __call__(self, samples: np.ndarray) -> Tensor:
        x = torch.from_numpy(samples).double()
        if len(x) <= len(self.window) // 2:  # too short to reflect: silence after it
            x = torch.nn.functional.pad(x, (0, len(self.window) // 2 + 1 - len(x)))
        edge = len(self.window) // 2
        padded = torch.nn.functional.pad(x[None], (edge, edge), mode="reflect")[0]
        # 128 frames at a time stay in the cache: three times as fast as torch.stft of the whole
        parts = [_power(frames * self.window) @ self.filters for frames in padded.unfold(0, len(self.window), self.hop).split(128)]
        return torch.cat(parts).clamp_(min=_FLOOR).log10_().mul_(10).float()


def _power(frames_TN: Tensor) -> Tensor:
    spectrum_TF = torch.fft.rfft(frames_TN)
    return spectrum_TF.real.square() + spectrum_TF.imag.square()


class _Sound:
    """Reads a clip as `seconds` of mono sound at `rate`: cut at random ("crop", in training) or in the middle where it is longer."""

    kind = "path"
    known: Sequence[str] = ("crop",)
    rate: int

    def __init__(self, seconds: float, augment: frozenset[str]) -> None:
        self.samples, self.augment = round(seconds * self.rate), augment

    def check(self, items: Sequence[Item]) -> None:
        """Files are looked at when they are read."""

    def read(self, content: Path, item: Item, generator: np.random.Generator | None) -> Sample:
        samples, rate = self.part(content, generator)
        if rate != self.rate:
            samples = soxr.resample(samples, rate, self.rate)
            if not len(samples):
                raise CorruptFile(f"{content}: the sound is shorter than a sample at {self.rate} Hz")
        if not np.isfinite(samples).all():  # the mean of its channels, or what the resampler made of them
            raise CorruptFile(f"{content}: the sound is louder than float32 holds")
        return self.of_samples(samples, generator)

    def part(self, path: Path, generator: np.random.Generator | None) -> tuple[np.ndarray, int]:
        """The samples that will be used, at the file's own rate: of a song of minutes only the seconds of the cut are decoded."""
        check_whole(path)
        try:
            with soundfile.SoundFile(path) as file:
                needed = ceil(self.samples * file.samplerate / self.rate)
                if file.frames > needed:
                    file.seek(self.start(file.frames - needed, generator))
                    samples = file.read(needed, dtype="float32", always_2d=True).mean(1)
                    if len(samples) == needed and np.isfinite(samples).all():
                        return samples, file.samplerate
        except (OSError, RuntimeError) as error:
            raise CorruptFile(f"{path}: not a sound file that can be read: {error}") from error
        return read_sound(path)  # short, or something is wrong with it, which this names

    def blank(self) -> Sample:
        return self.of_samples(np.zeros(self.samples, np.float32), None)

    def collate(self, samples: Sequence[Sample]) -> Sample:
        return stack(samples)

    def of_samples(self, samples: np.ndarray, generator: np.random.Generator | None) -> Sample:
        raise NotImplementedError

    def start(self, spare: int, generator: np.random.Generator | None) -> int:
        """Where a cut begins that leaves `spare` places over."""
        return int(generator.integers(spare + 1)) if generator is not None and "crop" in self.augment else spare // 2

    def cut(self, samples: np.ndarray, generator: np.random.Generator | None) -> np.ndarray:
        spare = len(samples) - self.samples
        return samples if spare <= 0 else samples[(at := self.start(spare, generator)) : at + self.samples]

    def filled(self, samples: np.ndarray) -> np.ndarray:
        """Silence after a clip that is too short."""
        return np.pad(samples, (0, max(0, self.samples - len(samples))))

    def repeated(self, samples: np.ndarray) -> np.ndarray:
        """A short clip as often as it fits, then silence: CLAP's "repeatpad"."""
        return self.filled(np.tile(samples, max(1, self.samples // len(samples))))

    def masked(self, mel_TF: Tensor, generator: np.random.Generator | None) -> Tensor:
        if generator is None or "mask" not in self.augment:
            return mel_TF
        return mask(mel_TF, generator)


class ClapMel(_Sound):
    """(1, 1001, 64): 10 s at 48 kHz, as transformers' ClapFeatureExtractor computes it; (4, 1001, 64) and is_longer (1,) for `fusion`.

    Fusion is CLAP's way with clips that are longer: the whole one shrunk to 1001 frames, and a cut from each third of it.
    """

    rate = 48_000
    known = ("crop", "mask")

    def __init__(
        self, seconds: float, augment: frozenset[str], fusion: bool = False, band: tuple[float, float] = (50, 14_000)
    ) -> None:
        super().__init__(seconds, augment)
        self.fusion = fusion
        self.mel = LogMel(self.rate, 480, *band, "htk" if fusion else "slaney")

    def part(self, path: Path, generator: np.random.Generator | None) -> tuple[np.ndarray, int]:
        return read_sound(path) if self.fusion else super().part(path, generator)

    def of_samples(self, samples: np.ndarray, generator: np.random.Generator | None) -> Sample:
        if not self.fusion:
            mel_TF = self.mel(self.repeated(self.cut(samples, generator)))
            return {"input_features": self.masked(mel_TF, generator)[None]}
        frames = self.samples // self.mel.hop + 1
        mel_TF = self.mel(self.repeated(samples))
        longer = len(mel_TF) > frames
        parts = self._fused(mel_TF, frames, generator) if longer else [mel_TF[:frames]] * 4
        return {"input_features": torch.stack([self.masked(part, generator) for part in parts]), "is_longer": torch.tensor([longer])}

    def _fused(self, mel_TF: Tensor, frames: int, generator: np.random.Generator | None) -> list[Tensor]:
        size = (frames, mel_TF.shape[1])
        shrunk = torch.nn.functional.interpolate(mel_TF[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        thirds = [third if len(third) else np.zeros(1, int) for third in np.array_split(np.arange(len(mel_TF) - frames + 1), 3)]
        starts = [int(third[self.start(len(third) - 1, generator)]) for third in thirds]
        return [shrunk, *(mel_TF[at : at + frames] for at in starts)]


class PannMel(_Sound):
    """(1, T, 64): at 32 kHz, frames 10 ms apart, 50 to 14,000 Hz, as torchlibrosa computes it for PANN; silence after short clips."""

    rate = 32_000
    known = ("crop", "mask")

    def __init__(self, seconds: float, augment: frozenset[str]) -> None:
        super().__init__(seconds, augment)
        self.mel = LogMel(self.rate, 320, 50, 14_000)

    def of_samples(self, samples: np.ndarray, generator: np.random.Generator | None) -> Tensor:
        return self.masked(self.mel(self.filled(self.cut(samples, generator))), generator)[None]


class Wave(_Sound):
    """{"input_values": (n,), "samples": ()}: 16 kHz sound of mean 0 and deviation 1 for HuBERT, and how much of it is not padding.

    Every clip is brought to one length, since HuBERT's first layer normalises over the whole clip, padding included: its features would
    depend on the longest clip of the batch.
    """

    rate = 16_000

    def of_samples(self, samples: np.ndarray, generator: np.random.Generator | None) -> Sample:
        cut = self.cut(samples, generator).astype(np.float64)
        unit = ((cut - cut.mean()) / np.sqrt(cut.var() + 1e-7)).astype(np.float32)
        return {"input_values": torch.from_numpy(self.filled(unit)), "samples": torch.tensor(len(unit))}


class Spectrogram(_Sound):
    """(1, 257, T): log spectrogram of 16 kHz sound at mean 0 and deviation 1 for ResNet18; a short clip is repeated and cut (MMCosine)."""

    rate = 16_000

    def of_samples(self, samples: np.ndarray, generator: np.random.Generator | None) -> Tensor:
        from scipy.signal import spectrogram

        whole = np.tile(samples, ceil(self.samples / len(samples)))
        power_FT = spectrogram(self.cut(whole, generator).astype(np.float64), self.rate, nperseg=512, noverlap=353)[2]
        log_FT = np.log(power_FT + 1e-7)
        unit = (log_FT - log_FT.mean()) / (log_FT.std() + 1e-9)
        return torch.from_numpy(unit.astype(np.float32))[None]


def mask(mel_TF: Tensor, generator: np.random.Generator, times: int = 2, width: int = 64, bands: int = 2, height: int = 8) -> Tensor:
    """SpecAugment without warping: `times` stripes of up to `width` frames and `bands` of up to `height` mels become the clip's mean.

    The sizes are those of PANN, which masks after its first batch norm, where the mean is 0. The mean is each mel bin's own.
    """
    masked, mean_F = mel_TF.clone(), mel_TF.mean(0)
    for count, most, axis in ((times, width, 0), (bands, height, 1)):
        for _ in range(count):
            size = int(generator.integers(min(most, mel_TF.shape[axis])))
            at = int(generator.integers(mel_TF.shape[axis] - size))
            if axis == 0:
                masked[at : at + size] = mean_F
            else:
                masked[:, at : at + size] = mean_F[at : at + size]
    return masked
