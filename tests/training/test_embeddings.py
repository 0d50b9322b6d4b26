"""`transphere embed`: what it writes is what is scored, and a file goes with its run and its ids alone."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from transphere.training.cli import main
from transphere.training.embeddings import embed_items, every_set, read_embeddings, write_embeddings
from transphere.training.errors import UserError
from transphere.training.evaluation import score_run
from transphere.training.run import open_run

pytestmark = pytest.mark.usefixtures("one_thread")


_trained = {}


@pytest.fixture
def run(tiny, write_manifest, tmp_path_factory, capsys):
    """A run whose items lack a third of their texts and recordings; one for all tests, which do not change it."""
    if not _trained:
        folder = tmp_path_factory.mktemp("trained")
        manifest = write_manifest(folder / "manifest.jsonl", missing=0.3)
        sets = [word for text in tiny for word in ("--set", text)]
        assert main(["fit", "ismir2024", "--data", str(manifest), "--out", str(folder / "run"), *sets]) == 0
        _trained["run"] = open_run(folder / "run")
        capsys.readouterr()
    return _trained["run"]


def test_written_and_read(run, tmp_path, capsys):
    file = tmp_path / "ünïcode dir" / "e.safetensors"
    assert main(["embed", str(run.path), "--out", str(file)]) == 0
    assert str(file) in capsys.readouterr().out
    with safe_open(file, framework="pt") as opened:
        assert sorted(opened.keys()) == ["image", "speech", "text"]
        facts = json.loads(opened.metadata()["transphere"])
    assert facts["digest"] == run.facts["digest"] and facts["modalities"] == ["image", "text", "speech"] and facts["mean"] == "frechet"
    made = read_embeddings(file, run)
    for name in ("image", "text", "speech"):
        there = [item.id for item in run.manifest.items if item.modalities[name]]
        assert sorted(made.ids[(name,)]) == sorted(there)
        assert made.points[(name,)].shape == (len(there), 16) and made.points[(name,)].dtype == torch.float32
        torch.testing.assert_close(made.points[(name,)].norm(dim=1), torch.ones(len(there)))


@pytest.mark.parametrize("mean", ["frechet", "chordal"])
def test_points_are_those_that_eval_scores(run, mean):
    scored = score_run(run, "test", mean=mean, enrich=True)
    made = embed_items(run, mean=mean, sets=every_set(run))
    only = embed_items(run, "test", mean=mean)
    for s in (("text",), ("image", "speech")):
        rows = {name: k for k, name in enumerate(made.ids[s])}
        there = torch.stack([scored.batch.present[m] for m in s]).any(0)
        for i, item in enumerate(scored.batch.items):
            assert (item.id in rows) == bool(there[i])
            if there[i]:
                assert torch.equal(made.points[s][rows[item.id]], scored.points[s][i])
    assert set(only.ids[("text",)]) == {item.id for item in run.manifest.items if item.split == "test" and item.modalities["text"]}


def test_enriched_points_are_means_of_what_there_is(run):
    made = embed_items(run, "test", sets=every_set(run))
    assert len(made.points) == 7 and made.facts["enriched"]
    both, image = ("image", "text"), ("image",)
    for name, point in zip(made.ids[both], made.points[both], strict=True):
        alone = name not in made.ids[("text",)]
        assert torch.allclose(point, made.points[image][made.ids[image].index(name)], atol=1e-5) == alone


def test_sets_of_many_modalities():
    sets = every_set(SimpleNamespace(facts={"dims": dict.fromkeys("abcdefghij", 4)}))  # of a run, the part that is looked at
    assert {len(s) for s in sets} == {1, 8, 9, 10} and len(sets) == len(set(sets)) == 10 + 45 + 10 + 1


def test_a_file_goes_with_its_run_and_ids(run, tmp_path, tiny):
    file, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_embeddings(embed_items(run, "test"), file)
    write_embeddings(embed_items(run, "val"), other)
    side = tmp_path / "a.safetensors.ids.json"
    kept = side.read_bytes()
    side.write_bytes((tmp_path / "b.safetensors.ids.json").read_bytes())
    with pytest.raises(UserError, match="is not the list of ids"):
        read_embeddings(file)
    side.write_bytes(kept)
    assert len(read_embeddings(file).ids[("image",)]) == 18
    manifest = str(run.manifest.path)
    sets = [word for text in [*tiny, "run.seed=5"] for word in ("--set", text)]
    assert main(["fit", "ismir2024", "--data", manifest, "--out", str(tmp_path / "another"), *sets]) == 0
    with pytest.raises(UserError, match="another run than"):
        read_embeddings(file, open_run(tmp_path / "another"))
    whole = file.read_bytes()
    for broken in (b"", whole[:50], whole[:-5]):
        file.write_bytes(broken)
        with pytest.raises(UserError, match="not readable embeddings"):
            read_embeddings(file)
    side.unlink()
    with pytest.raises(UserError, match=r"ids.json: no such file; make it by transphere embed"):
        read_embeddings(file)
    with pytest.raises(UserError, match="not readable embeddings"):  # weights are no embeddings
        (run.path / "best.safetensors.ids.json").write_text("{}")
        read_embeddings(run.path / "best.safetensors")


def test_places_that_cannot_be_written(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")  # like a device, it would be replaced rather than written to
    (tmp_path / "e.ids.json").mkdir()
    for out in (tmp_path, tmp_path / "file" / "e.safetensors", tmp_path / "pipe", tmp_path / "e"):
        assert main(["embed", str(run.path), "--out", str(out)]) == 2
        assert str(out) in capsys.readouterr().err
