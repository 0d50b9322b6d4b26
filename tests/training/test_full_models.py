"""The full models of the papers at reduced width: every recipe fits and is measured, in seconds. At full width they are `slow`."""

import json
import math

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from transphere.training import config
from transphere.training.bench_plan import _seen, plan
from transphere.training.bench_step import bench_step
from transphere.training.cli import main
from transphere.training.errors import UserError
from transphere.training.pipelines import caption, eda
from transphere.training.run import fit, open_run

pytestmark = pytest.mark.usefixtures("one_thread", "no_wordnet")
FULL = [name for name in config.recipe_names() if config.load(name).model.encoders]


@pytest.fixture
def no_wordnet(monkeypatch):
    monkeypatch.setattr(eda, "synonyms", dict)
    monkeypatch.setattr(caption, "synonyms", dict)


def reduced(name, *more):
    """A recipe with its encoders at the width for tests and random weights; videos have two frames."""
    modalities = config.load(name).model.encoders
    more = ["model.encoders.image.frames=2", *more] if name == "mmcosine-full" else more
    small = [f"model.encoders.{m}.{change}" for m in modalities for change in ("pretrained=", "size=tiny")]
    return config.load(name, [*small, "model.dim=16", "model.hidden=24", "run.device=cpu", "data.workers=0", *more])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("full")
    rows, random = [], np.random.default_rng(0)
    soundfile.write(root / "long.flac", 0.1 * random.normal(size=12 * 16000), 16000)  # longer than CLAP's 10 s
    for i in range(12):
        Image.fromarray(random.integers(0, 255, (70, 90, 3), dtype=np.uint8)).save(root / f"{i}.jpg")
        soundfile.write(root / f"{i}.wav", 0.1 * random.normal(size=8000), 16000)
        sound = {"path": "long.flac" if i == 0 else f"{i}.wav"}
        picture = {"path": f"{i}.jpg", "frames": [f"{i}.jpg", "0.jpg"]}
        modalities = {"audio": sound, "speech": sound, "image": picture, "text": {"texts": [f"caption {i}", f"words {i}"]}}
        row = {"id": f"i{i}", "split": "train" if i < 6 else "val" if i < 9 else "test", "group": f"g{i}", "caption": f"caption {i}"}
        meta = {"title": f"t{i}", "channel": "c", "upload_date": "2020-01-01"}
        rows.append({**row, "label": f"kind {i % 2}", "modalities": modalities, "meta": meta})
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.mark.parametrize("name", FULL)
def test_every_full_model_trains(name, folder, tmp_path):
    modalities = json.dumps(list(config.load(name).model.encoders))
    made = reduced(name, f"data.manifest={folder}/manifest.jsonl", f"data.modalities={modalities}", "optim.epochs=2", "optim.batch_size=3")
    done = fit(made, tmp_path / "run", progress=False)
    assert done["epochs"] == 2 and math.isfinite(done["val_mrr"])
    found = open_run(tmp_path / "run").evaluate("test", progress=False)["directions"]
    assert len(found) == {"m-ltm-full": 2, "mmcosine-full": 3}.get(name, 9)


def test_videos_of_a_dataset_as_distributed(tmp_path, capsys):
    """CREMA-D's look-alike to accuracies, over two frames a clip."""
    assert main(["data", "fake", "crema-d", str(tmp_path / "cd")]) == 0
    assert main(["data", "convert", "crema-d", str(tmp_path / "cd"), "--val", "0.3"]) == 0
    small = [f"model.encoders.{m}.size=tiny" for m in ("audio", "image")]
    sets = [*small, "model.encoders.image.frames=2", "model.dim=16", "optim.epochs=2", "data.workers=0", "run.device=cpu"]
    words = ["mmcosine-full", "--data", str(tmp_path / "cd" / "manifest.jsonl"), *(word for text in sets for word in ("--set", text))]
    assert main(["fit", *words, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["directions"]) == {"audio+image->label", "audio->label", "image->label"}


@pytest.mark.parametrize("name", FULL)
def test_every_full_model_is_measured(name):
    report = bench_step(reduced(name), recipe=name, batch=3, steps=1, loader=name == "ismir2024-full")
    assert report.step == sum(report.sections.values()) > 0
    harnessed = name == "ismir2024-full"
    assert list(report.losses) == (["harnessed", "contrastive", "sliced"] if harnessed else [config.load(name).objective.name])
    assert name in report.text() and (report.overhead is not None) == harnessed
    assert not harnessed or report.loader["items_per_second"] > 0


def test_a_step_in_chunks_is_measured_and_refused_with_batch_norm():
    """As the trainer takes it: PANN's batch norms see a chunk; CLAP's one is in the stem, which may stay as it is."""
    chunks = ["optim.accumulate=2", "model.encoders.audio.name=clap"]
    with pytest.raises(UserError, match="optim.accumulate: expected 1 with BatchNorm"):
        bench_step(reduced("m-ltm-full", *chunks), batch=4)
    report = bench_step(reduced("m-ltm-full", *chunks, "model.encoders.audio.freeze=1"), batch=4, steps=0, loader=False)
    parts = ["embedding, without a graph", "loss, forward and backward", "chunks again, forward and backward", "optimiser"]
    assert list(report.sections) == parts and all(ms > 0 for ms in report.sections.values())


@pytest.mark.parametrize("name", ["ismir2024-full", "mmcosine-full"])
def test_what_a_model_keeps_is_counted(name):
    """Of frozen encoders nothing is kept, and no operations go backward but those of the heads."""
    made = plan(reduced(name, "optim.batch_size=8"), recipe=name, gpus=2)
    for part in made.parts.values():
        frozen = name == "ismir2024-full"
        assert (part.kept < 4 * 8 * (part.parameters + 100)) if frozen else part.kept > 4 * part.parameters
        assert 0 < part.backward < part.forward if frozen else part.backward >= part.forward
    memory = made.memory()
    assert memory["moments of the optimiser"] == (1 if name == "mmcosine-full" else 2) * memory["gradients"]
    assert memory["the loss, whole batch"] > 0
    assert made.text().startswith("A plan on paper, not a measurement.") and f"{name}: 8 items on 2 GPUs, fp32" in made.text()


def test_a_linear_layer_keeps_its_input_once():
    """(5, 3) float32 through a layer and a square: the input, and the output, of which the square is taken."""
    layer, x = torch.nn.Linear(3, 7), torch.randn(5, 3)
    _, kept, forward, backward = _seen(lambda: layer(x).square(), layer.parameters())
    assert (kept, forward, backward) == (4 * 5 * (3 + 7), 2 * 5 * 3 * 7, 2 * 5 * 3 * 7)


def test_the_command_prints_it(capsys):
    small = [f"--set=model.encoders.{m}.{change}" for m in ("audio", "text") for change in ("pretrained=", "size=tiny")]
    arguments = ["bench", "step", "m-ltm-full", "--batch", "2", "--steps", "1", "--no-loader", "--json", "--set=model.dim=8", *small]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["batch"] == 2 and report["step"] > 0 and report["memory"]["peak of a step"] > 0
    for wrong, message in ((["ismir2024"], "has no model.encoders"), (["m-ltm-full", "--batch", "1"], "--batch: expected at least 2")):
        assert main(["bench", "step", *wrong]) == 2 and message in capsys.readouterr().err


def test_recipes_are_those_of_the_papers():
    ismir, mltm = config.load("ismir2024-full"), config.load("m-ltm-full")
    assert (ismir.model.dim, ismir.model.kappa, ismir.objective.n_samples, ismir.objective.n_projections) == (512, (64.0, 128.0), 16, 100)
    assert (ismir.optim.lr, ismir.optim.batch_size, ismir.objective.temperature) == (1e-4, 16 * 64, 0.07)
    assert {e.freeze for e in ismir.model.encoders.values()} == {-1}
    assert (mltm.model.dim, mltm.optim.lr, mltm.optim.batch_size, mltm.optim.epochs) == (1024, 1e-4, 256, 30)
    for name in ("coordination-pcmc-full", "coordination-pcmr-full"):
        made = config.load(name)
        assert (made.model.dim, made.model.head, made.optim.batch_size, made.optim.weight_decay) == (256, "residual", 80, 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_full_width(name):
    """One step at full width, random weights; minutes, and up to 10 GiB."""
    report = bench_step(config.load(name, ["run.device=cpu"]), recipe=name, batch=2, steps=1, loader=False)
    assert report.step > 0


@pytest.mark.slow
def test_full_width_in_chunks():
    """24 items keep 5.3 GiB at once (docs/cluster.md); in chunks of two the peak is weights, gradients, moments and two items."""
    chunks = ["run.device=cpu", "optim.accumulate=12", "model.encoders.audio.name=clap", "model.encoders.audio.freeze=1"]
    report = bench_step(config.load("m-ltm-full", chunks), batch=24, steps=0, loader=False)
    assert report.step > 0 and report.memory["peak of a step"] < report.memory["weights and inputs"] + 3 * 2**30


def test_a_recipe_of_vectors_is_refused():
    made = config.load("ismir2024").replace(model={"encoders": {"a": config.Encoder("mlp"), "b": config.Encoder("mlp")}})
    with pytest.raises(UserError, match="vectors have no fixed width"):
        bench_step(made)
