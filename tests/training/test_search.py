"""`transphere search` from files to answers, with encoders that a test can see through."""

import html.parser
import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_corpus import install, write

from transphere import frechet_mean
from transphere.training import config, queries
from transphere.training.batch import load_batch
from transphere.training.cli import main
from transphere.training.embeddings import embed_items, every_set
from transphere.training.errors import UserError
from transphere.training.evaluator import draw
from transphere.training.queries import points_of, samples
from transphere.training.run import fit, open_run
from transphere.training.search import search

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = (
    *("model.dim=16", "model.hidden=32", "model.dropout=0.0", "objective.n_samples=4", "objective.n_projections=8"),
    *("optim.epochs=40", "optim.batch_size=36", "run.eval_samples=16", "run.eval_every=10", "run.device=cpu"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run on files: (its folder, the files' folder)."""
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        install(patch, folder / "cache")
        manifest = write(folder, missing_speech=(8, 9, 18))
        sets = [word for text in RECIPE for word in ("--set", text)]
        assert main(["fit", "ismir2024", "--data", str(manifest), "--out", str(folder / "run"), *sets]) == 0
    return folder / "run", folder


@pytest.fixture
def files(made, monkeypatch):
    install(monkeypatch, made[1] / "cache")
    return made


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_every_kind_of_query_finds_its_own_kind(files, capsys):
    run, folder = files
    picture, sound = str(folder / "bild ü6.png"), str(folder / "6.ogg")
    for query in (["--text", "thing 6"], ["--image", picture], ["--audio", sound], ["--text", "thing 6", "--image", picture]):
        for to in ("image", "text", "speech"):
            assert main(["search", str(run), *query, "--to", to, "--json", "--top", "5"]) == 0
            result = json.loads(capsys.readouterr().out)
            answers = result["answers"]
            assert [a["rank"] for a in answers] == [1, 2, 3, 4, 5]
            assert sum(a["label"] == "kind_0" for a in answers) >= 3
            assert all(a["score"] >= b["score"] for a, b in zip(answers, answers[1:], strict=False))
            assert result["gallery"] == (57 if to == "speech" else 60)
    assert main(["search", str(run), "--query", "text=thing 6", "--to", "image", "--split", "test", "--top", "99"]) == 0
    printed = lines(capsys)
    assert len(printed) == 12 and printed[0].split()[0] == "1" and str(folder) in printed[0]


def test_answers_against_a_loop(files):
    run = open_run(files[0])
    query = {"text": "thing 3", "speech": str(files[1] / "14.ogg")}
    point = frechet_mean(torch.cat([samples(run, name, [value])[0] for name, value in query.items()]))
    torch.testing.assert_close(points_of(run, {name: [value] for name, value in query.items()})[0], point)
    items = embed_items(run)
    scored = sorted(((float(point @ p), i) for p, i in zip(items.points[("image",)], items.ids[("image",)], strict=True)), reverse=True)
    found = search(run, query, "image", 60)["answers"]
    assert [a["id"] for a in found] == [i for _, i in scored]
    assert [a["score"] for a in found] == pytest.approx([s for s, _ in scored], abs=1e-6)


def test_enriched_answers_leave_the_query_out(files):
    run = open_run(files[0])
    every = embed_items(run, sets=every_set(run))
    for query, wanted in ((("image",), "text + speech"), (("image", "speech"), "text"), (("text",), "text")):
        given = {"image": str(files[1] / "bild ü4.png"), "speech": str(files[1] / "4.ogg"), "text": "thing 4"}
        asked = {name: given[name] for name in query}
        alone = search(run, asked, "text", 3, enrich=True)
        assert alone["items_are"] == wanted
        assert search(run, asked, "text", 3, enrich=True, embeddings=every)["answers"] == alone["answers"]
    with pytest.raises(UserError, match="embed with --enrich"):
        search(run, {"image": given["image"]}, "text", 3, enrich=True, embeddings=embed_items(run))
    with pytest.raises(UserError, match="made by --mean frechet, the search asks for chordal"):
        search(run, {"image": given["image"]}, "text", 3, mean="chordal", embeddings=every)


def test_an_index_gives_the_same_answers(files, capsys, tmp_path):
    run, _ = files
    index = str(tmp_path / "i.safetensors")
    assert main(["embed", str(run), "--out", index, "--enrich"]) == 0
    lines(capsys)
    for options in ([], ["--enrich"], ["--split", "val"]):
        assert main(["search", str(run), "--text", "thing 5", "--to", "speech", *options]) == 0
        alone = lines(capsys)
        assert main(["search", str(run), "--text", "thing 5", "--to", "speech", *options, "--index", index]) == 0
        assert lines(capsys) == alone


def test_sheets(files, capsys, tmp_path):
    run, folder = files
    page, picture = tmp_path / "a b" / "seite.html", tmp_path / "sheet.png"
    argv = ["search", str(run), "--text", "thing 6 <script>alert(1)</script>", "--image", str(folder / "bild ü6.png"), "--top", "4"]
    assert main([*argv, "--to", "speech", "--sheet", str(page)]) == 0 and str(page) in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    seen = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: seen.append((tag, dict(attributes)))
    parser.feed(text)
    tags = [tag for tag, _ in seen]
    assert tags.count("audio") == 4 and tags.count("img") == 1 and tags.count("figure") == 6 and "script" not in tags and "b" not in tags
    assert all(a["src"].startswith("data:") for tag, a in seen if tag in ("audio", "img"))
    assert main([*argv, "--to", "image", "--sheet", str(picture)]) == 0
    assert (np.asarray(Image.open(picture)) == (60, 200, 100)).all(-1).sum() == 0
    colours = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    assert ((colours[:, 1] == 200) & (colours[:, 2] == 100)).sum() > 5 * 5000  # the query's picture and four answers
    assert main(["eval", str(run), "--sheet", str(tmp_path / "eval.html"), "--enrich"]) == 0
    assert (tmp_path / "eval.html").read_text().count("<section>") == 9


def test_long_sounds_are_linked(tmp_path):
    from transphere.training import contact_html
    from transphere.training.cards import Card

    sound = tmp_path / "ton ö.wav"
    sound.write_bytes(b"0" * (contact_html.INLINE + 1))
    (tmp_path / "pages").mkdir()
    shown = contact_html._figure(Card("x", sound), "", "", tmp_path / "pages")
    assert 'src="../ton%20%C3%B6.wav"' in shown
    assert "nowhere.ogg" in contact_html._figure(Card("x", tmp_path / "nowhere.ogg"), "", "", tmp_path)
    assert "<img" not in contact_html._figure(Card("words", tmp_path / "nowhere.png"), "", "", tmp_path)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--to", "image"], "nothing to search for"),
        (["--text", "thing 1", "--to", "sound"], "no modality 'sound'"),
        (["--text", "thing 1", "--query", "text=thing 2", "--to", "image"], "text is asked with twice"),
        (["--text", "  ", "--to", "image"], "expected a text, got nothing"),
        (["--image", "/nowhere/x.png", "--to", "text"], "/nowhere/x.png"),
        (["--query", "imag=x", "--to", "text"], "did you mean 'image'"),
        (["--query", "image", "--to", "text"], "expected MODALITY=VALUE"),
        (["--text", "thing 1", "--to", "image", "--top", "0"], "--top: expected 1 or more"),
        (["--text", "thing 1", "--to", "image", "--sheet", "x.pdf"], "ends in .html or .png"),
        (["--text", "thing 1", "--to", "image", "--index", "/nowhere/i"], "make it by transphere embed"),
    ],
)
def test_refusals(files, capsys, argv, words):
    assert main(["search", str(files[0]), *argv]) == 2
    assert words in capsys.readouterr().err


def test_a_file_that_is_no_picture(files, capsys, tmp_path):
    (tmp_path / "x.png").write_text("no")
    assert main(["search", str(files[0]), "--image", str(tmp_path / "x.png"), "--to", "text"]) == 2
    assert "x.png: not an image" in capsys.readouterr().err


def test_runs_without_or_with_several_such_modalities(manifest, tiny, tmp_path, capsys):
    sets = [word for text in tiny for word in ("--set", text)]
    run = str(tmp_path / "run")
    assert main(["fit", "ismir2024", "--data", str(manifest), "--out", run, *sets]) == 0
    for flag in ("--text", "--image", "--audio"):
        assert main(["search", run, flag, "x", "--to", "image"]) == 2
        assert f"{flag}: none of the run's modalities is encoded from it" in capsys.readouterr().err
    vector = tmp_path / "v.json"
    row = json.loads(manifest.read_text().splitlines()[0])
    vector.write_text(json.dumps(row["modalities"]["text"]["vector"]))
    np.save(tmp_path / "v.npy", np.array(row["modalities"]["text"]["vector"]))
    found = []
    for value in (vector.read_text(), vector, tmp_path / "v.npy"):
        assert main(["search", run, "--query", f"text={value}", "--to", "image"]) == 0
        found.append(lines(capsys))
    assert found[0] == found[1] == found[2] and len(found[0]) == 10
    huge, large = (json.dumps([float(e)] * 9 + [-float(e)]) for e in ("1e39", "3e38"))
    for value, words in (
        ("[1, 2]", "a list of 10 finite numbers"),
        ("[1e999]", "finite"),
        ("{", "{"),
        (huge, "10 finite"),
        (large, "no finite point"),
        ("/none", "cannot be read"),
    ):
        assert main(["search", run, "--query", f"text={value}", "--to", "image"]) == 2
        assert words in capsys.readouterr().err


def test_two_modalities_of_one_kind(files, monkeypatch):
    monkeypatch.setattr(queries, "kind_of", lambda run, name: "image" if name == "image" else "music")
    run = open_run(files[0])
    with pytest.raises(UserError, match="--audio: several take it: text, speech; say which by --query MODALITY=FILE"):
        queries.modality_for(run, "audio")
    assert queries.modality_for(run, "image") == "image"


def test_queries_of_trained_encoders(tiny, tmp_path, monkeypatch, capsys):
    install(monkeypatch, tmp_path / "cache")
    made = config.load("ismir2024", [*tiny, f"data.manifest={write(tmp_path)}", "optim.epochs=1", "data.workers=0"])
    towers = {"text": config.Encoder(name="bert", size="tiny"), "image": config.Encoder(name="clip-image", size="tiny")}
    fit(made.replace(model={"encoders": towers}), tmp_path / "run", progress=False)
    run = open_run(tmp_path / "run")
    assert [queries.kind_of(run, name) for name in ("image", "text", "speech")] == ["image", "text", "speech"]
    item = run.manifest.items[7]
    batch = next(load_batch(run.manifest, run.config).stream([[7]]))
    for name, content in (("image", str(tmp_path / "bild ü7.png")), ("text", item.modalities["text"]["texts"][0])):
        with torch.no_grad():
            expected = run.model({name: batch.inputs[name]})[name].loc
            torch.testing.assert_close(run.model({name: queries.encode(run, name, [content])})[name].loc, expected)
        assert main(["search", str(run.path), f"--{name}", content, "--to", "speech", "--top", "3"]) == 0
        assert len(lines(capsys)) == 3


def test_a_run_that_classifies_has_nothing_to_search(tiny, tmp_path, monkeypatch, capsys):
    install(monkeypatch, tmp_path / "cache")
    sets = [word for text in tiny for word in ("--set", text)]
    run = str(tmp_path / "run")
    encoders = config.load("ismir2024").data.encoders
    sets += [word for name, kind in encoders.items() for word in ("--set", f"data.encoders.{name}={kind}")]
    assert main(["fit", "softmax", "--data", str(write(tmp_path)), "--out", run, *sets]) == 0
    for argv in (
        ["search", run, "--text", "thing 1", "--to", "image"],
        ["embed", run, "--out", str(tmp_path / "e")],
        ["eval", run, "--gap"],
        ["check", "metrics", run],
    ):
        assert main(argv) == 2
        assert "was trained to classify (softmax)" in capsys.readouterr().err
    assert main(["eval", run]) == 0


@pytest.mark.parametrize("command", [["eval"], ["embed"], ["search"], ["check"], ["check", "metrics"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as error:
        main([*command, "--help"])
    assert error.value.code == 0 and capsys.readouterr().out.startswith("usage: transphere " + " ".join(command))


def test_draws_of_a_point_are_itself():
    x = torch.eye(3)
    assert torch.equal(draw(x, 5, 0), x[:, None])
