"""The towers that the papers use: CLAP's audio, CLIP's image and text, BERT, HuBERT, ViT and ResNet18."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..config import Encoder
from ..pipelines import check_augment
from ..pipelines.caption import ByteTokens, Caption, PublishedTokens
from ..pipelines.picture import CLIP, HALF, IMAGENET, Picture
from ..pipelines.sound import ClapMel, Spectrogram, Wave
from ..pipelines.video import Frames
from .hugging import Tower, expectations

_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def _pictures(config: Encoder, size: int, colours: tuple) -> Picture:
    """What reads the pictures of an encoder, or the frames of videos."""
    augment = check_augment(config, Picture.known)
    return Frames(size, colours, augment, config.frames) if config.frames else Picture(size, colours, augment)


def _over_time(encode: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(B, D) of pictures (B, 3, H, W), or of videos (B, T, 3, H, W) the mean over their frames."""
    if x.ndim == 4:
        return encode(x)
    return encode(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1)


class ClapAudio(Tower):
    """HTS-AT of CLAP (Wu et al. 2023): log-mel spectrograms of 10 s to 768 numbers."""

    kind, tower = "ClapAudio", "audio_model"
    tiny = {"patch_embeds_hidden_size": 8, "hidden_size": 64, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]}

    @classmethod
    def pipeline(cls, config: Encoder) -> ClapMel:
        published, expected = cls.configuration(config), expectations(config.pretrained)
        band = (expected.get("frequency_min", 50), expected.get("frequency_max", 14_000))
        return ClapMel(10.0, check_augment(config, ClapMel.known), published.enable_fusion, band)

    def layers(self) -> list[list[nn.Module]]:
        swin = self.model.audio_encoder
        blocks = [[block] for stage in swin.layers for block in stage.blocks]
        return [[swin.patch_embed, swin.batch_norm], *blocks]

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        pooled_BD = self.model(**x).pooler_output
        if self.training and "is_longer" in x and not x["is_longer"].any():
            # Without a long clip the fusion's weights have no gradient at all, on which other ranks would wait.
            pooled_BD = pooled_BD + 0 * sum(p.sum() for p in self.model.audio_encoder.patch_embed.fusion_model.parameters())
        return pooled_BD


class ClapFused(ClapAudio):
    """HTS-AT with CLAP's feature fusion, for clips longer than 10 s (ISMIR 2024: laion/clap-htsat-fused)."""

    full = {"enable_fusion": True}


class ClipImage(Tower):
    """The image tower of CLIP ViT-B/32: pictures of 224 px to 768 numbers."""

    kind, tower = "CLIPVision", "vision_model"
    tiny = {**_SMALL, "image_size": 64, "patch_size": 32}
    colours = CLIP

    @classmethod
    def pipeline(cls, config: Encoder) -> Picture:
        expected = expectations(config.pretrained)
        colours = (expected.get("image_mean", cls.colours[0]), expected.get("image_std", cls.colours[1]))
        return _pictures(config, cls.configuration(config).image_size, colours)

    def layers(self) -> list[list[nn.Module]]:
        return [[self.model.embeddings, self.model.pre_layrnorm], *([layer] for layer in self.model.encoder.layers)]

    def forward(self, x: Tensor) -> Tensor:
        return _over_time(lambda pixels: self.model(pixel_values=pixels).pooler_output, x)


class ClipImage16(ClipImage):
    """The image tower of CLIP ViT-B/16 (ISMIR 2024)."""

    full = {"patch_size": 16}


class ClipText(Tower):
    """The text tower of CLIP: up to 77 tokens to the state of the last, 512 numbers."""

    kind, tower = "CLIPText", "text_model"
    tiny = {**_SMALL, "vocab_size": 512, "bos_token_id": 510, "eos_token_id": 511, "pad_token_id": 511}
    longest = 77

    @classmethod
    def pipeline(cls, config: Encoder) -> Caption:
        if config.pretrained:
            tokens = PublishedTokens(config.pretrained, cls.longest)
        else:
            tokens = ByteTokens(*cls.special(config), offset=3, longest=cls.longest)
        return Caption(tokens, config.template, check_augment(config, Caption.known))

    @classmethod
    def special(cls, config: Encoder) -> tuple[int, int, int]:
        """Token numbers of beginning, end and padding; CLIP pads with the end."""
        made = cls.configuration(config)
        return made.bos_token_id, made.eos_token_id, made.eos_token_id

    def layers(self) -> list[list[nn.Module]]:
        return [[self.model.embeddings], *([layer] for layer in self.model.encoder.layers)]

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return self.model(**x).pooler_output


class Bert(ClipText):
    """BERT base, uncased: the last state of its first token, 768 numbers."""

    kind, tower = "Bert", ""
    tiny = {**_SMALL, "vocab_size": 512}
    arguments = {"add_pooling_layer": False}
    dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    longest = 128

    @classmethod
    def special(cls, config: Encoder) -> tuple[int, int, int]:
        return 1, 2, 0

    def layers(self) -> list[list[nn.Module]]:
        return [[self.model.embeddings], *([layer] for layer in self.model.encoder.layer)]

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return self.model(**x).last_hidden_state[:, 0].clone()


class Vit(ClipImage):
    """ViT-B/16: pictures of 224 px to the last state of its class token, 768 numbers."""

    kind, tower = "ViT", ""
    colours = HALF
    arguments = {"add_pooling_layer": False}
    dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob")

    def layers(self) -> list[list[nn.Module]]:
        blocks = self.model.layers if hasattr(self.model, "layers") else self.model.encoder.layer  # transformers 5 and 4
        return [[self.model.embeddings], *([layer] for layer in blocks)]

    def forward(self, x: Tensor) -> Tensor:
        return _over_time(lambda pixels: self.model(pixel_values=pixels).last_hidden_state[:, 0].clone(), x)


class Hubert(Tower):
    """HuBERT base: 16 kHz sound to 768 numbers, the mean over time of a trained mixture of all hidden states (Yang et al., SUPERB)."""

    kind = "Hubert"
    tiny = {**_SMALL, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    # its own masking draws from numpy's global generator, and a layer that is left out has no state to mix
    always = {"apply_spec_augment": False, "mask_time_prob": 0.0, "layerdrop": 0.0}
    dropouts = ("hidden_dropout", "attention_dropout", "activation_dropout")

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.mixture = nn.Parameter(torch.zeros(model.config.num_hidden_layers + 1))

    def freeze(self, count: int) -> None:
        """As of any encoder; the mixture is trained also over frozen states, as SUPERB does it."""
        super().freeze(count)
        self.mixture.requires_grad_(True)

    @classmethod
    def pipeline(cls, config: Encoder) -> Wave:
        return Wave(config.seconds or 8.0, check_augment(config, Wave.known))

    def layers(self) -> list[list[nn.Module]]:
        m = self.model
        stem = [m.feature_extractor, m.feature_projection, m.encoder.pos_conv_embed, m.encoder.layer_norm]
        return [stem, *([layer] for layer in m.encoder.layers)]

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        states = self.model(x["input_values"], output_hidden_states=True).hidden_states  # 1 + layers of (B, T, D)
        mixed_BTD = sum(weight * state for weight, state in zip(self.mixture.softmax(0), states, strict=True))
        frames_B = self.model._get_feat_extract_output_lengths(x["samples"]).clamp(min=1)
        inside_BT = torch.arange(mixed_BTD.shape[1], device=mixed_BTD.device) < frames_B[:, None]
        return (mixed_BTD * inside_BT[..., None]).sum(1) / frames_B[:, None]


class ResNet18(Tower):
    """ResNet18 for pictures: 512 numbers, the mean over places, and frames, of its last features (MMCosine's visual encoder)."""

    kind = "ResNet"
    full = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
    tiny = {"layer_type": "basic", "embedding_size": 8, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]}

    def __init__(self, model: nn.Module) -> None:
        nn.Module.__init__(self)
        self.model = model
        self.d_out = model.config.hidden_sizes[-1]

    @classmethod
    def pipeline(cls, config: Encoder) -> Picture | Spectrogram:
        return _pictures(config, 64 if config.size == "tiny" else 224, IMAGENET)

    def layers(self) -> list[list[nn.Module]]:
        return [[self.model.embedder], *([layer] for stage in self.model.encoder.stages for layer in stage.layers)]

    def forward(self, x: Tensor) -> Tensor:
        return _over_time(lambda pixels: self.model(pixel_values=pixels).pooler_output.flatten(1).clone(), x)


class ResNet18Audio(ResNet18):
    """ResNet18 for spectrograms, one channel (MMCosine's audio encoder)."""

    full = {**ResNet18.full, "num_channels": 1}
    tiny = {**ResNet18.tiny, "num_channels": 1}

    @classmethod
    def pipeline(cls, config: Encoder) -> Spectrogram:
        return Spectrogram(config.seconds or 3.0, check_augment(config, Spectrogram.known))
