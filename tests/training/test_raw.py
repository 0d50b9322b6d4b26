"""Training on files and texts with encoders that are trained: reading ahead, augmentation by key, fit, resume, eval."""

import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from transphere.training import checkpoint, config
from transphere.training.batch import load_batch
from transphere.training.data.manifest import Item, Manifest
from transphere.training.encoders.networks import pipeline
from transphere.training.errors import UserError
from transphere.training.model import build_model
from transphere.training.pipelines import read
from transphere.training.run import fit, open_run
from transphere.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = ("red", "green", "blue", "grey")
ENCODERS = {
    "image": {"name": "clip-image", "size": "tiny", "augment": ["crop", "flip", "erase"]},
    "text": {"name": "bert", "size": "tiny", "augment": ["drop"], "lr": 0.003},
    "audio": {"name": "pann-resnet38", "size": "tiny", "seconds": 1.0, "augment": ["crop", "mask"]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 items: a picture of a colour, its name in five captions, a tone of its pitch; every seventh lacks its sound."""
    root = tmp_path_factory.mktemp("raw ü")
    random, rows = np.random.default_rng(0), []
    for i in range(40):
        kind = i % 4
        pixels = random.integers(0, 60, (40, 50, 3)) + (120 * np.eye(4, 3)[kind]).astype(int)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{i}.png")
        t = np.arange(int(24000 * (0.6 + 0.05 * i))) / 24000
        soundfile.write(root / f"{i} ü.wav", 0.3 * np.sin(2 * np.pi * 300 * 2**kind * t), 24000)
        entries = {
            "image": {"path": f"{i}.png"},
            "text": {"texts": [f"{WORDS[kind]} thing number {k}" for k in range(3)]},
            "audio": None if i % 7 == 3 else {"path": f"{i} ü.wav"},
        }
        split = "train" if i < 24 else "val" if i < 32 else "test"
        meta = {"title": f"title {i}", "artist": WORDS[kind]}
        rows.append({"id": f"i{i}", "split": split, "group": f"g{i}", "caption": WORDS[kind], "modalities": entries, "meta": meta})
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root


def recipe(folder, tiny, **encoders):
    made = config.load("ismir2024", [*tiny, f"data.manifest={folder}/manifest.jsonl", "optim.epochs=3", "optim.lr=0.01", "data.workers=0"])
    chosen = {name: config.Encoder(**{**ENCODERS[name], **encoders.get(name, {})}) for name in ENCODERS}
    return made.replace(model={"encoders": chosen}, optim={"batch_size": 12})


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    return torch.equal(a, b)


def test_what_is_read_depends_on_key_and_item_alone(folder, tiny):
    made = recipe(folder, tiny)
    whole = load_batch(Manifest.read(folder / "manifest.jsonl"), made)
    assert whole.dims == {"image": 0, "text": 0, "audio": 0} and whole.present["audio"].sum() == 34
    lists = [[0, 1, 2, 3], [4, 5, 6], [10, 3]]
    first = list(whole.stream(lists, 5))
    assert [batch.ids for batch in first] == [["i0", "i1", "i2", "i3"], ["i4", "i5", "i6"], ["i10", "i3"]]
    assert first[0].inputs["image"].shape == (4, 3, 64, 64) and first[0].inputs["audio"].shape == (4, 1, 101, 64)
    before = torch.random.get_rng_state()
    for workers in (1, 2):
        later = list(load_batch(Manifest.read(folder / "manifest.jsonl"), made.replace(data={"workers": workers})).stream(lists[1:], 5))
        assert all(same(a.inputs, b.inputs) for a, b in zip(first[1:], later, strict=True))
    assert torch.equal(before, torch.random.get_rng_state())  # and no global generator moves
    again = next(iter(whole.stream([[3, 0]], 5)))
    assert torch.equal(again.inputs["image"][1], first[0].inputs["image"][0])
    other, plain = next(iter(whole.stream(lists, 6))), next(iter(whole.stream(lists)))
    assert not same(other.inputs["image"], first[0].inputs["image"]) and not same(other.inputs["audio"], first[0].inputs["audio"])
    assert same(plain.inputs, next(iter(whole.stream(lists))).inputs)
    one = next(iter(whole.select([3, 2, 1]).stream([[2, 1]])))  # a part of a part
    assert torch.equal(one.inputs["image"], plain.inputs["image"][[1, 2]])


@pytest.mark.parametrize("head", ["vmf", "residual"])
def test_fit_eval_and_resume(folder, tiny, tmp_path, head, monkeypatch):
    made = recipe(folder, tiny, audio={"freeze": -1}, image={"freeze": 1, "checkpoint": True}).replace(model={"head": head})
    fit(made, tmp_path / "straight", progress=False)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "straight" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    report = open_run(tmp_path / "straight").evaluate("test", progress=False)
    assert len(report["directions"]) == 9 and report["directions"]["image->text"]["queries"] == 8

    class Killed(BaseException):
        pass

    with monkeypatch.context() as patch:
        step = Trainer._step
        patch.setattr(Trainer, "_step", lambda self, *a: step(self, *a) if self.step < 5 else (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            fit(made, tmp_path / "cut", progress=False)
    fit(made.replace(data={"workers": 2}), tmp_path / "cut", resume=True, progress=False)
    a, b = (checkpoint.load_state(tmp_path / name / "last.pt")["model"] for name in ("straight", "cut"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_frozen_stays_and_rates_are_own(folder, tiny, tmp_path):
    made = recipe(folder, tiny, audio={"freeze": -1}, image={"freeze": 1})
    whole = load_batch(Manifest.read(folder / "manifest.jsonl"), made)
    trainer = Trainer(made, whole.split("train"), whole.split("val"), tmp_path, "", progress=False)
    assert {group["initial_lr"] for group in trainer.optimizer.param_groups} == {0.003, 0.01}
    own = {id(p) for p in trainer.model["text"].encoder.parameters()}
    assert {id(p) for group in trainer.optimizer.param_groups if group["initial_lr"] == 0.003 for p in group["params"]} == own
    before = {name: x.clone() for name, x in trainer.model.state_dict().items()}
    trainer.fit()
    moved = {name for name, x in trainer.model.state_dict().items() if not torch.equal(x, before[name])}
    assert not any(name.startswith("audio.encoder") for name in moved)  # nor its batch norms
    kept = {name for name in before if name.startswith("image.encoder") and name not in moved}
    assert {"layers.0" in name or "embeddings" in name or "pre_layrnorm" in name for name in kept} == {True}
    assert any(name.startswith("text.encoder.model.embeddings") for name in moved) and "audio.head.loc.weight" in moved


def test_a_file_that_cannot_be_read_is_named_whoever_reads_it(folder, tiny, tmp_path):
    text = (folder / "manifest.jsonl").read_text(encoding="utf-8").replace('"5.png"', '"missing.png"')
    (folder / "broken.jsonl").write_text(text, encoding="utf-8")
    for workers in (0, 2):
        whole = load_batch(Manifest.read(folder / "broken.jsonl"), recipe(folder, tiny).replace(data={"workers": workers}))
        with pytest.raises(UserError, match=r"missing\.png: not an image that can be read") as caught:
            list(whole.stream([[0, 1], [4, 5]], 0))
        assert "Traceback" not in str(caught.value)


def test_blanks_do_not_reach_batch_norms(folder, tiny, tmp_path):
    """The items without a sound leave the statistics and the others' embeddings as they are without them."""
    made = recipe(folder, tiny, audio={"name": "resnet18-audio", "augment": []}).replace(model={"dropout": 0.0})
    whole = load_batch(Manifest.read(folder / "manifest.jsonl"), made)
    model = build_model(made.model, whole.dims).train()
    with_blank, without = (next(iter(whole.stream([index]))) for index in ([0, 1, 2, 3], [0, 1, 2]))
    kept = {name: x.clone() for name, x in model.state_dict().items()}
    states, laws = [], []
    for batch in (with_blank, without):
        model.load_state_dict(kept)
        laws.append(model(batch.inputs, batch.present)["audio"])
        states.append({name: x.clone() for name, x in model.state_dict().items()})
    torch.testing.assert_close(laws[0].loc[:3], laws[1].loc)
    assert not with_blank.present["audio"][3] and laws[0].loc[3].isfinite().all()
    for name in states[0]:
        if name.startswith("audio"):
            torch.testing.assert_close(states[0][name], states[1][name])
    nothing = whole.select([3])
    assert model(*((b := next(iter(nothing.stream([[0]])))).inputs, b.present))["audio"].loc.shape == (1, 16)


def test_templates_make_captions(folder, tiny):
    template = '"{title}" is a song by "{artist}"'
    made = recipe(folder, tiny, text={"template": template})
    whole = load_batch(Manifest.read(folder / "manifest.jsonl"), made)
    tokens = whole.inputs["text"]
    assert tokens.text(["unused"], whole.items[2], None) == '"title 2" is a song by "blue"'
    random = np.random.default_rng(0)
    texts = [tokens.text(["unused"], whole.items[2], random) for _ in range(2000)]
    assert 0.03 < sum('""' in text.split(" is ")[0] for text in texts) / 2000 < 0.07
    with pytest.raises(UserError, match="template: no item has 'titel' in its meta; did you mean 'title'"):
        load_batch(Manifest.read(folder / "manifest.jsonl"), recipe(folder, tiny, text={"template": "{titel}"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": {"name": "klip"}}, "unknown encoder 'klip'"),
        ({"image": {"augment": ["flop"]}}, "augment: clip-image has none called 'flop'; did you mean 'flip'"),
        ({"image": {"name": "bert", "augment": []}}, "the encoder takes 'texts', got an entry with path"),
        ({"image": {"name": "mlp", "augment": []}}, "the encoder takes 'vector'"),
        ({"image": {"freeze": 9}}, "model.encoders.image: freeze: expected at most its 2 layers, .* got 9"),
        ({"image": {"dropout": 0.1}}, "dropout: clip-image has none to set"),
        ({"image": {"pretrained": "/nowhere", "size": "full"}}, "pretrained: /nowhere: no such folder"),
        ({"audio": {"pretrained": "/nowhere.pth", "size": "full"}}, "pretrained: /nowhere.pth: no such file"),
    ],
)
def test_mistakes_are_told(folder, tiny, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        fit(recipe(folder, tiny, **changes), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "run.json").exists() or "takes" in message


def test_frames_of_a_video(tmp_path):
    """The middle of each stretch, or one at random by key; a short video twice; a folder, a list and a single picture."""
    names = [f"{number}.png" for number in (1, 2, 3, 10, 11)]
    (tmp_path / "clip").mkdir()
    for level, name in enumerate(names):
        Image.new("RGB", (64, 64), (50 * level, 0, 0)).save(tmp_path / "clip" / name)
    (tmp_path / "clip" / "notes.txt").write_text("")

    def levels(entry, frames, key=None, i=0):
        reader = pipeline(config.Encoder("resnet18", size="tiny", frames=frames, augment=["crop"]))
        item = Item(f"i{i}", "train", "g", "", {"image": entry})
        x = read(reader, item, "image", tmp_path, key)  # (T, 3, 64, 64)
        assert x.shape == reader.blank().shape == (frames, 3, 64, 64)
        return ((x[:, 0].mean((1, 2)) * 0.229 + 0.485) * 255 / 50).round().int().tolist()

    folder, listed = {"path": "clip/3.png", "frames": "clip"}, {"path": "clip/3.png", "frames": [f"clip/{name}" for name in names]}
    for entry in (folder, listed):
        assert levels(entry, 1) == [2] and levels(entry, 3) == [0, 2, 4] and levels(entry, 10) == [k // 2 for k in range(10)]
        drawn = [levels(entry, 2, key=1, i=i) for i in range(12)]
        assert drawn == [levels(entry, 2, key=1, i=i) for i in range(12)] and {a for a, _ in drawn} == {0, 1, 2}
        assert all(a <= b for a, b in drawn) and {b for _, b in drawn} == {2, 3, 4}
    assert levels({"path": "clip/3.png"}, 2) == [2, 2]
    with pytest.raises(UserError, match="gone: not an image"):
        levels({"path": "clip/3.png", "frames": "gone"}, 1)
    with pytest.raises(UserError, match="frames: bert sees no pictures"):
        pipeline(config.Encoder("bert", size="tiny", frames=2))
