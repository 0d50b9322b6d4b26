"""The mel front ends against the published extractors."""

import numpy as np
import pytest
import soundfile
import torch

from transphere.training.config import Encoder
from transphere.training.encoders.networks import pipeline
from transphere.training.errors import CorruptFile
from transphere.training.pipelines.sound import ClapMel, LogMel, PannMel, Spectrogram, Wave, mask


def sound(seconds, rate, seed=0):
    """Something with loud and quiet bands: a sweep, a hum, faint noise."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(t))
    return (0.5 * np.sin(2 * np.pi * (200 + 900 * t) * t) + 0.1 * np.sin(2 * np.pi * 60 * t) + 1e-4 * noise).astype(np.float32)


def twin(samples, rate, hop, low, high, scale):
    """The definition once more, in numpy and float64: librosa's filters (Slaney) or torchaudio's (HTK), from their formulas."""

    def to_mel(f):
        f = np.asarray(f, float)
        if scale == "htk":
            return 2595 * np.log10(1 + f / 700)
        return np.where(f < 1000, 3 * f / 200, 15 + 27 * np.log(np.maximum(f, 1000) / 1000) / np.log(6.4))

    def to_hertz(m):
        if scale == "htk":
            return 700 * (10 ** (m / 2595) - 1)
        return np.where(m < 15, 200 * m / 3, 1000 * np.exp(np.log(6.4) * (m - 15) / 27))

    n = 1024
    edges = to_hertz(np.linspace(to_mel(low), to_mel(high), 66))
    bins = np.linspace(0, rate / 2, n // 2 + 1)
    up = (bins[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    down = (edges[2:] - bins[:, None]) / np.diff(edges)[1:]
    filters = np.maximum(0, np.minimum(up, down))  # (513, 64)
    if scale == "slaney":
        filters *= 2 / (edges[2:] - edges[:-2])
    padded = np.pad(samples.astype(float), n // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    frames = np.stack([padded[at : at + n] * window for at in range(0, len(padded) - n + 1, hop)])
    return 10 * np.log10(np.maximum(1e-10, np.abs(np.fft.rfft(frames)) ** 2 @ filters))


@pytest.mark.parametrize(
    ("rate", "hop", "low", "high", "scale"),
    [(48000, 480, 50, 14000, "slaney"), (48000, 480, 50, 14000, "htk"), (32000, 320, 50, 14000, "slaney"), (16000, 160, 0, 8000, "htk")],
)
def test_log_mel_is_its_definition(rate, hop, low, high, scale):
    samples = sound(1.3, rate)
    got = LogMel(rate, hop, low, high, scale)(samples)
    assert got.shape == (1 + len(samples) // hop, 64)
    np.testing.assert_allclose(got.numpy(), twin(samples, rate, hop, low, high, scale), atol=1e-4)
    assert LogMel(rate, hop, low, high, scale)(np.zeros(10, np.float32)).unique().tolist() == [-100.0]


@pytest.mark.parametrize("seconds", [0.7, 3.3, 9.99, 10.0])
@pytest.mark.parametrize("fusion", [False, True])
def test_clap_as_its_published_extractor(seconds, fusion):
    from transformers import ClapFeatureExtractor

    published = ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc", padding="repeatpad", frequency_min=50)
    samples = sound(seconds, 48000)
    expected = published(samples, sampling_rate=48000, return_tensors="pt")
    got = ClapMel(10.0, frozenset(), fusion).of_samples(samples, None)
    assert got["input_features"].shape == (4 if fusion else 1, 1001, 64)
    torch.testing.assert_close(got["input_features"], expected["input_features"][0].float(), atol=1e-4, rtol=0)


def test_long_clips_are_cut_or_fused_as_published():
    from transformers import ClapFeatureExtractor

    published = ClapFeatureExtractor(truncation="fusion", frequency_min=50)
    samples = sound(14, 48000)
    whole = torch.tensor(published._np_extract_fbank_features(samples, published.mel_filters), dtype=torch.float32)
    got = ClapMel(10.0, frozenset(), fusion=True).of_samples(samples, None)
    parts = got["input_features"]
    assert bool(got["is_longer"]) and parts.shape == (4, 1001, 64)
    shrunk = torch.nn.functional.interpolate(whole[None, None], (1001, 64), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(parts[0], shrunk, atol=1e-4, rtol=0)
    for part, at in zip(parts[1:], (66, 200, 334), strict=True):  # the middle of each third of the 401 starts
        torch.testing.assert_close(part, whole[at : at + 1001], atol=1e-4, rtol=0)

    cropped = ClapMel(10.0, frozenset({"crop"})).of_samples(samples, np.random.default_rng(0))["input_features"]
    middle = ClapMel(10.0, frozenset({"crop"})).of_samples(samples, None)["input_features"]
    assert cropped.shape == middle.shape == (1, 1001, 64) and not torch.equal(cropped, middle)
    exact = ClapMel(10.0, frozenset(), fusion=True).of_samples(samples[: 480000 + 100], None)  # longer by less than a frame
    assert not bool(exact["is_longer"]) and torch.equal(exact["input_features"][0], exact["input_features"][3])


def test_pann_as_torchlibrosa():
    """Its formulas are the twin's. torchlibrosa 0.1.0 in its float32 differs from ours by 1.4e-5 dB on white noise, by .0066 at -72 dB."""
    samples = sound(4, 32000)
    got = PannMel(10.0, frozenset()).of_samples(samples, None)
    assert got.shape == (1, 1001, 64)
    silent = np.pad(samples, (0, 6 * 32000))
    np.testing.assert_allclose(got[0].numpy(), twin(silent, 32000, 320, 50, 14000, "slaney"), atol=1e-4)


def test_masks_are_stripes_of_the_mean():
    mel = torch.randn(1001, 64, generator=torch.Generator().manual_seed(0))
    masked = mask(mel, np.random.default_rng(3))
    changed = masked != mel
    assert torch.equal(masked, mask(mel, np.random.default_rng(3))) and not torch.equal(masked, mask(mel, np.random.default_rng(4)))
    rows, columns = changed.all(1).sum(), changed.all(0).sum()
    assert 0 < rows <= 2 * 63 and columns <= 2 * 7
    assert torch.equal(masked[changed], mel.mean(0).expand_as(mel)[changed])
    assert torch.equal(mask(mel[:1], np.random.default_rng(0))[0, :3], mel[0, :3])  # one frame only: no time to mask


def test_waves_and_spectrograms():
    samples = sound(2, 16000)
    wave = Wave(8.0, frozenset()).of_samples(samples, None)
    assert wave["input_values"].shape == (128000,) and int(wave["samples"]) == 32000
    inside = wave["input_values"][:32000]
    assert abs(float(inside.mean())) < 1e-5 and abs(float(inside.var()) - 1) < 1e-3 and not wave["input_values"][32000:].any()
    spectrogram = Spectrogram(3.0, frozenset()).of_samples(samples, None)
    assert spectrogram.shape == (1, 257, (48000 - 353) // 159)
    assert abs(float(spectrogram.mean())) < 1e-5 and abs(float(spectrogram.std()) - 1) < 1e-3
    for made in (Wave(1.0, frozenset()), Spectrogram(1.0, frozenset()), PannMel(1.0, frozenset()), ClapMel(10.0, frozenset())):
        batch = made.collate([made.blank(), made.blank()])
        assert all(x.isfinite().all() for x in (batch.values() if isinstance(batch, dict) else [batch]))


@pytest.mark.parametrize("name", ["clap", "clap-fused", "hubert", "pann-resnet38", "resnet18-audio"])
def test_strange_files(name, tmp_path):
    """Of any rate and length, loud beyond sense: finite; or an error that names the file."""
    made = pipeline(Encoder(name, augment=["crop"]))
    noise = np.random.default_rng(0).normal(size=(48000, 2))
    good = {"one.wav": (np.full(9, 0.5), 8000), "high é.wav": (0.1 * noise, 192000), "loud.wav": (np.full(300_000, 1e30), 44100)}
    for file, (samples, rate) in good.items():
        soundfile.write(tmp_path / file, samples.astype(np.float32), rate, subtype="FLOAT")
        for random in (None, np.random.default_rng(0)):
            sample = made.read(tmp_path / file, None, random)
            assert all(x.isfinite().all() for x in (sample.values() if isinstance(sample, dict) else [sample])), file
    soundfile.write(tmp_path / "nan.wav", np.full(700_000, np.nan, np.float32), 44100, subtype="FLOAT")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 44100)
    soundfile.write(tmp_path / "whole.flac", 0.1 * noise.repeat(12, 0), 44100)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "whole.flac").read_bytes()[:90_000])
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "max.wav", np.full((30_000, 2), 3.4e38, np.float32), 44100, subtype="FLOAT")
    for file in ("max.wav", "nan.wav", "empty.wav", "cut.flac", "text.wav", "missing.wav"):
        with pytest.raises(CorruptFile, match=file):
            made.read(tmp_path / file, None, None)


def test_only_the_cut_is_decoded_and_it_is_the_same(tmp_path):
    made = pipeline(Encoder("pann-resnet38", seconds=1.0))
    samples = sound(5, 32000)
    soundfile.write(tmp_path / "a.wav", samples, 32000, subtype="FLOAT")
    torch.testing.assert_close(made.read(tmp_path / "a.wav", None, None), made.of_samples(samples, None))
    part, rate = made.part(tmp_path / "a.wav", None)
    assert len(part) == rate == 32000
