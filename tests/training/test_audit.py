"""The audit finds what was put there, and the R@1 ceiling is what a search over all systems finds."""

import itertools
import json
import random
import shutil
from collections import Counter

import numpy as np
import pytest
import soundfile
from PIL import Image

from transphere.training.cli import main
from transphere.training.data.audit import audit, audit_table
from transphere.training.data.ceiling import ceiling, ceilings
from transphere.training.data.check import inspect
from transphere.training.data.convert import convert
from transphere.training.data.fakes import fake, media
from transphere.training.data.manifest import Item, Manifest
from transphere.training.errors import CorruptFile


def brute_force(queries, gallery):
    """The best expected R@1 over all maps from a query's content to the content that is put first."""
    contents = sorted({content for content, _ in gallery})
    asked = sorted({content for content, _ in queries})
    best = 0.0
    for answers in itertools.product(contents, repeat=len(asked)):
        answer = dict(zip(asked, answers, strict=True))
        hits = 0.0
        for content, item in queries:
            tied = [owner for c, owner in gallery if c == answer[content]]
            hits += tied.count(item) / len(tied)
        best = max(best, hits / len(queries))
    return best


@pytest.mark.parametrize("seed", range(40))
def test_ceiling_is_the_best_of_all_systems(seed):
    draw = random.Random(seed)
    queries = [(draw.choice("abc"), draw.randrange(4)) for _ in range(draw.randint(1, 7))]
    gallery = [(draw.choice("xyz"), draw.randrange(5)) for _ in range(draw.randint(1, 7))]
    assert ceiling(queries, gallery) == pytest.approx(brute_force(queries, gallery), abs=1e-12)


def test_ceiling_of_known_cases():
    items = range(6)
    alone = [(str(i), i) for i in items]
    assert ceiling(alone, alone) == 1
    shared = [("a" if i < 3 else str(i), i) for i in items]  # three of six items share their content
    assert ceiling(shared, alone) == ceiling(alone, shared) == pytest.approx(4 / 6)
    assert ceiling(shared, shared) == pytest.approx(4 / 6)
    assert ceiling([("a", i) for i in items], alone) == pytest.approx(1 / 6)
    assert ceiling(alone, []) == 0
    # five captions a clip: one text that two clips have loses half of two queries
    captions = [(f"{i}{k}", i) for i in items for k in range(5)]
    captions[0] = captions[5] = ("same", 0), ("same", 1)
    captions[0], captions[5] = ("same", 0), ("same", 1)
    assert ceiling(captions, alone) == pytest.approx(29 / 30)
    assert ceiling(alone, captions) == 1  # another of its five captions is its own
    with pytest.raises(ValueError, match="queries"):
        ceiling([], alone)


def make(tmp_path, *items):
    return Manifest.write(tmp_path / "manifest.jsonl", items)


def item(name, split="train", group=None, caption="", **modalities):
    return Item(name, split, group or name, caption, modalities)


def test_ceilings_name_split_direction_and_both_bounds():
    items = [item(str(i), "test", caption="x" if i < 2 else "", a={"path": f"{i}"}, b={"vector": [i // 2, 1.0]}) for i in range(4)]
    items.append(item("other", "val", a={"path": "0"}, b=None))
    found = ceilings(items, {str(i): str(i) for i in range(4)})
    assert [(f["split"], f["query"], f["target"]) for f in found] == [("test", "a", "b"), ("test", "b", "a")]
    assert all(f["ceiling"] == 0.5 and f["equal_captions"] == 0.75 and f["queries"] == 4 for f in found)
    assert found[0]["shared"] == {"query": 0, "target": 4}


def test_a_clean_manifest(tmp_path, capsys):
    for i in range(4):
        media.sound(tmp_path / f"{i}.wav", i)
        media.picture(tmp_path / f"{i}.png", i)
    manifest = make(
        tmp_path,
        *(item(str(i), ("train", "val", "test", "train")[i], audio={"path": f"{i}.wav"}, image={"path": f"{i}.png"}) for i in range(4)),
    )
    report = audit(manifest, progress=False)
    assert report["faults"] == report["warnings"] == {} and report["shared"] == []
    assert report["splits"] == {"train": 2, "val": 1, "test": 1}
    assert report["modalities"]["audio"]["seconds"]["total"] == pytest.approx(0.8) and report["modalities"]["image"]["files"] == 4
    assert main(["data", "audit", str(manifest.path)]) == 0
    assert "nothing must be put right" in capsys.readouterr().out


@pytest.fixture
def faulty(tmp_path):
    """A manifest with one of everything."""
    for i in range(8):
        media.sound(tmp_path / f"{i}.wav", i)
        media.picture(tmp_path / f"{i}.png", i)
    media.cut(tmp_path / "0.wav")
    (tmp_path / "1.png").unlink()
    shutil.copy(tmp_path / "2.wav", tmp_path / "3.wav")
    soundfile.write(tmp_path / "4.wav", np.zeros(1000, np.float32), 16_000)
    soundfile.write(tmp_path / "5.wav", 1e-4 * np.sin(np.arange(16_000, dtype=np.float32)), 16_000, subtype="FLOAT")
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "6.png")
    splits = ["train", "train", "train", "test", "train", "val", "test", "test"]
    groups = ["g", "b", "c", "d", "e", "g", "f", "h"]
    texts = ["A dog.", "b", "c", "the dog", "d", "e", "f", "f"]
    return make(
        tmp_path,
        *(
            item(
                f"i{i}",
                splits[i],
                groups[i],
                audio={"path": f"{i}.wav"},
                image={"path": f"{i}.png"},
                text={"texts": [texts[i]]},
                vector={"vector": [0, 0] if i == 7 else [i, 1]},
                number={"vector": [i % 2]},
            )
            for i in range(8)
        ),
        item("alone", image={"path": "7.png"}, text=None),
    )


def test_every_fault_is_found(faulty):
    report = audit(faulty, progress=False)
    faults, warnings = report["faults"], report["warnings"]
    assert [(case["file"], case["items"]) for case in faults["missing or corrupt"]] == [("0.wav", ["i0"]), ("1.png", ["i1"])]
    assert "cut short" in faults["missing or corrupt"][0]["reason"] and "missing" in faults["missing or corrupt"][1]["reason"]
    assert faults["groups in several splits"] == [{"group": "g", "items": ["train: i0", "val: i5"]}]
    assert {tuple(case["files"]): case["items"] for case in faults["files in several splits"]} == {
        ("2.wav", "3.wav"): ["train: i2", "test: i3"],
        ("7.png",): ["test: i7", "train: alone"],
    }
    assert warnings["captions in several splits"] == [{"caption": "dog", "items": ["train: i0", "test: i3"]}]
    assert [(case["file"], case["level"]) for case in warnings["silent sounds"]] == [("4.wav", None), ("5.wav", -83.0)]
    assert warnings["blank pictures"] == [{"file": "6.png", "items": ["i6"]}]
    assert warnings["vectors of zeros"] == [{"item": "i7", "modality": "vector"}]
    assert warnings["items of one modality"] == [{"item": "alone"}]
    assert report["modalities"]["audio"] | {"seconds": 0} == {"items": 8, "missing": 1, "files": 8, "corrupt": 1, "seconds": 0}
    text = [f for f in report["shared"] if (f["query"], f["target"]) == ("text", "vector")]
    assert [(f["split"], f["shared"]["query"]) for f in text] == [("test", 2)] and text[0]["ceiling"] == pytest.approx(2 / 3)


def test_the_level_that_counts_as_silent_is_said(faulty):
    assert len(audit(faulty, silent=-90, progress=False)["warnings"]["silent sounds"]) == 1
    quick = audit(faulty, quick=True, progress=False)
    assert "silent sounds" not in quick["warnings"]
    assert [case["file"] for case in quick["faults"]["missing or corrupt"]] == ["1.png"]  # one that is cut short is not noticed,
    assert [case["files"] for case in quick["faults"]["files in several splits"]] == [["7.png"]]  # nor a copy


def test_the_command(faulty, capsys):
    assert main(["data", "audit", str(faulty.path)]) == 2
    table = capsys.readouterr().out
    for words in ("right: groups in several splits: 1", "[train: i0, val: i5]", "digital silence", "-83.0 dB", "missing from 1"):
        assert words in table
    assert main(["data", "audit", str(faulty.path), "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report == audit(faulty, progress=False)
    assert audit_table(report) + "\n" == table
    assert main(["data", "audit", str(faulty.root)]) == 2 and capsys.readouterr().out == table  # its folder
    assert main(["data", "audit", "tuxx"]) == 2 and "did you mean 'tux'" in capsys.readouterr().err


def test_long_lists_are_cut_in_the_table(tmp_path):
    many = (item(f"i{i}", ("train", "test")[i % 2], "g", a={"path": f"{i % 9}.wav"}, b={"vector": [1]}) for i in range(20))
    manifest = make(tmp_path, *many)
    table = audit_table(audit(manifest, progress=False))
    assert "missing or corrupt: 9" in table and "... and 4 more (--json has all)" in table and "... 20 in all" in table


def test_a_vector_with_nan_ends_with_its_place(faulty, capsys):
    faulty.path.write_text(faulty.path.read_text().replace('"vector": [3, 1]', '"vector": [NaN, 1]'))
    assert main(["data", "audit", str(faulty.path)]) == 2
    assert "line 4, column" in (error := capsys.readouterr().err) and "NaN is not a number" in error


def test_look_alikes_are_audited(tmp_path):
    """From the look-alike through the manifest: what the real dataset is known for is found."""
    found = {}
    for name, variant in (("clotho", None), ("crema-d", None), ("as5m", None), ("audiocaps", "each")):
        fake(name, tmp_path / name)
        manifest, _ = convert(name, tmp_path / name, variant=variant, progress=False)
        found[name] = audit(manifest, progress=False)
    assert found["clotho"]["faults"]["groups in several splits"][0]["group"] == "66302"
    assert {case["group"] for case in found["crema-d"]["faults"]["groups in several splits"]} <= {"1001", "1002", "1003", "1004"}
    covers = {(f["split"], f["query"], f["target"]): f["ceiling"] for f in found["as5m"]["shared"]}
    assert Counter(covers.values()).most_common(1)[0][0] == pytest.approx(1 / 3)  # three songs have one cover
    clips = {(f["query"], f["target"]): (f["ceiling"], f["equal_captions"]) for f in found["audiocaps"]["shared"] if f["split"] == "test"}
    assert clips["text", "audio"] == clips["audio", "text"] == (pytest.approx(1 / 5), 1.0)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.wav", b"", "empty"),
        ("a.wav", b"<html>", "not a sound file"),
        ("a.jpg", b"<html>", "not an image"),
        ("a.mp4", b"<html></html>", "not a mp4 video"),
        ("a.avi", b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
    ],
)
def test_files_that_are_not_what_they_say(name, content, reason, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptFile, match=reason):
        inspect(tmp_path / name)
    with pytest.raises(CorruptFile, match="missing"):
        inspect(tmp_path / "absent.wav")
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(CorruptFile, match="directory"):
        inspect(tmp_path / "folder.wav")


def test_colours_of_one_grey_are_not_blank(tmp_path):
    pixels = np.full((8, 8, 3), (0, 150, 0), np.uint8)
    pixels[:4] = (180, 34, 122)  # to the eye of a grey scale the same as the green
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert inspect(tmp_path / "a.png").spread > 50


def test_streamed_and_padded_sounds_are_whole(tmp_path):
    media.sound(tmp_path / "a.wav", 1)
    whole = (tmp_path / "a.wav").read_bytes()
    for size in (2**32 - 1, len(whole) - 8 + 4):
        (tmp_path / "b.wav").write_bytes(whole[:4] + size.to_bytes(4, "little") + whole[8:])
        assert inspect(tmp_path / "b.wav").seconds == pytest.approx(0.2)
    level = inspect(tmp_path / "a.wav").level
    assert level == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.1)
