"""The experiments: their files, the runner from end to end on a corpus of vectors, what it refuses."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from transphere.training import experiment, run
from transphere.training.batch import load_batch
from transphere.training.cli import main
from transphere.training.experiment import experiment_names, load_experiment, run_experiment
from transphere.training.experiment_plots import PALETTE, _reduce
from transphere.training.experiment_report import help_of_two
from transphere.training.plots import curves
from transphere.training.report import paired
from transphere.training.transfer import read_transfer
from transphere.training.untrained import untrained_report

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = """
title = "Which loss?"
claim = "The second."
recipe = "ismir2024-baseline"
corpus = "{corpus}"
seeds = 2
test_on = ["{other}"]

[[variant]]
name = "L_C"

[[variant]]
name = "m-LTM"
recipe = "m-ltm"
set = ["objective.eps=0.1"]

[[variant]]
name = "leaky"
set = ["data.split_by=item"]
control = true
"""


@pytest.fixture
def quick(tiny):
    return [*tiny, "optim.epochs=2", "optim.lr=0.01", "run.eval_samples=0"]


@pytest.fixture
def small(manifest, write_manifest, tmp_path):
    """An experiment of three variants, and the corpus that it tests on as well: half of its captions are trained on."""
    other = write_manifest(tmp_path / "other.jsonl", items=40, seed=3)
    text = other.read_text().replace('"thing 1', '"another thing 1')
    other.write_text(text)
    path = tmp_path / "small.toml"
    path.write_text(SMALL.format(corpus=manifest, other=other), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_that_comes_with_the_package_can_begin(name):
    made = load_experiment(name)
    configs = [variant.config() for variant in made.variants]
    assert made.title and made.seeds >= 3 and len(configs) >= 3
    assert all(config.data.split_seed == 0 for config in configs)
    assert len({config.digest() for config in configs}) == len(configs)  # no two are the same


def test_end_to_end(small, quick, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out é"
    report = run_experiment(load_experiment(small), out, changes=quick)
    printed = capsys.readouterr().out
    for name in ("table.md", "table.json", "curves.png", "map.png", "recall.png", "kappa.png", "eigenvalues.png", "help.png"):
        assert str(out / name) in printed
    for picture in out.glob("*.png"):
        with Image.open(picture) as image:
            assert image.size[0] > 300 and picture.stat().st_size < 150_000
    table = (out / "table.md").read_text()
    assert table in printed
    words = ("control: leaky", "chance", "Which loss?", "Modality gap", "tested on", "transport plan", "enriched", "against the first")
    assert all(word in table for word in words)
    stored = json.loads((out / "table.json").read_text())
    assert list(stored["rows"]) == ["L_C", "m-LTM", "leaky"] and stored["seeds"] == 2 and stored["rows"]["leaky"]["control"]
    tests = [json.loads((path / "test.json").read_text()) for path in sorted((out / "runs").glob("00-*"))]
    values = [test["directions"]["text->image"]["MRR"] for test in tests]
    found = stored["rows"]["L_C"]["directions"]["text->image"]["MRR"]
    assert found["values"] == pytest.approx(values, rel=1e-4) and found["sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-3)
    means = [row["mean"]["MRR"]["values"] for row in report["rows"].values()]
    assert report["rows"]["m-LTM"]["against_first"] == paired(means[0], means[1])
    assert report["configs"]["m-LTM"]["recipe"] == "m-ltm" and report["environment"]["torch"]
    # a second call trains and scores nothing
    monkeypatch.setattr(run.Trainer, "fit", lambda self: pytest.fail("trained again"))
    monkeypatch.setattr(experiment, "read_probes", lambda path, plan: json.loads((path / "probes.json").read_text()))
    assert run_experiment(load_experiment(small), out, changes=quick)["rows"] == report["rows"]


def test_an_item_whose_caption_was_trained_on_is_no_transfer(small, quick, write_manifest, tmp_path):
    run_experiment(load_experiment(small), tmp_path / "out", seeds=1, changes=quick)
    path = next((tmp_path / "out" / "runs").glob("00-*"))
    report = json.loads((path / "transfer-other.json").read_text())
    trained = {item.caption for item in run.open_run(path).manifest.items if item.split != "test"}
    others = [json.loads(line)["caption"] for line in (tmp_path / "other.jsonl").read_text().splitlines()]
    assert report["items"] == sum(caption not in trained for caption in others) < len(others)
    assert read_transfer(path, str(tmp_path / "other.jsonl")) == report["directions"]
    (tmp_path / "wider.jsonl").write_text(write_manifest(tmp_path / "w.jsonl", modalities=(("image", 13), ("text", 10))).read_text())
    with pytest.raises(experiment.UserError, match="wider.jsonl: image has 13 numbers an item, .* was trained on 12"):
        read_transfer(path, str(tmp_path / "wider.jsonl"))


def test_an_untrained_control(small, write_manifest, quick, tmp_path):
    corpus = write_manifest(tmp_path / "even.jsonl", modalities=(("image", 12), ("text", 8), ("speech", 8)))
    text = small.read_text() + '\n[[variant]]\nname = "cascade"\nset = ["data.modalities=[\'text\', \'speech\']"]\ncontrol = true\n'
    text = text.replace("test_on", "# test_on")
    text = text.replace('["data.split_by=item"]', '["data.split_by=item"]\nagainst = "m-LTM"')
    text = text.replace("seeds = 2", "seeds = 2\nplan = false")
    small.write_text(text.replace('name = "cascade"', 'name = "cascade"\nuntrained = true'))
    report = run_experiment(load_experiment(small, str(corpus)), tmp_path / "out", changes=quick, seeds=2)
    # the one variant that says against which is compared, no other, and nothing is ranked by plans
    means = {name: report["rows"][name]["mean"]["MRR"]["values"] for name in ("m-LTM", "leaky")}
    assert report["rows"]["leaky"]["against"] == {"variant": "m-LTM", **paired(means["m-LTM"], means["leaky"])}
    assert "against_first" not in report["rows"]["m-LTM"] and not report["rows"]["m-LTM"]["plan"]
    assert "MRR against another" in (table := (tmp_path / "out" / "table.md").read_text()) and "(m-LTM) |" in table
    row = report["rows"]["cascade"]
    assert list(row["directions"]) == ["text->speech", "speech->text"] and "mean" not in row and "mean" in report["rows"]["leaky"]
    assert "control: cascade" in (tmp_path / "out" / "table.md").read_text() and not list((tmp_path / "out" / "runs").glob("*cascade*"))
    made = load_experiment(small, str(corpus)).variants[-1].config()
    batch = load_batch(run.open_manifest(made.data), made, progress=False).split("test")
    x, y = (torch.nn.functional.normalize(batch.inputs[name], dim=-1) for name in ("text", "speech"))
    captions = np.array([item.caption for item in batch.items])
    best = captions[(x @ y.T).argmax(1).numpy()]
    assert row["directions"]["text->speech"]["R@1"]["values"][0] == pytest.approx(np.mean(best == captions))
    with pytest.raises(experiment.UserError, match="need one space, got widths image 12, text 8"):
        untrained_report(made.replace(data={"modalities": ["image", "text"]}))
    small.write_text(text.replace('name = "cascade"', 'name = "cascade"\nuntrained = true').replace("control = true\n", "", 2))
    with pytest.raises(experiment.UserError, match="variant 'cascade': untrained: expected a control"):
        load_experiment(small)


def test_crossed_variants(small):
    text = small.read_text() + '\n[[cross]]\nname = "clean"\n\n[[cross]]\nname = "noisy"\nset = ["data.noise.text=0.4"]\n'
    small.write_text(text)
    made = load_experiment(small)
    assert [variant.name for variant in made.variants] == ["L_C, clean", "L_C, noisy", "m-LTM, clean", "m-LTM, noisy", "leaky"]
    assert made.variants[3].config().data.noise == {"text": 0.4} and made.variants[3].config().objective.eps == 0.1


def test_a_direction_that_is_not_there(small, quick, tmp_path):
    small.write_text(small.read_text().replace("seeds = 2", 'seeds = 1\ndirections = ["txt->image"]'))
    with pytest.raises(experiment.UserError, match="directions: a variant has none of txt->image; it has image->text, text->image"):
        run_experiment(load_experiment(small), tmp_path / "out", changes=quick)


def test_a_corpus_to_test_on_that_is_not_there_is_told_before_the_work(small, quick, tmp_path, monkeypatch):
    (tmp_path / "other.jsonl").unlink()
    monkeypatch.setattr(run.Trainer, "fit", lambda self: pytest.fail("began to work"))
    with pytest.raises(experiment.UserError, match="other.jsonl: cannot be read"):
        run_experiment(load_experiment(small), tmp_path / "out", changes=quick)


def test_a_corpus_in_the_place_of_all(small, manifest):
    assert {variant.corpus for variant in load_experiment(small, "elsewhere.jsonl").variants} == {"elsewhere.jsonl"}


def test_the_gain_of_asking_with_two():
    seeds = [{"a->c": {"MRR": x}, "b->c": {"MRR": 0.2}, "a+b->c": {"MRR": 0.5}} for x in (0.1, 0.4)]
    found = help_of_two(seeds)["a+b->c"]
    assert found["gain"]["values"] == pytest.approx([0.3, 0.1]) and found["alone"]["b"]["mean"] == pytest.approx(0.2)
    assert help_of_two([{"a->c": {"MRR": 1.0}, "a+b->c": {"MRR": 1.0}}]) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title =", "titel ="), "unknown key 'titel'; did you mean 'title'"),
        (('title = "Which loss?"', ""), "title: is missing"),
        (('name = "m-LTM"\n', ""), "variant 2: name: is missing"),
        (('name = "m-LTM"', 'name = "L_C"'), "two variants are called 'L_C'"),
        (("seeds = 2", "seeds = 0"), "seeds: expected at least 1, got 0"),
        (("seeds = 2", 'seeds = "two"'), "seeds: expected a whole number, got 'two'"),
        (("seeds = 2", "seeds = true"), "seeds: expected a whole number, got True"),
        (('set = ["objective.eps=0.1"]', "set = [1]"), "variant 2: set: expected a list of strings"),
        (("control = true", 'control = "yes"'), "variant 3: control: expected true or false"),
        (('name = "m-LTM"', 'name = "m-LTM"\nagainst = "leaky"'), "variant 'm-LTM': against: expected a variant above it, got 'leaky'"),
        (('name = "L_C"', 'name = "L_C"\ncontrol = true'), "a first variant that is no control"),
        (('recipe = "ismir2024-baseline"', ""), "variant 'L_C' has no recipe"),
        (("[[variant]]", "[[variant"), "not a valid TOML file"),
        (("[[variant]]", "[variant]"), "not a valid TOML file|expected a list of tables"),
    ],
)
def test_bad_files(small, change, message):
    small.write_text(small.read_text().replace(*change, 1))
    with pytest.raises(experiment.UserError, match=message):
        load_experiment(small)


def test_the_command(small, quick, tmp_path, capsys):
    assert main(["experiment"]) == 0
    assert "harnessed" in capsys.readouterr().out
    assert main(["experiment", "harnesed"]) == 2
    assert "did you mean 'harnessed'" in capsys.readouterr().err
    assert main(["experiment", str(small), "--out", str(small / "below")]) == 2
    assert "--out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["experiment", str(small), "--seeds", "0"])
    sets = [word for text in quick for word in ("--set", text)]
    assert main(["experiment", str(small), "--out", str(tmp_path / "out"), "--seeds", "1", *sets]) == 0
    assert "(one seed)" in capsys.readouterr().out
    assert main(["experiment", str(small), "--out", str(tmp_path / "out"), "--set", "optim.rate=1"]) == 2
    assert "optim.rate" in capsys.readouterr().err


def test_a_reduced_picture_keeps_the_colours_of_its_lines(tmp_path):
    file = tmp_path / "curves.png"
    history = [{"epoch": epoch, "loss": 1 / epoch, "val_mrr": 0.1 * epoch} for epoch in (1, 2)]
    curves({name: [history] * 2 for name in PALETTE}, file, PALETTE)  # all on one line: each shows in the legend alone
    _reduce(file)
    with Image.open(file) as image:
        found = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0).astype(int)
    for colour in PALETTE:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.abs(found - wanted).max(1).min() < 5, colour
