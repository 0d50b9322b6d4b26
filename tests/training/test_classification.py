"""MMCosine and softmax in fit: labels, accuracies, what is refused."""

import json
from dataclasses import replace

import pytest
import torch

from transphere import VonMisesFisher
from transphere.training import classification, config, config_rules
from transphere.training.batch import load_batch
from transphere.training.classification import Softmax, build_classifier, class_names, evaluate_classes, label_numbers
from transphere.training.config import load
from transphere.training.data.manifest import Manifest
from transphere.training.errors import UserError
from transphere.training.heads import NaturalHead
from transphere.training.run import fit, open_run

pytestmark = pytest.mark.usefixtures("one_thread")


def test_softmax_is_a_linear_layer_of_all_features():
    torch.manual_seed(0)
    loss = Softmax(3, modalities={"a": 4, "b": 5})
    features = {"a": torch.randn(6, 4), "b": torch.randn(6, 5)}
    laws = {name: VonMisesFisher(torch.nn.functional.normalize(f, dim=-1), f.norm(dim=-1)) for name, f in features.items()}
    W = torch.cat([loss.weight["a"], loss.weight["b"]], dim=1)
    expected = torch.cat([features["a"], features["b"]], dim=1) @ W.T + loss.bias
    torch.testing.assert_close(loss.logits(laws), expected)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    value, parts = loss(laws, None, labels=labels)
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(expected, labels))
    assert parts["accuracy"] == (expected.argmax(1) == labels).float().mean()
    there = {"b": torch.tensor([True, False] * 3)}
    torch.testing.assert_close(loss.logits(laws, there)[1], features["a"][1] @ loss.weight["a"].T + loss.bias)


@pytest.mark.parametrize("kind", ["gated", "film"])
def test_fused_scores(kind, manifest, tiny, tmp_path):
    loss = classification.CLASSIFIERS[kind](3, modalities={"a": 4, "b": 4})
    x, y = torch.randn(6, 4), torch.randn(6, 4)
    law = VonMisesFisher(torch.nn.functional.normalize(x, dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(loss.logits({"b": y, "a": law}), loss.fusion(x, y))
    there = torch.tensor([True, False] * 3)
    torch.testing.assert_close(loss.logits({"a": law, "b": y}, {"b": there})[1], loss.fusion(x, 0 * y)[1])
    torch.testing.assert_close(loss.logits({"a": x}), loss.fusion(x, 0 * y))
    changes = [*tiny, "optim.epochs=12", "optim.name=adam", f"data.manifest={manifest}", f"objective.name={kind}"]
    with pytest.raises(UserError, match=f"objective: {kind} fuses two modalities, got image, text, speech"):
        fit(load("softmax", changes), tmp_path / "three", progress=False)
    fit(load("softmax", [*changes, "data.modalities=['image', 'text']"]), tmp_path / "two", progress=False)
    report = open_run(tmp_path / "two").evaluate("test", progress=False)
    assert list(report["directions"]) == ["image+text->label", "image->label", "text->label"]
    history = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert history[-1]["accuracy"] > history[0]["accuracy"]


def test_a_natural_head_keeps_the_length():
    head = NaturalHead(7, 4, 0, 0.0)
    x = torch.randn(5, 7)
    law = head(x)
    torch.testing.assert_close(law.concentration[:, None] * law.loc, head.layers(x))
    assert NaturalHead(7, 4, 3, 0.1)(x).loc.shape == (5, 4)


def test_accuracy_is_that_of_the_scores(manifest, tiny, tmp_path):
    for name in ("mmcosine", "softmax"):
        made = load(name, [*tiny, "optim.epochs=12", f"data.manifest={manifest}"])
        fit(made, tmp_path / name, progress=False)
        run = open_run(tmp_path / name)
        report = run.evaluate("test", progress=False)
        assert list(report["directions"]) == ["image+text+speech->label", "image->label", "text->label", "speech->label"]
        batch = run.features("test", progress=False)
        with torch.no_grad():
            right = run.classifier.logits(run.model(batch.inputs)).argmax(1) == label_numbers(batch, run.facts["classes"])
        assert report["directions"]["image+text+speech->label"]["R@1"] == pytest.approx(float(right.double().mean()))
        history = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert history[-1]["accuracy"] > history[0]["accuracy"] and list(history[-1]["val"]) == ["image+text+speech->label"]
        assert history[-1]["val_mrr"] == max(record["val_mrr"] for record in history) or report["epoch"] < 12


def test_items_of_an_untrained_label_are_left_out(manifest):
    whole = Manifest.read(manifest)
    items = [replace(item, label="never seen") if k % 10 == 8 and item.split == "test" else item for k, item in enumerate(whole.items)]
    made = config.Config()
    batch = load_batch(Manifest(items, whole.path, whole.sha256), made, progress=False)
    classes = class_names(batch.split("train"))
    assert "never seen" not in classes and -1 in label_numbers(batch, classes).tolist()
    from transphere.training.model import build_model

    model = build_model(config.Model(head="natural", dim=4), batch.dims)
    results = evaluate_classes(model, Softmax(len(classes), modalities=dict.fromkeys(batch.dims, 4)), batch.split("test"), classes, True)
    assert {m["queries"] for m in results.values()} == {sum(item.split == "test" and item.label != "never seen" for item in items)}


def test_what_is_refused(manifest, tiny, tmp_path):
    whole = Manifest.read(manifest)
    for label, message in (("", "needs a label for every training item"), ("one", "two labels or more among the training items, got one")):
        path = Manifest.write(tmp_path / "other.jsonl", [replace(item, label=label) for item in whole.items]).path
        with pytest.raises(UserError, match=message):
            fit(load("mmcosine", [*tiny, f"data.manifest={path}"]), tmp_path / "run", progress=False)
    objective = config.Objective(name="softmax", logit_scale=2.0)
    with pytest.raises(UserError, match="objective.logit_scale: softmax does not take it; it takes nothing"):
        build_classifier(objective, {"a": 3}, ["x", "y"])
    with pytest.raises(UserError, match="objective.margin: mmcosine does not take it; it takes logit_scale, bound, probability"):
        build_classifier(config.Objective(name="mmcosine", margin=1.0), {"a": 3}, ["x", "y"])
    with pytest.raises(UserError, match="objective: MMCosine: bound: expected one of"):
        build_classifier(config.Objective(name="mmcosine", bound="loose"), {"a": 3}, ["x", "y"])
    assert set(classification.CLASSIFIERS) <= set(config_rules.OBJECTIVES)
