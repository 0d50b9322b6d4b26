"""The demo's driver, its table and its pictures, on a synthetic corpus."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from transphere.training import cards, contact_sheet, demo, evaluation, plots, report, run
from transphere.training.batch import Batch, load_features
from transphere.training.config import Data
from transphere.training.data.manifest import Item, Manifest
from transphere.training.errors import SourceUnavailable, UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def quick(tiny):
    return [*tiny, "optim.epochs=2"]


def test_demo_end_to_end(manifest, quick, tmp_path, capsys, monkeypatch):
    out = tmp_path / "results"
    made = demo.demo(out, str(manifest), seeds=(0, 1), changes=quick)
    printed = capsys.readouterr()
    for name in ("table.md", "table.json", "curves.png", "map.png", "answers.png"):
        assert (out / name).stat().st_size > 100
        assert str(out / name) in printed.out
    table = (out / "table.md").read_text()
    assert table in printed.out + "\n"
    assert "image + text → speech" in table and "±" in table and made["verdict"]["sentence"] in table
    stored = json.loads((out / "table.json").read_text())
    assert len(stored["arms"]["L_C"]) == len(stored["arms"]["L_C + L_S"]) == 9
    assert stored["seeds"] == [0, 1] and stored["corpus"]["sha256"] == Manifest.read(manifest).sha256
    assert {"torch", "machine", "transphere"} <= set(stored["environment"])
    assert stored["configs"]["L_C + L_S"]["objective"]["weight"] == 1.0
    # Every number of the table comes from the runs' own test evaluations.
    runs = sorted((out / "runs").iterdir())
    assert len(runs) == 4
    reports = [json.loads((path / "test.json").read_text()) for path in runs if path.name.startswith("baseline")]
    values = [r["directions"]["text->image"]["MRR"] for r in reports]
    assert stored["arms"]["L_C"]["text->image"]["MRR"]["values"] == values
    assert stored["arms"]["L_C"]["text->image"]["MRR"]["sd"] == pytest.approx(np.std(values, ddof=1))
    # A second call trains and scores nothing.
    monkeypatch.setattr(run.Trainer, "fit", lambda self: pytest.fail("trained again"))
    monkeypatch.setattr(evaluation, "score_run", lambda *_, **__: pytest.fail("looked at the test items again"))
    assert demo.demo(out, str(manifest), seeds=(0, 1), changes=quick)["arms"] == made["arms"]


def test_a_place_that_cannot_be_written_is_told_before_the_work(manifest, quick, monkeypatch):
    monkeypatch.setattr(demo, "_corpus", lambda name: pytest.fail("began to work"))
    with pytest.raises(UserError, match="--out"):
        demo.demo(manifest / "below", str(manifest), changes=quick)


def test_each_seed_has_its_own_split_and_both_arms_share_it(manifest, quick, tmp_path):
    demo.demo(tmp_path / "out", str(manifest), seeds=(0, 1), changes=quick)
    runs = (tmp_path / "out" / "runs").iterdir()
    data = {path.name.rsplit("-", 1)[0]: json.loads((path / "run.json").read_text())["manifest_sha256"] for path in runs}
    assert data["baseline-seed0"] == data["sliced-seed0"] != data["baseline-seed1"] == data["sliced-seed1"]


def test_a_changed_recipe_gets_a_folder_of_its_own(manifest, quick, tmp_path):
    demo.demo(tmp_path, str(manifest), seeds=(0,), changes=quick)
    demo.demo(tmp_path, str(manifest), seeds=(0,), changes=[*quick, "optim.lr=0.01"])
    assert len(list((tmp_path / "runs").iterdir())) == 4


def test_the_control_is_there_when_there_are_recordings(tmp_path):
    items = [
        Item(str(k), "train", str(k), "c", {"image": {"path": "i.png"}, "text": {"texts": ["t"]}, "speech": {"path": "s.ogg"}})
        for k in range(3)
    ]
    arms = demo._arms(Manifest(items, tmp_path / "m.jsonl", "0"), [])
    assert list(arms) == [demo.BASELINE, demo.SLICED, demo.CONTROL]
    assert arms[demo.CONTROL].data.encoders["speech"] == "duration" and arms[demo.BASELINE].data.encoders["speech"] == "moonshine-tiny"
    assert arms[demo.CONTROL].objective == arms[demo.BASELINE].objective


def test_emoji_stands_in_where_apt_cannot_supply_tux(manifest, monkeypatch, capsys):
    def build(name):
        if name == "tux":
            raise SourceUnavailable("tuxpaint-stamps-default: apt-get is not installed")
        return manifest

    monkeypatch.setattr(demo, "build", build)
    _, note = demo._corpus("auto")
    assert "synthetic speech" in note and "apt-get is not installed" in note and note in capsys.readouterr().err
    with pytest.raises(SourceUnavailable):
        demo._corpus("tux")
    assert demo._corpus("emoji")[1] == ""


@pytest.mark.parametrize(
    ("baseline", "sliced", "word"),
    [
        ([0.3, 0.4, 0.5], [0.3, 0.4, 0.5], "no difference"),
        ([0.3, 0.4, 0.5], [0.32, 0.39, 0.51], "no difference"),
        ([0.3, 0.4, 0.5], [0.35, 0.451, 0.549], "helped"),
        ([0.35, 0.451, 0.549], [0.3, 0.4, 0.5], "hurt"),
        ([0.3], [0.4], "One seed"),
    ],
)
def test_verdict(baseline, sliced, word):
    made = report.verdict(baseline, sliced)
    assert word in made["sentence"]
    differences = np.array(sliced) - np.array(baseline)
    assert made["mean"] == pytest.approx(differences.mean(), abs=1e-12)
    if len(differences) > 1:
        assert made["sd"] == pytest.approx(differences.std(ddof=1), abs=1e-12)


def test_verdict_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    for degrees, value in report._T95.items():
        assert value == pytest.approx(stats.t.ppf(0.975, degrees), abs=1e-3)
    for degrees in (10, 20, 100):  # beyond the table: an approximation
        assert 1.96 + 2.7 / degrees == pytest.approx(stats.t.ppf(0.975, degrees), rel=0.02)


def test_markdown():
    text = report.markdown([["a", "b"], ["one", "2"]])
    assert text.splitlines() == ["| a   | b |", "|-----|--:|", "| one | 2 |"]


def test_ties_are_told():
    metrics = {f"R@{k}": 0.5 for k in (1, 5, 10)} | {
        "MRR": 0.5,
        "median_rank": 2,
        "queries": 4,
        "gallery": 4,
        "chance_R@10": 1.0,
        "tied": 0.25,
    }
    assert "25 % of a direction's queries tie" in report.evaluation_table({"directions": {"a->b": metrics}})


@pytest.fixture
def pictures(tmp_path):
    """Items with real pictures, a broken one, long and foreign texts, a missing recording."""
    generator = np.random.default_rng(0)
    items = []
    for k in range(12):
        Image.fromarray(generator.integers(0, 255, (30 + 40 * (k % 3), 50, 4), dtype=np.uint8)).save(tmp_path / f"{k}.png")
        text = ["A cat.", "Ein-ziemlich-langes-Wort-ohne-Leerzeichen-darin " * 3, "это кот"][k % 3]
        speech = None if k == 5 else {"path": f"{k}.ogg", "text": "un chat"} if k % 2 else {"path": f"{k}.ogg"}
        items.append(
            Item(
                str(k),
                "test",
                str(k),
                f"caption {k}",
                {"image": {"path": f"{k}.png"}, "text": {"texts": [text]}, "speech": speech},
                f"kind {k}",
            )
        )
    (tmp_path / "3.png").write_bytes(b"broken")
    present = {name: torch.tensor([item.modalities[name] is not None for item in items]) for name in ("image", "text", "speech")}
    batch = Batch({name: torch.zeros(12, 2) for name in present}, present, items)
    points = {}
    for names in [("image",), ("text",), ("speech",), ("image", "text"), ("image", "speech"), ("text", "speech")]:
        points[names] = torch.nn.functional.normalize(torch.randn(12, 8, generator=torch.Generator().manual_seed(len(points))), dim=1)
    return points, batch, tmp_path


def test_contact_sheet(pictures):
    points, batch, folder = pictures
    rows = cards.random_rows(points, batch, folder)
    assert rows[-1].title == "text + speech → image" and len(rows) == 9
    assert len({row.query[0].id for row in rows}) == 9  # nine items, none twice
    for row in rows:
        assert len(row.answers) == 5 and row.right == [answer.id == row.query[0].id for answer in row.answers]
        if row.title.endswith("speech"):
            assert all(answer.is_sound and answer.id != "5" for answer in row.answers)
    points = {names: points[("image",)] for names in points}  # now every query finds itself
    assert all(row.right[0] for row in cards.random_rows(points, batch, folder))
    contact_sheet.contact_sheet(points, batch, folder, folder / "sheet.png")
    sheet = np.asarray(Image.open(folder / "sheet.png"))
    green = (sheet == (0x2E, 0x9E, 0x4F)).all(-1).sum()
    assert green > 9 * 4 * 100 * 4
    assert [cards.card(batch.items[k], "speech", folder).text for k in (0, 1)] == ["caption 0", "un chat"]


def test_curves_and_maps(pictures, manifest):
    points, batch, folder = pictures
    history = [{"epoch": e, "contrastive": 1 / e, **({"val_mrr": e / 9} if e % 2 else {})} for e in range(1, 6)]
    plots.curves({"L_C": [history, history[:3]], "L_C + L_S": [[{**record, "sliced": 0.1} for record in history]]}, folder / "curves.png")
    plots.embedding_map(points, batch, folder / "map.png")
    for name in ("curves.png", "map.png"):
        with Image.open(folder / name) as picture:
            assert picture.width > 600
    few = load_features(Manifest.read(manifest), Data()).select([0])
    with pytest.raises(UserError, match="at least 4"):
        plots.embedding_map({(name,): torch.zeros(1, 3) for name in few.inputs}, few, folder / "none.png")


def test_runs_at_a_time_give_the_same_table(manifest, quick, tmp_path):
    one, two = (demo.demo(tmp_path / str(workers), str(manifest), seeds=(0, 1), changes=quick, workers=workers) for workers in (1, 2))
    for arm, found in one["arms"].items():
        for direction, metrics in found.items():
            assert metrics["MRR"]["values"] == pytest.approx(two["arms"][arm][direction]["MRR"]["values"], abs=0.02)


def test_an_error_in_a_worker_reaches_the_user(manifest, quick, tmp_path):
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(UserError, match="runs"):
        demo.demo(tmp_path, str(manifest), seeds=(0, 1), changes=quick, workers=2)
