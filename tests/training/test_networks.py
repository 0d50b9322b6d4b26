"""Encoders that are trained: sizes against the published ones, shapes, freezing, recomputation, published checkpoints."""

import copy
import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from transphere.training.config import Encoder
from transphere.training.data.manifest import Item
from transphere.training.encoders import hub
from transphere.training.encoders.networks import NETWORKS, build_encoder, network, pipeline
from transphere.training.encoders.pann import PannResNet38
from transphere.training.errors import UserError
from transphere.training.heads import FUSIONS

pytestmark = pytest.mark.usefixtures("one_thread")

READ = [name for name in NETWORKS if name not in ("mlp", "embedding")]
ITEM = Item("i", "train", "g", "a caption", {})
# name -> parameters, width of the vector. What published counts hold besides is in PUBLISHED.
SIZES = {
    "clap": (27_534_488, 768),
    "clap-fused": (27_549_128, 768),
    "clip-image": (87_456_000, 768),
    "clip-image-16": (85_799_424, 768),
    "clip-text": (63_165_952, 512),
    "bert": (108_891_648, 768),
    "hubert": (94_370_957, 768),
    "vit": (85_798_656, 768),
    "pann-resnet38": (68_507_072, 2048),
    "resnet18": (11_176_512, 512),
    "resnet18-audio": (11_170_240, 512),
}
# published total, the encoders that are part of it, and the parameters of it that none of them has
PUBLISHED = {
    "CLIP ViT-B/32 (Radford et al. 2021)": (151_277_313, ("clip-image", "clip-text"), 768 * 512 + 512 * 512 + 1),  # projections, scale
    "CLIP ViT-B/16": (149_620_737, ("clip-image-16", "clip-text"), 768 * 512 + 512 * 512 + 1),
    "BERT base, uncased (Devlin et al. 2019)": (109_482_240, ("bert",), 768 * 768 + 768),  # pooler
    "HuBERT base (Hsu et al. 2021)": (94_371_712, ("hubert",), 768 - 13),  # mask embedding; ours has 13 weights of a mixture
    "ViT-B/16 (Dosovitskiy et al. 2021)": (86_567_656, ("vit",), 768 * 1000 + 1000),  # ImageNet's classes
    "PANN ResNet38 (Kong et al. 2020, table 6)": (73_783_247, ("pann-resnet38",), 2048 * 2048 + 2048 + 2048 * 527 + 527),  # its tags
    "ResNet18 (He et al. 2016)": (11_689_512, ("resnet18",), 512 * 1000 + 1000),
}


def count(module):
    return sum(p.numel() for p in module.parameters())


def inputs(name, size="tiny", batch=3):
    made = pipeline(Encoder(name, size=size))
    return made.collate([made.blank()] * batch)


@pytest.fixture(scope="module")
def sizes():
    """Of all encoders at full width, which on the meta device take no memory."""
    with torch.device("meta"):
        made = {name: build_encoder(Encoder(name)) for name in READ}
    return {name: (count(encoder), encoder.d_out) for name, encoder in made.items()}


def test_full_widths(sizes):
    assert sizes == SIZES


@pytest.mark.parametrize("published", PUBLISHED)
def test_parameters_are_the_published_ones(published, sizes):
    total, parts, rest = PUBLISHED[published]
    assert sum(sizes[part][0] for part in parts) + rest == total


@pytest.mark.parametrize("name", READ)
def test_what_comes_out(name):
    encoder, x = build_encoder(Encoder(name, size="tiny")).eval(), inputs(name)
    y = encoder(x)
    assert y.shape == (3, encoder.d_out) and y.dtype == torch.float32 and y.isfinite().all()
    torch.testing.assert_close(y[0], y[2])
    one = encoder({key: part[:1] for key, part in x.items()} if isinstance(x, dict) else x[:1])
    torch.testing.assert_close(one, y[:1], atol=1e-5, rtol=1e-4)  # an item's vector is its own, whatever it is batched with


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_full_width_trains(name):
    """One step of every encoder at its published size: seconds each, and gigabytes."""
    encoder = build_encoder(Encoder(name))
    y = encoder(inputs(name, "full", 2))
    y.square().sum().backward()
    assert y.shape == (2, SIZES[name][1]) and y.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("name", READ)
def test_recomputed_activations_give_the_same_gradient(name):
    """Also where dropout draws, and without counting a batch into a batch norm's statistics twice."""
    gradients, buffers = [], []
    for again in (False, True):
        torch.manual_seed(0)
        encoder = build_encoder(Encoder(name, size="tiny", checkpoint=again)).train()
        encoder(inputs(name)).square().sum().backward()
        gradients.append({key: p.grad for key, p in encoder.named_parameters() if p.grad is not None})
        buffers.append(dict(encoder.named_buffers()))
    assert gradients[0].keys() == gradients[1].keys()
    for first, second in (gradients, buffers):
        for key in first:
            torch.testing.assert_close(second[key], first[key], msg=key)


@pytest.mark.parametrize("name", READ)
def test_copies_and_precisions(name):
    """A copy (the average of weights is one) recomputes its own layers; bfloat16 by autocast and float64 go through."""
    encoder, x = build_encoder(Encoder(name, size="tiny", checkpoint=True)).train(), inputs(name)
    twin = copy.deepcopy(encoder)
    twin(x).square().sum().backward()
    assert any(p.grad is not None for p in twin.parameters()) and all(p.grad is None for p in encoder.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        y = encoder(x)
    y.float().square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())
    if name == "clip-text" and transformers.__version__ < "5":  # its mask has a number in it that float64 cannot turn into a float
        return
    wide = {key: part.double() if part.is_floating_point() else part for key, part in x.items()} if isinstance(x, dict) else x.double()
    assert build_encoder(Encoder(name, size="tiny")).double().eval()(wide).dtype == torch.float64


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("layers", [0, 1, -1])
def test_freezing(name, layers):
    encoder = build_encoder(Encoder(name, size="tiny", freeze=layers)).train()
    before = {key: x.clone() for key, x in encoder.state_dict().items()}
    y = encoder(inputs(name))
    if layers < 0:
        assert y.requires_grad == (name == "hubert") and not any(module.training for module in encoder.modules())
    else:
        y.square().sum().backward()
        frozen = {id(p) for layer in encoder.layers()[: layers + 1] for module in layer for p in module.parameters()} if layers else set()
        assert all((id(p) in frozen) == (not p.requires_grad) for p in encoder.parameters())
        assert not layers or frozen
    same = [torch.equal(x, before[key]) for key, x in encoder.state_dict().items()]  # batch norms move where they are trained
    assert all(same) or layers >= 0
    with pytest.raises(UserError, match="freeze: .* got 99"):
        encoder.freeze(99)


def test_hubert_mixes_its_layers_over_the_sound_alone():
    encoder, made = build_encoder(Encoder("hubert", size="tiny")).eval(), pipeline(Encoder("hubert", size="tiny", seconds=2.0))
    x = made.collate([made.of_samples(np.random.default_rng(0).normal(size=16000).astype(np.float32), None)])
    with torch.no_grad():
        states = encoder.model(x["input_values"], output_hidden_states=True).hidden_states
        torch.testing.assert_close(encoder(x), torch.stack([state[:, :49].mean(1) for state in states]).mean(0))  # 1 s is 49 frames
        encoder.mixture[1] = 30.0  # all of the weight on one layer
        torch.testing.assert_close(encoder(x), states[1][:, :49].mean(1))


@pytest.mark.parametrize("name", ["mlp", "embedding"])
def test_encoders_of_vectors(name):
    encoder = build_encoder(Encoder(name, width=16, classes=5), 1 if name == "embedding" else 7)
    x = torch.tensor([[4.0], [0.0]]) if name == "embedding" else torch.randn(9, 7)
    encoder.fit(x)
    assert encoder(x).shape == (len(x), 16) == (len(x), encoder.d_out) and pipeline(Encoder(name)) is None
    build_encoder(Encoder(name, width=16, classes=5, freeze=-1), 1)
    if name == "embedding":
        with pytest.raises(UserError, match="expected classes 0 to 4, got 5"):
            encoder.fit(torch.tensor([[5.0]]))
        with pytest.raises(UserError, match="expected vectors of one number"):
            build_encoder(Encoder(name), 3)


def published_keys():
    """The names and shapes of ResNet38_mAP=0.434.pth, written from the published class: torchlibrosa's front end, trunk, tags."""
    keys = {
        "spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
        "spectrogram_extractor.stft.conv_imag.weight": (513, 1, 1024),
        "logmel_extractor.melW": (513, 64),
    }

    def norm(name, width):
        keys.update({f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")})
        keys[f"{name}.num_batches_tracked"] = ()

    norm("bn0", 64)
    for block, d_in, d_out in (("conv_block1", 1, 64), ("conv_block_after1", 512, 2048)):
        for k, width in ((1, d_in), (2, d_out)):
            keys[f"{block}.conv{k}.weight"] = (d_out, width, 3, 3)
            norm(f"{block}.bn{k}", d_out)
    d_in = 64
    for stage, (depth, d_out) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for block in range(depth):
            name = f"resnet.layer{stage}.{block}"
            for k in (1, 2):
                keys[f"{name}.conv{k}.weight"] = (d_out, d_in if k == 1 else d_out, 3, 3)
                norm(f"{name}.bn{k}", d_out)
            if stage > 1 and block == 0:  # its 0 is an average pooling
                keys[f"{name}.downsample.1.weight"] = (d_out, d_in, 1, 1)
                norm(f"{name}.downsample.2", d_out)
            d_in = d_out
    return {**keys, "fc1.weight": (2048, 2048), "fc1.bias": (2048,), "fc_audioset.weight": (527, 2048), "fc_audioset.bias": (527,)}


def test_pann_takes_the_published_checkpoint(tmp_path):
    state = {
        name: torch.tensor(7) if name.endswith("tracked") else torch.tensor(k / 1000).expand(shape)  # one number a tensor: a small file
        for k, (name, shape) in enumerate(published_keys().items())
    }
    trained = sum(x.numel() for name, x in state.items() if "running" not in name and "tracked" not in name and "extractor" not in name)
    assert trained == 73_783_247
    torch.save({"iteration": 1, "model": state}, tmp_path / "ResNet38.pth")
    encoder = build_encoder(Encoder("pann-resnet38", pretrained=str(tmp_path / "ResNet38.pth")))
    assert all(torch.equal(x, state[name]) for name, x in encoder.state_dict().items())

    torch.save({"model": {"bn0.weight": torch.zeros(64)}}, tmp_path / "short.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    for file, message in (("short.pth", "Missing key.*conv_block1"), ("text.pth", "not the checkpoint"), ("none.pth", "no such file")):
        with pytest.raises(UserError, match=message):
            PannResNet38(width=4, d_out=32).load_published(tmp_path / file)


def vocabulary(folder, name):
    """A tokenizer small enough to write down."""
    if name == "bert":
        (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "thing"]))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    else:
        words = ["a", "b", "a</w>", "b</w>", "ab</w>", "<|startoftext|>", "<|endoftext|>"]
        (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
        (folder / "merges.txt").write_text("#version: 0.2\na b</w>\n")
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders as published: joint CLIP and CLAP, BERT, HuBERT, ViT and ResNet, all tiny."""
    import transformers as t

    root = tmp_path_factory.mktemp("models")
    tiny = {name: network(name).configuration(Encoder(name, size="tiny")) for name in READ if name != "pann-resnet38"}
    text = {**tiny["clip-text"].to_dict(), "bos_token_id": 5, "eos_token_id": 6, "pad_token_id": 6}
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
    joint = {
        "clip": t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=tiny["clip-image"].to_dict())),
        "clap": t.ClapModel(t.ClapConfig(text_config=small, audio_config=tiny["clap-fused"].to_dict())),
        "bert": t.BertModel(tiny["bert"], add_pooling_layer=True),
        "hubert": t.HubertModel(t.HubertConfig(**{**tiny["hubert"].to_dict(), "mask_time_prob": 0.05, "layerdrop": 0.1})),
        "vit": t.ViTModel(tiny["vit"]),
        "resnet18": t.ResNetModel(tiny["resnet18"]),
    }
    for name, model in joint.items():
        model.save_pretrained(root / name)
    vocabulary(root / "bert", "bert")
    vocabulary(root / "clip", "clip")
    (root / "clip" / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}))
    (root / "clap" / "preprocessor_config.json").write_text(json.dumps({"frequency_min": 0}))
    return root, joint


@pytest.mark.parametrize(
    ("name", "folder", "tower"),
    [
        ("clip-image", "clip", "vision_model"),
        ("clip-text", "clip", "text_model"),
        ("clap", "clap", "audio_model"),
        ("bert", "bert", ""),
        ("hubert", "hubert", ""),
        ("vit", "vit", ""),
        ("resnet18", "resnet18", ""),
    ],
)
def test_published_models_from_a_folder(name, folder, tower, models):
    root, joint = models
    encoder = build_encoder(Encoder(name, pretrained=str(root / folder))).eval()
    expected = (getattr(joint[folder], tower) if tower else joint[folder]).state_dict()
    got = encoder.model.state_dict()
    assert got and all(torch.equal(x, expected[key]) for key, x in got.items())
    made = pipeline(Encoder(name, pretrained=str(root / folder)))
    assert encoder(made.collate([made.blank()] * 2)).shape == (2, encoder.d_out)
    if name in ("bert", "clip-text"):
        ids = made.collate([made.read(["red thing"] if name == "bert" else ["ab"], ITEM, None), made.blank()])
        assert ids["input_ids"].tolist() == ([[2, 5, 6, 3], [2, 3, 0, 0]] if name == "bert" else [[5, 4, 6], [5, 6, 6]])
        assert ids["attention_mask"].sum(1).tolist() == ([4, 2] if name == "bert" else [3, 2])
    if name == "clip-image":
        assert made.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    if name == "clap":
        assert made.fusion and float(made.mel.filters[0].sum()) == 0 and float(made.mel.filters[1, 0]) > 0


def test_published_models_of_another_kind_are_refused(models, tmp_path):
    from safetensors.torch import load_file, save_file

    root, _ = models
    with pytest.raises(UserError, match="expected a model of type 'clip_vision_model' for clip-image, got 'bert'"):
        build_encoder(Encoder("clip-image", pretrained=str(root / "bert")))
    with pytest.raises(UserError, match="cannot be loaded"):
        build_encoder(Encoder("bert", pretrained=str(tmp_path)))
    for path in (root / "bert").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    short = {key: x for key, x in weights.items() if "layer.1.output.dense.bias" not in key}
    save_file(short, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 weights of bert, the first 'encoder.layer.1.output.dense.bias'"):
        build_encoder(Encoder("bert", pretrained=str(tmp_path)))
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(UserError, match="no tokenizer that can be read|knows no words"):
        pipeline(Encoder("bert", pretrained=str(tmp_path)))


def test_a_name_without_a_hub_is_told_at_once(monkeypatch):
    """Neither six times nor for half a minute, and with the way that works."""
    from huggingface_hub import HfApi

    asked = []

    def silent(self, name, timeout):
        asked.append(timeout)
        raise ConnectionError

    monkeypatch.setattr(HfApi, "model_info", silent)
    hub.offline.cache_clear()
    for make in (pipeline, build_encoder):
        with pytest.raises(UserError, match="pretrained: nobody/nothing: .* the hub does not answer; give a folder"):
            make(Encoder("bert", pretrained="nobody/nothing"))
    assert asked == [hub.TIMEOUT]
    hub.offline.cache_clear()


def test_dropout_is_set_where_there_is_one(models):
    root, _ = models
    for pretrained in (None, str(root / "bert")):
        encoder = build_encoder(Encoder("bert", size="full" if pretrained else "tiny", pretrained=pretrained, dropout=0.4))
        assert {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)} == {0.4}


@pytest.mark.parametrize("size", [(100, 70), (70, 100), (64, 64), (30, 300)])
def test_pictures_as_clip_prepares_them(size):
    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    published = kind(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
    expected = torch.as_tensor(np.asarray(published(image, return_tensors="np")["pixel_values"]))[0]
    torch.testing.assert_close(pipeline(Encoder("clip-image", size="tiny")).of_image(image, None), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FUSIONS)
def test_fusions(name):
    torch.manual_seed(0)
    fusion, x, y = FUSIONS[name](8, 5), torch.randn(3, 8), torch.randn(3, 8)
    assert fusion(x, y).shape == (3, 5)
    weights, bias = fusion.out.weight, fusion.out.bias
    expected = {
        "concat": lambda: torch.cat([x, y], 1) @ weights.T + bias,
        "gated": lambda: (torch.sigmoid(fusion.gate(x)) * fusion.value(y)) @ weights.T + bias,
        "film": lambda: (fusion.scale_shift(x)[:, :8] * y + fusion.scale_shift(x)[:, 8:]) @ weights.T + bias,
    }[name]()
    torch.testing.assert_close(fusion(x, y), expected)
