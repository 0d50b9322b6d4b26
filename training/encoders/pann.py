"""PANN ResNet38: log-mel spectrograms to 2,048 numbers (Kong et al., PANNs, 2020; the audio encoder of m-LTM)."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Encoder
from ..errors import UserError
from ..pipelines import check_augment
from ..pipelines.sound import PannMel
from .trainable import Trainable

_SKIPPED = ("spectrogram_extractor.", "logmel_extractor.", "fc1.", "fc_audioset.")  # its front end is our pipeline; its tags are not used
_DEPTHS = (3, 4, 6, 3)


class PannResNet38(Trainable):
    """The network up to the pooled features, with the published checkpoint's names for its weights.

    Takes (B, 1, T, 64): log-mel spectrograms in dB of 32 kHz sound. Two convolutions, 16 residual blocks that halve time and mels by
    average pooling, two convolutions; then the mean over mels, and the sum of maximum and mean over time. Clips of half a second at least.
    """

    def __init__(self, width: int = 64, d_out: int = 2048, dropout: float = 0.2, depths: tuple[int, ...] = _DEPTHS) -> None:
        super().__init__()
        self.d_out, self.dropout = d_out, dropout
        self.bn0 = nn.BatchNorm2d(64)
        self.conv_block1 = _Convolutions(1, width)
        self.resnet = _Stages(width, depths)
        self.conv_block_after1 = _Convolutions(8 * width, d_out)

    @classmethod
    def build(cls, config: Encoder) -> PannResNet38:
        size = {"width": 4, "d_out": 32, "depths": (1, 1, 1, 1)} if config.size == "tiny" else {}
        model = cls(**size, **({} if config.dropout is None else {"dropout": config.dropout}))
        if config.pretrained:
            model.load_published(Path(config.pretrained))
        return model

    @classmethod
    def pipeline(cls, config: Encoder) -> PannMel:
        return PannMel(config.seconds or 10.0, check_augment(config, PannMel.known))

    def layers(self) -> list[list[nn.Module]]:
        blocks = [[block] for stage in self.resnet.children() for block in stage]
        return [[self.bn0, self.conv_block1], *blocks, [self.conv_block_after1]]

    def load_published(self, path: Path) -> None:
        """Take the weights of a published checkpoint: {"model": state}, as ResNet38_mAP=0.434.pth."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("model", state)
            self.load_state_dict({name: x for name, x in state.items() if not name.startswith(_SKIPPED)})
        except FileNotFoundError:
            raise UserError(f"pretrained: {path}: no such file; PANN's is published as ResNet38_mAP=0.434.pth") from None
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, AttributeError) as error:
            lines = " ".join(str(error).split())
            raise UserError(f"pretrained: {path}: not the checkpoint of a PANN ResNet38: {lines[:300]}") from None

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)  # (B, 1, T, 64), each mel bin by its own statistics
        x = F.dropout(F.avg_pool2d(self.conv_block1(x), 2), self.dropout, self.training)  # (B, 64, T/2, 32)
        x = F.dropout(F.avg_pool2d(self.resnet(x), 2), self.dropout, self.training)  # (B, 512, T/32, 2)
        x = F.dropout(self.conv_block_after1(x), self.dropout, self.training)  # (B, 2048, T/32, 2)
        x_BCT = x.mean(3)
        return x_BCT.amax(2) + x_BCT.mean(2)


class _Convolutions(nn.Module):
    """Two 3 x 3 convolutions, each with batch norm and ReLU."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(d_in, d_out, 3), nn.BatchNorm2d(d_out)
        self.conv2, self.bn2 = _conv(d_out, d_out, 3), nn.BatchNorm2d(d_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.bn1(self.conv1(x)))
        return F.relu_(self.bn2(self.conv2(x)))


class _Block(_Convolutions):
    """A residual block; where `halve`, average pooling comes before its convolutions and in its shortcut."""

    def __init__(self, d_in: int, d_out: int, halve: bool) -> None:
        super().__init__(d_in, d_out)
        self.halve = halve
        nn.init.zeros_(self.bn2.weight)  # the block starts as its shortcut
        # a parameter-free pooling first, so that the names of the weights are the published ones
        self.downsample = nn.Sequential(nn.AvgPool2d(2), _conv(d_in, d_out, 1), nn.BatchNorm2d(d_out)) if halve else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu_(self.bn1(self.conv1(F.avg_pool2d(x, 2) if self.halve else x)))
        x = self.bn2(self.conv2(F.dropout(x, 0.1, self.training)))
        return F.relu_(x + shortcut)


class _Stages(nn.Module):
    def __init__(self, width: int, depths: tuple[int, ...]) -> None:
        super().__init__()
        d_in = width
        for number, depth in enumerate(depths):
            d_out = width << number
            blocks = [_Block(d_in if k == 0 else d_out, d_out, halve=number > 0 and k == 0) for k in range(depth)]
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
            d_in = d_out

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.children():
            x = stage(x)
        return x


def _conv(d_in: int, d_out: int, kernel: int) -> nn.Conv2d:
    conv = nn.Conv2d(d_in, d_out, kernel, padding=kernel // 2, bias=False)
    nn.init.xavier_uniform_(conv.weight)
    return conv
