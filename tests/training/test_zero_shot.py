"""Classification by prompts and by training means, with encoders that know the kinds."""

import json

import pytest
import torch
from small_corpus import install, write

from transphere import chordal_mean
from transphere.training.cli import main
from transphere.training.errors import UserError
from transphere.training.evaluation import score_run
from transphere.training.queries import points_of
from transphere.training.run import open_run
from transphere.training.zero_shot import classify, prompt_points, training_means

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = ["kind_0", "kind_1", "kind_2"]


_trained = {}


@pytest.fixture
def run(tmp_path_factory, tiny, monkeypatch):
    """One run for all tests."""
    folder = _trained.setdefault("folder", tmp_path_factory.mktemp("trained"))
    install(monkeypatch, folder / "cache")
    if not (folder / "run").exists():
        sets = [word for text in [*tiny, "optim.epochs=30", "run.eval_every=10", "model.dropout=0.0"] for word in ("--set", text)]
        assert main(["fit", "ismir2024", "--data", str(write(folder)), "--out", str(folder / "run"), *sets]) == 0
    return folder / "run"


def test_prompts_and_training_means(run, capsys):
    capsys.readouterr()
    assert main(["eval", str(run), "--zero-shot", "--prompt", "a photo of {}", "--prompt", "{}, drawn", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["zero_shot"]
    assert found["templates"] == ["a photo of {}", "{}, drawn"] and found["labels"] == CLASSES
    assert set(found["modalities"]) == {"image", "text", "speech"}
    for forms in found["modalities"].values():
        assert set(forms) == {"prompts", "training image", "training text", "training speech"}
        for m in forms.values():
            assert m["chance"] == pytest.approx(1 / 3) and m["items"] == 12 and m["T1"] > 0.6 and m["classes"] == 3
    assert main(["eval", str(run), "--zero-shot"]) == 0
    assert '"a photo of {}", "a picture of {}", "{}", averaged' in capsys.readouterr().out


def test_class_points_against_loops(run):
    opened = open_run(run)
    scored = score_run(opened, "test", mean="chordal")
    labels, means = training_means(scored)["speech"]
    train = score_run(opened, "train", mean="chordal")
    assert labels == CLASSES
    for label, point in zip(labels, means, strict=True):
        rows = [i for i, item in enumerate(train.batch.items) if item.label == label]
        torch.testing.assert_close(point, chordal_mean(train.points[("speech",)][rows]))
    one = prompt_points(opened, "text", CLASSES, ["a {}"])
    near = points_of(opened, {"text": ["a kind 0", "a kind 1", "a kind 2"]})  # other draws of the same distributions
    assert ((one * near).sum(1) > 0.9).all() and torch.equal((one @ near.T).argmax(1), torch.arange(3))
    two = prompt_points(opened, "text", CLASSES, ["a {}", "the {}"])
    assert ((one * two).sum(1) > 0.9).all()


def test_refusals(run, monkeypatch):
    scored = score_run(open_run(run), "test")
    with pytest.raises(UserError, match="expected {} where the label goes"):
        classify(scored, ["a photo"])
    monkeypatch.setattr(type(scored.run.manifest.items[0]), "__getattribute__", _without_labels)
    with pytest.raises(UserError, match="expected two labels or more"):
        classify(scored)


def _without_labels(self, name):
    return "" if name == "label" else object.__getattribute__(self, name)
