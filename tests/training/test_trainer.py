"""The loop: bit-exact resuming, NaN, early stopping, learning rates, missing modalities."""

import functools
import json
from dataclasses import replace

import pytest
import torch

from transphere.training import checkpoint, config, config_rules, run, trainer
from transphere.training.batch import batches, load_features
from transphere.training.data.cache import alone
from transphere.training.data.manifest import Manifest
from transphere.training.distributed import pick_device
from transphere.training.errors import UserError
from transphere.training.optim import rate
from transphere.training.run import fit, open_run
from transphere.training.trainer import NonFiniteError, Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


def recipe(manifest, tiny, *more, name="ismir2024"):
    return config.load(name, [*tiny, f"data.manifest={manifest}", *more])


def history(out):
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def same_state(one, other):
    a, b = checkpoint.load_state(one / "last.pt"), checkpoint.load_state(other / "last.pt")
    for part in ("model", "objective"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    for i, moments in a["optimizer"]["state"].items():
        assert all(torch.equal(moments[name], b["optimizer"]["state"][i][name]) for name in moments)
    assert (a["step"], a["epoch"], a["best"], a["waited"]) == (b["step"], b["epoch"], b["best"], b["waited"])


@pytest.mark.parametrize("name", [name for name in config.recipe_names() if not config.load(name).model.encoders])
def test_every_recipe_learns(name, manifest, tiny, tmp_path):
    """On a corpus of vectors that any of them can learn, in a second; items share captions."""
    fit(recipe(manifest, tiny, "optim.lr=0.01", name=name), tmp_path / "run", progress=False)
    first, *_, last = history(tmp_path / "run")
    assert last["val_mrr"] > 0.3 and last["loss"] < first["loss"]


@pytest.mark.parametrize("name", [name for name in config_rules.OBJECTIVES if name not in ("gated", "film")])  # these take two modalities
def test_every_objective_trains(name, manifest, tiny, tmp_path):
    options = ["objective.eps=0.1"] if name == "entropic-contrastive" else []
    duplicates = {"learning-to-match": "positive", **dict.fromkeys(("sliced", "mmcosine", "softmax"))}.get(name, "ignore")
    options += [f"objective.duplicates={duplicates}"] if duplicates else []
    fit(recipe(manifest, tiny, f"objective.name={name}", *options), tmp_path / "run", progress=False)
    assert history(tmp_path / "run")[-1]["val_mrr"] > 0.1


@pytest.mark.parametrize("name", ["ismir2024", "ismir2024-baseline", "coordination-pcmc"])
@pytest.mark.parametrize("where", ["epoch", "before the checkpoint", "inside the checkpoint"])
def test_a_killed_run_resumes_bit_for_bit(name, where, manifest, tiny, tmp_path, monkeypatch):
    made = recipe(manifest, tiny, "optim.epochs=6", "run.eval_every=2", "optim.schedule=cosine", name=name)
    fit(made, tmp_path / "straight", progress=False)

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        if where == "epoch":
            step = Trainer._step
            patch.setattr(Trainer, "_step", lambda self, *batch: kill() if self.epoch == 5 and self.step % 2 else step(self, *batch))
        elif where == "before the checkpoint":
            save = Trainer._save
            patch.setattr(Trainer, "_save", lambda self, improved: kill() if self.epoch == 4 else save(self, improved))
        else:
            save_state = checkpoint.save_state
            patch.setattr(checkpoint, "save_state", lambda path, state: kill() if state["epoch"] == 4 else save_state(path, state))
        with pytest.raises(Killed):
            fit(made, tmp_path / "cut", progress=False)
    torch.randn(7)  # whatever happened to the global generator in between
    fit(made, tmp_path / "cut", resume=True, progress=False)
    assert history(tmp_path / "cut") == history(tmp_path / "straight")
    assert (tmp_path / "cut" / "best.safetensors").read_bytes() == (tmp_path / "straight" / "best.safetensors").read_bytes()
    same_state(tmp_path / "cut", tmp_path / "straight")
    assert not list((tmp_path / "cut").glob(".*"))


def test_the_seed_decides_and_the_global_generator_is_left_alone(manifest, tiny, tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    fit(recipe(manifest, tiny), tmp_path / "a", progress=False)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.randn(3)
    fit(recipe(manifest, tiny), tmp_path / "b", progress=False)
    fit(recipe(manifest, tiny, "run.seed=1"), tmp_path / "c", progress=False)
    assert history(tmp_path / "a") == history(tmp_path / "b") != history(tmp_path / "c")


def test_it_learns(manifest, tiny, tmp_path):
    done = fit(recipe(manifest, tiny, "optim.epochs=20", "optim.lr=0.01"), tmp_path / "run", progress=False)
    first, *_, last = history(tmp_path / "run")
    assert last["loss"] < first["loss"] and last["contrastive"] < first["contrastive"]
    assert done["val_mrr"] > 0.5  # about 0.2 at chance: 18 items
    assert set(last) == {"epoch", "step", "lr", "loss", "contrastive", "sliced", "kappa", "val", "val_mrr"}
    for quantiles in last["kappa"].values():
        assert len(quantiles) == 5 and quantiles == sorted(quantiles) and 64 < quantiles[0] and quantiles[-1] < 128


def test_the_best_epoch_is_kept_and_patience_ends_the_run(manifest, tiny, tmp_path, monkeypatch):
    scores = iter([0.1, 0.5, 0.3, 0.4, 0.2, 0.9])
    monkeypatch.setattr(trainer, "mean_mrr", lambda results: next(scores))
    done = fit(recipe(manifest, tiny, "optim.epochs=9", "run.patience=3"), tmp_path / "run", progress=False)
    assert (done["best_epoch"], done["epochs"], done["stopped_by"], done["val_mrr"]) == (2, 5, "patience", 0.5)
    assert open_run(tmp_path / "run").epoch == 2


def test_resuming_a_run_that_stopped_by_patience_does_not_train_on(manifest, tiny, tmp_path):
    made = recipe(manifest, tiny, "optim.epochs=9", "run.patience=1")
    done = fit(made, tmp_path / "run", progress=False)
    (tmp_path / "run" / "done.json").unlink()  # killed between the last checkpoint and the end
    assert fit(made, tmp_path / "run", resume=True, progress=False)["epochs"] == done["epochs"]


class Poisoned(torch.nn.Module):
    """An objective that works for some steps and then returns `value` in one part, or only in the gradient."""

    def __init__(self, value, good_steps, part):
        super().__init__()
        self.value, self.left, self.part = value, good_steps, part

    def forward(self, embeddings, present):
        self.left -= 1
        total = sum(law.concentration.mean() + law.loc.mean() for law in embeddings.values())
        parts = {"contrastive": total.detach(), "sliced": total.detach()}
        if self.left < 0 and self.part == "gradient":
            total = total + (total - total.detach()).abs().sqrt()  # 0 with an infinite slope
        elif self.left < 0:
            parts[self.part] = parts[self.part] * self.value
            total = total * self.value
        return total, parts


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["sliced", "gradient"])
def test_a_loss_that_is_not_finite_stops_the_run(value, part, manifest, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "build_objective", lambda *_: Poisoned(value, 5, part))  # two steps an epoch: the third epoch breaks
    out = tmp_path / "run"
    with pytest.raises(NonFiniteError) as error:
        fit(recipe(manifest, tiny), out, progress=False)
    message = str(error.value)
    assert "step 6 (epoch 3)" in message and part in message
    record = json.loads((out / "nonfinite.json").read_text())
    assert len(record["ids"]) == 27 and record["ids"][0] in message
    assert not (out / "done.json").exists()
    state = checkpoint.load_state(out / "last.pt")
    assert state["epoch"] == 2 and all(torch.isfinite(x).all() for x in state["model"].values())
    assert open_run(out).epoch <= 2


@pytest.mark.parametrize(("when", "message"), [("before", "the distribution of speech is not finite"), ("after", "weights are not finite")])
def test_weights_that_are_not_finite_are_never_saved(when, message, manifest, tiny, tmp_path, monkeypatch):
    step = Trainer._step

    def poisoned(self, *batch):
        made = step(self, *batch) if when == "after" else None
        if self.step == 4:
            with torch.no_grad():
                next(self.model["speech"].parameters()).fill_(torch.nan)
        return made or step(self, *batch)

    monkeypatch.setattr(Trainer, "_step", poisoned)
    with pytest.raises(NonFiniteError, match=message):
        fit(recipe(manifest, tiny), tmp_path / "run", progress=False)
    assert all(torch.isfinite(x).all() for x in checkpoint.load_state(tmp_path / "run" / "last.pt")["model"].values())
    assert not (tmp_path / "run" / "done.json").exists()


def test_missing_modalities(write_manifest, tiny, tmp_path):
    path = write_manifest(tmp_path / "m.jsonl", missing=0.5)
    fit(recipe(path, tiny), tmp_path / "run", progress=False)
    report = open_run(tmp_path / "run").evaluate("test", progress=False)
    galleries = {m["gallery"] for m in report["directions"].values()}
    assert len(report["directions"]) == 9 and len(galleries) > 1


def test_only_training_items_that_are_there_set_the_units(write_manifest, tiny, tmp_path):
    made = recipe(write_manifest(tmp_path / "m.jsonl", missing=0.4), tiny)
    fit(made, tmp_path / "run", progress=False)
    run = open_run(tmp_path / "run")
    train = run.features("train").matchable()
    for name, branch in run.model.items():
        x = train.inputs[name][train.present[name]]
        torch.testing.assert_close(branch.encoder.mean, x.mean(0))
        torch.testing.assert_close(branch.encoder.scale, x.std(0, correction=0))


def test_items_with_one_modality_are_not_trained_on(write_manifest, tiny, tmp_path):
    path = write_manifest(tmp_path / "m.jsonl", missing=1.0)
    with pytest.raises(UserError, match="two training items|no item has|two modalities"):
        fit(recipe(path, tiny), tmp_path / "run", progress=False)


def test_validation_items_that_cannot_ask_are_refused_before_training(manifest, tiny, tmp_path):
    whole = Manifest.read(manifest)
    alone = [
        replace(item, modalities={"image": item.modalities["image"]}) if item.split == "val" else replace(item, label="x" + item.label)
        for item in whole.items
    ]
    path = Manifest.write(tmp_path / "alone.jsonl", alone).path
    for name, message in (("ismir2024", "val split can ask another"), ("mmcosine", "val split has a label that a training item has")):
        with pytest.raises(UserError, match=message):
            fit(recipe(path, tiny, name=name), tmp_path / name, progress=False)
        assert not list((tmp_path / name).iterdir())


def test_checkpoints_of_others_are_refused(manifest, tiny, tmp_path):
    made, out = recipe(manifest, tiny), tmp_path / "run"
    fit(made, out, progress=False)
    features = load_features(Manifest.read(manifest), made.data)
    other = Trainer(made, features.split("train"), features.split("val"), out, "another digest", progress=False)
    with pytest.raises(UserError, match="another configuration"):
        other.resume()


def test_a_folder_in_which_another_process_trains_is_refused(manifest, tiny, tmp_path, monkeypatch):
    out = tmp_path / "run"
    out.mkdir()
    monkeypatch.setattr(run, "alone", functools.partial(alone, patience=0.0))
    with alone(out), pytest.raises(UserError, match="another process is at work in it"):
        fit(recipe(manifest, tiny), out, progress=False)
    assert not list(out.iterdir())
    assert fit(recipe(manifest, tiny), out, progress=False)["epochs"] == 4  # the other one has gone


def test_a_full_disk_loses_nothing(manifest, tiny, tmp_path, monkeypatch):
    out = tmp_path / "run"
    made = recipe(manifest, tiny)
    fsync, calls = checkpoint.os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 8:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(UserError, match="cannot write .*No space left"):
        fit(made, out, progress=False)
    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    assert checkpoint.load_state(out / "last.pt")["epoch"] >= 1
    fit(made, out, resume=True, progress=False)
    fit(made, tmp_path / "straight", progress=False)
    assert history(out) == history(tmp_path / "straight")


@pytest.mark.parametrize(("n", "size"), [(2, 2), (3, 2), (5, 2), (7, 3), (128, 128), (129, 128), (470, 128), (10, 100)])
def test_batches_hold_every_item_once(n, size):
    made = list(batches(n, size, 0, 1))
    assert sorted(sum(made, [])) == list(range(n))
    sizes = [len(batch) for batch in made]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 2 and max(sizes) <= max(size, 3)
    assert made == list(batches(n, size, 0, 1)) and (n < 5 or made != list(batches(n, size, 0, 2)))


def test_learning_rates():
    constant, cosine = config.Optim(epochs=5), config.Optim(epochs=5, schedule="cosine")
    assert [rate(constant, step, 2) for step in (0, 5, 9)] == [1, 1, 1]
    assert rate(cosine, 0, 2) == 1 and rate(cosine, 5, 2) == pytest.approx(0.5) and 0 < rate(cosine, 9, 2) < 0.05
    warm = config.Optim(epochs=5, schedule="cosine", warmup=4)
    assert [rate(warm, step, 2) for step in (0, 1, 3, 4)] == [0.25, 0.5, 1, 1] and rate(warm, 7, 2) == pytest.approx(0.5)
    steps = config.Optim(schedule="step", step_epochs=2, gamma=0.1)
    assert [rate(steps, step, 2) for step in (0, 3, 4, 7, 8)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("name", ["tpu9000", "cuda:99", "meta2"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(UserError, match="run.device"):
        pick_device(name)
