"""The encoders' own arithmetic, with stand-ins for their weights; the network test at the end runs the real ones."""

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import nn

from transphere.training.data import espeak
from transphere.training.encoders import ENCODERS, encoder, image, transcript
from transphere.training.encoders.audio import read_sound
from transphere.training.encoders.duration import Duration
from transphere.training.encoders.image import EfficientNetLite0, flatten, open_image
from transphere.training.encoders.speech import MoonshineTiny
from transphere.training.encoders.text import MiniLM
from transphere.training.errors import CorruptFile, UserError
from transphere.training.pipelines.sound import Wave


def tone(path, seconds=0.5, rate=44_100, channels=1):
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    soundfile.write(path, np.repeat(wave[:, None], channels, 1), rate)
    return path


def test_names():
    assert {"efficientnet-lite0", "minilm-l6", "moonshine-tiny", "moonshine-transcript", "duration"} == set(ENCODERS)
    for name in ENCODERS:
        made = encoder(name)  # weights are not loaded yet
        assert made.name == name and made.dim > 0 and made.modality in ("image", "text", "speech")
    with pytest.raises(UserError, match="encoder: unknown name 'moonshine'; did you mean 'moonshine-tiny'"):
        encoder("moonshine")


# --- sound


@pytest.mark.parametrize("ending", ["ogg", "wav", "flac"])
def test_read_sound(tmp_path, ending):
    path = tone(tmp_path / f"a tone é.{ending}", channels=2)
    samples, rate = read_sound(path)
    assert samples.shape == (22_050,) and rate == 44_100 and samples.dtype == np.float32
    samples, rate = read_sound(path, 16_000)
    assert samples.shape == (8_000,) and rate == 16_000
    peak = np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)
    assert abs(peak - 440) < 3 and abs(samples.std() - 0.3 / np.sqrt(2)) < 0.01


@pytest.mark.parametrize("keep", [0, 3, 0.05, 0.5, 0.9, 0.999, -1])
def test_a_truncated_ogg(tmp_path, keep):
    data = tone(tmp_path / "whole.ogg", 3).read_bytes()
    read_sound(tmp_path / "whole.ogg")
    length = int(keep * len(data)) if 0 < keep < 1 else keep
    (tmp_path / "half.ogg").write_bytes(data[:length])
    with pytest.raises(CorruptFile, match="half.ogg"):
        read_sound(tmp_path / "half.ogg")


def test_a_truncated_wav(tmp_path):
    for ending in ("aiff", "wav"):
        data = tone(tmp_path / f"whole.{ending}", 3).read_bytes()
        half = tmp_path / f"half.{ending}"
        half.write_bytes(data[: len(data) // 2])
        for seconds in (None, 1.0):  # read whole, and only a second of it
            with pytest.raises(CorruptFile, match=f"{half.name}: the sound is cut short: [0-9]+ bytes are missing"):
                read_sound(half) if seconds is None else Wave(seconds, frozenset()).part(half, None)
    streamed = bytearray(data)
    streamed[4:8] = b"\xff\xff\xff\xff"
    (tmp_path / "streamed.wav").write_bytes(streamed)
    assert len(read_sound(tmp_path / "streamed.wav")[0]) == len(read_sound(tmp_path / "whole.wav")[0])


def test_sound_that_is_none(tmp_path):
    (tmp_path / "text.ogg").write_text("hello")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan), 16_000, subtype="FLOAT")
    for name in ("text.ogg", "empty.wav", "nan.wav", "absent.ogg"):
        with pytest.raises(CorruptFile, match=name):
            read_sound(tmp_path / name)


def test_duration_knows_length_and_nothing_else(tmp_path):
    paths = [tone(tmp_path / "a.wav", 0.5), tone(tmp_path / "b.wav", 0.5, 8_000, 2), tone(tmp_path / "c.wav", 2)]
    x = Duration().encode(paths)
    assert x.shape == (3, Duration.dim) and x.dtype == torch.float32
    assert torch.allclose(x[0], x[1]) and not torch.allclose(x[0], x[2])
    assert torch.allclose(x[:, 0], torch.tensor([0.5, 0.5, 2]).log())


def test_moonshine_pools_each_clip_alone_and_keeps_order(tmp_path):
    class Session:
        def run(self, outputs, inputs):
            assert inputs["input_values"].shape == inputs["attention_mask"].shape and inputs["input_values"].dtype == np.float32
            length = inputs["input_values"].shape[1]
            assert 16_000 < length <= 31 * 16_000  # with half a second of silence on each side
            return [np.stack([np.full((1, 288), length), np.full((1, 288), length + 2)], 1).astype(np.float32)]

    speech = MoonshineTiny()
    speech.__dict__["_session"] = Session()
    x = speech.encode([tone(tmp_path / f"{n}.wav", seconds) for n, seconds in enumerate((1, 0.01, 0.5, 40))])
    assert x.shape == (4, 576) and torch.equal(x[:, 288:], torch.ones(4, 288))
    assert x[0, 0] > x[2, 0] > x[1, 0] and x[3, 0] == x[3, 287]
    assert x[0, 0] - x[2, 0] == 8_000
    (tmp_path / "bad.ogg").write_bytes(b"")
    with pytest.raises(CorruptFile, match="bad.ogg"):
        speech.encode([tmp_path / "0.wav", tmp_path / "bad.ogg"])


# --- text


def test_minilm_averages_over_real_tokens_only():
    hidden = torch.tensor([[[1.0, 0], [0, 1], [9, 9]], [[2, 0], [9, 9], [9, 9]]])

    def tokenizer(texts, **options):
        assert options["padding"] and options["truncation"]
        return {"attention_mask": torch.tensor([[1, 1, 0], [1, 0, 0]])}

    def model(attention_mask):
        return type("Output", (), {"last_hidden_state": hidden})

    text = MiniLM()
    text.__dict__["_parts"] = tokenizer, model
    half = 0.5**0.5
    assert torch.allclose(text.encode(["a b", "a"]), torch.tensor([[half, half], [1, 0]]))


# --- images


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_images_of_every_mode(tmp_path, mode):
    ending = "tiff" if mode == "CMYK" else "png"
    Image.linear_gradient("L").convert("RGB").convert(mode).save(tmp_path / f"a.{ending}")
    image = open_image(tmp_path / f"a.{ending}")
    assert image.size == (256, 256) and image.mode == "RGBA" and abs(np.asarray(image)[..., 0].mean() - 127) < 8


def test_an_image_of_16_bits(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(open_image(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 128, 255]
    Image.fromarray(np.array([[0, 32768, 65535]], np.int32)).save(tmp_path / "held in 32.tiff")
    assert np.asarray(open_image(tmp_path / "held in 32.tiff"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("pixels", [[0, 70_000], [-1, 9], [0.0, 1.0], [float("nan"), 0.0]])
def test_an_image_of_which_nobody_knows_what_is_white(tmp_path, pixels):
    Image.fromarray(np.array([pixels], np.int32 if isinstance(pixels[0], int) else np.float32)).save(tmp_path / "é.tiff")
    with pytest.raises(CorruptFile, match="é.tiff: not an image that can be read: expected 8 or 16 bits a channel, got (int|float)32"):
        open_image(tmp_path / "é.tiff")


def test_transparency_becomes_grey_so_that_white_on_white_shows():
    stamp = Image.new("RGBA", (2, 1), (255, 255, 255, 0))
    stamp.putpixel((1, 0), (255, 255, 255, 255))
    assert np.asarray(flatten(stamp)).tolist() == [[[127] * 3, [255] * 3]]


def test_an_upright_copy_of_a_turned_photograph(tmp_path):
    photo = Image.new("RGB", (30, 20))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (20, 30)


def test_images_that_cannot_be_read(tmp_path, monkeypatch):
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:500])
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    for name in ("half.png", "zero.png", "text.png", "absent.png"):
        with pytest.raises(CorruptFile, match=f"{name}: not an image that can be read"):
            open_image(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(CorruptFile, match="whole.png"):
        open_image(tmp_path / "whole.png")


def test_batch_norm_is_folded_into_the_convolution():
    conv, norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5, eps=1e-3).eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var.sub_(1)):
        tensor.add_(torch.rand(5))
    state = {f"{name}.{key}": value for name, part in (("c", conv), ("n", norm)) for key, value in part.state_dict().items()}
    weight, bias = image._folded(state, "c", "n")
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(nn.functional.conv2d(x, weight, bias), norm(conv(x)), atol=1e-5)


def test_padding_of_strided_convolutions_is_tensorflows():
    lite = EfficientNetLite0()
    lite.__dict__["_weights"] = {"three": (torch.ones(1, 1, 3, 3), torch.zeros(1)), "five": (torch.ones(1, 1, 5, 5), torch.zeros(1))}
    x = torch.ones(1, 1, 4, 4)
    # an even side and a 3 x 3 kernel: nothing is added to the left and above
    assert lite._conv(x, "three", stride=2, linear=True)[0, 0].tolist() == [[9, 6], [6, 4]]
    assert lite._conv(x, "five", stride=2, linear=True)[0, 0].tolist() == [[16, 12], [12, 9]]
    assert lite._conv(x, "three", linear=True)[0, 0, 0].tolist() == [4, 6, 6, 4]
    assert lite._conv(x, "three")[0, 0].max() == 6


def test_lite0_from_files_with_random_weights(tmp_path):
    generator = torch.Generator().manual_seed(0)
    weights = {}
    channels, block = 32, 0
    weights["_conv_stem"] = (3, 32, 3, 1)
    for kernel, _, expansion, out, repeats in image._STAGES:
        for _ in range(repeats):
            wide = channels * expansion
            if expansion > 1:
                weights[f"_blocks.{block}._expand_conv"] = (channels, wide, 1, 1)
            weights[f"_blocks.{block}._depthwise_conv"] = (wide, wide, kernel, wide)
            weights[f"_blocks.{block}._project_conv"] = (wide, out, 1, 1)
            channels, block = out, block + 1
    weights["_conv_head"] = (channels, 1280, 1, 1)
    assert list(weights) == [name for name, _ in image._layers()]
    lite = EfficientNetLite0()
    lite.__dict__["_weights"] = {
        name: (torch.randn(out, into // groups, k, k, generator=generator) * (k * k * into / groups) ** -0.5, torch.zeros(out))
        for name, (into, out, k, groups) in weights.items()
    }
    Image.effect_noise((300, 100), 80).save(tmp_path / "wide.png")
    Image.new("RGBA", (10, 40), (255, 255, 255, 0)).save(tmp_path / "nothing.png")
    x = lite.encode([tmp_path / "wide.png", tmp_path / "nothing.png"])
    assert x.shape == (2, 1280) and x.dtype == torch.float32 and x[0].std() > 0
    assert torch.equal(x[1], torch.zeros(1280))  # mid grey is the network's zero, and these weights have no bias
    assert torch.allclose(lite.encode([tmp_path / "wide.png"]), x[:1], atol=1e-5)


@pytest.mark.network
def test_the_real_weights(tmp_path):
    sentences = ["A penguin.", "A small bird that cannot fly.", "A lorry full of gravel on the motorway, seen from behind."]
    text = encoder("minilm-l6").encode(sentences)
    assert text.shape == (3, 384) and text[0] @ text[1] > text[0] @ text[2] + 0.1
    assert torch.allclose(text.norm(dim=-1), torch.ones(3))
    assert torch.allclose(encoder("minilm-l6").encode(["A penguin."]), text[:1], atol=1e-5)  # padding changes nothing
    Image.linear_gradient("L").save(tmp_path / "gradient.png")
    x = encoder("efficientnet-lite0").encode([tmp_path / "gradient.png"])
    assert x.shape == (1, 1280) and torch.allclose(x[0, LITE0_CHANNELS], LITE0_OF_GRADIENT, atol=1e-3)
    x = encoder("moonshine-tiny").encode([tone(tmp_path / "a.wav"), tone(tmp_path / "b.wav", 0.01), tone(tmp_path / "c.wav", 35)])
    assert x.shape == (3, 576) and x.isfinite().all()


# from the network as published by the package efficientnet-lite-pytorch 0.1.0
LITE0_CHANNELS = [29, 71, 462, 468, 689, 872]
LITE0_OF_GRADIENT = torch.tensor([3.19214, 4.58520, 3.11333, 4.36731, 3.18197, 4.55276])


def test_a_transcript_is_the_likeliest_tokens(tmp_path):
    class Recogniser:
        """Hears "hi é" whatever is said, then the end."""

        def run(self, _, feed):
            if "input_values" in feed:
                self.heard = feed["input_values"].shape
                return [np.zeros((1, 5, 288), np.float32)]
            logits = np.zeros((1, feed["input_ids"].shape[1], 6), np.float32)
            logits[0, -1, [4, 3, 5, 2][feed["input_ids"].shape[1] - 1]] = 1
            return [logits]

    tokens = list(transcript._tokens(b"\x05<unk>\x03<s>\x04</s>\x02hi\x03\xe2\x96\x81\x02\xc3\xa9\x80\x01" + b"x" * 128))
    assert tokens == [b"<unk>", b"<s>", b"</s>", b"hi", b"\xe2\x96\x81", b"\xc3\xa9", b"x" * 128]
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(16_000), 16_000)
    assert transcript._hear(Recogniser(), Recogniser(), tokens, path) == "hi\u00e9"


@pytest.mark.network
def test_the_real_cascade_understands_a_word(tmp_path):
    samples, rate = espeak.speak("alligator, banana", "en-us")
    soundfile.write(tmp_path / "a.wav", samples, rate)
    cascade = encoder("moonshine-transcript")
    assert "banana" in cascade.transcribe(tmp_path / "a.wav").lower()
    x, words = cascade.encode([tmp_path / "a.wav"]), encoder("minilm-l6").encode(["banana", "a gun"])
    assert (x @ words.T)[0].argmax() == 0
