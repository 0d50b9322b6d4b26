"""What `data convert` does whatever the dataset: refusals, options, files that cannot be used, paths and links."""

import csv
import json

import pytest
import soundfile
from PIL import Image

from transphere.training.data.convert import convert
from transphere.training.data.fakes import fake, media
from transphere.training.data.readers import READERS
from transphere.training.errors import UserError


@pytest.mark.parametrize("name", READERS)
def test_another_layout_is_refused_by_name(name, tmp_path):
    (tmp_path / "readme.md").write_text("nothing")
    with pytest.raises(UserError, match="expected .*(found|got)"):
        convert(name, tmp_path, progress=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the columns .* got an empty file"),
        (b"a,b\n1,2\n", "expected the columns file_name, caption_1, got a, b; no 'file_name'"),
        (b"file_name,caption_1\n\xff.wav,x\n", "line 2: expected UTF-8, got byte 0xff"),
        (b'file_name,caption_1\na.wav,"' + b"x" * 200_000 + b'"\n', "line 2: not CSV: field larger"),
        (b"file_name,caption_1\nonly\n", "no item.*no 'caption_1'"),
        (b"file_name,caption_1\na,b,c\n", "expected 2 columns, got 3"),
        (b'file_name,caption_1\na.wav,"x\0y"\n', "line 2: holds a NUL byte"),
    ],
)
def test_bad_tables(content, message, tmp_path):
    (tmp_path / "clotho_captions_development.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        convert("clotho", tmp_path, progress=False)


def test_a_caption_may_hold_a_line_end_and_a_line_separator(tmp_path):
    media.sound(tmp_path / "development/a.wav", 1)
    with (tmp_path / "clotho_captions_development.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file_name", "caption_1"], ["a.wav", "one\ntwo\u2028three"]])
    manifest, _ = convert("clotho", tmp_path, progress=False)
    assert manifest.items[0].modalities["text"]["texts"] == ["one\ntwo\u2028three"]


def test_strict_ends_at_the_first(made, tmp_path):
    fake("clotho", tmp_path / "clotho")
    with pytest.raises(UserError, match="cut short.*--strict"):
        made("clotho", strict=True)
    fake("flickr8k", tmp_path / "flickr8k")
    with pytest.raises(UserError, match="token.txt, line 61: .*--strict"):
        made("flickr8k", strict=True)
    assert not (tmp_path / "clotho/manifest.jsonl").exists()


def test_quick_looks_only_whether_files_are_there(made):
    items, faults = made("clotho", quick=True)
    assert len(items) == 11 and len(faults.reasons) == 1


def test_a_manifest_elsewhere_has_paths_that_lead_back(tmp_path):
    fake("esc50", tmp_path / "data set")
    out = tmp_path / "far" / "away" / "m.jsonl"
    manifest, _ = convert("esc50", tmp_path / "data set", out, progress=False)
    path = manifest.items[0].modalities["audio"]["path"]
    assert path.startswith("../../data set/ESC-50-master/audio/") and (manifest.root / path).is_file()


def test_through_a_link(tmp_path):
    fake("esc50", tmp_path / "real" / "deep")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    (tmp_path / "out").mkdir()
    (tmp_path / "outlink").symlink_to(tmp_path / "out")
    manifest, _ = convert("esc50", tmp_path / "link", tmp_path / "outlink" / "m.jsonl", progress=False)
    assert (manifest.root / manifest.items[0].modalities["audio"]["path"]).is_file()


def test_validation_share_keeps_groups_together(tmp_path):
    fake("ssw60", tmp_path / "d", 60)
    manifest, _ = convert("ssw60", tmp_path / "d", variant="audio", val=0.4, quick=True, progress=False)
    counts = {name: len(manifest.split(name)) for name in ("train", "val", "test")}
    assert counts["test"] == 10 and 10 < counts["val"] < 30
    assert manifest.path.name == "manifest-audio.jsonl"
    fake("clotho", tmp_path / "c")
    with pytest.raises(UserError, match="validation split of its own"):
        convert("clotho", tmp_path / "c", val=0.1, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "fold9"}, "variant: esc50 has none called 'fold9'; did you mean"),
        ({"val": 1.0}, "val: expected a share"),
        ({"splits": ["train"]}, "has no item in the splits train"),
        ({"out": "."}, "got a folder"),
    ],
)
def test_bad_options(options, message, tmp_path):
    fake("esc50", tmp_path / "d")
    options = {**options, **({"out": tmp_path} if "out" in options else {})}
    with pytest.raises(UserError, match=message):
        convert("esc50", tmp_path / "d", progress=False, **options)


def test_unknown_names_absent_folders_and_manifests_that_are_there(tmp_path):
    with pytest.raises(UserError, match="did you mean 'clotho'"):
        convert("cloto", tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        convert("clotho", tmp_path / "absent")
    fake("clotho", tmp_path / "c")
    convert("clotho", tmp_path / "c", progress=False)
    with pytest.raises(UserError, match="--overwrite replaces it"):
        convert("clotho", tmp_path / "c", progress=False)
    with pytest.raises(UserError, match="new or empty folder"):
        fake("clotho", tmp_path / "c")
    with pytest.raises(UserError, match="items: expected 6 or more"):
        fake("clotho", tmp_path / "d", 2)


def test_nothing_that_can_be_used(tmp_path):
    fake("esc50", tmp_path)
    for file in tmp_path.rglob("*.wav"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="no item of esc50 has a file that can be used; 12 were left out, the first: .*empty"):
        convert("esc50", tmp_path, progress=False)


def test_an_id_listed_twice_is_kept_once(made, tmp_path):
    fake("crema-d", tmp_path / "crema-d")
    with (tmp_path / "crema-d/test.csv").open("a") as file:
        file.write("1003_IOM_SAD_X2,SAD\n")
    items, faults = made("crema-d")
    assert items["1003_IOM_SAD_X2"].split == "train" and any("listed twice" in reason for reason in faults.reasons.values())


def test_a_name_that_is_not_utf8(tmp_path):
    media.picture(tmp_path / "a.png", 1)
    try:
        (tmp_path / "a.png").rename(tmp_path / "a\udcff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    media.picture(tmp_path / "b.png", 1)
    media.table(tmp_path / "captions.csv", [["file", "caption"], ["b.png", "b"]])
    media.text(tmp_path / "a\udcff.txt", ["a"])
    manifest, faults = convert("folder", tmp_path, progress=False)
    assert [item.id for item in manifest.items] == ["b"] and any("not UTF-8" in reason for reason in faults.reasons.values())


def test_what_the_tones_and_shapes_are(tmp_path):
    media.sound(tmp_path / "a.wav", 3, rate=44_100)
    media.picture(tmp_path / "a.jpg", 3)
    samples, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == 44_100 and abs(samples).max() > 0.2 and Image.open(tmp_path / "a.jpg").size == (64, 48)
    assert len(set(media.captions(1, 10))) == 10 and json.dumps(media.captions(1, 1))


def test_links_to_folders_are_followed_once(tmp_path):
    for number in range(2):
        media.picture(tmp_path / "elsewhere" / f"{number}.png", number)
        media.sound(tmp_path / "d" / f"{number}.wav", number)
    (tmp_path / "d" / "pictures").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "d")
    manifest, faults = convert("folder", tmp_path / "d", progress=False)
    assert [item.id for item in manifest.items] == ["0", "1"] and not faults.reasons
    assert manifest.items[0].modalities["image"] == {"path": "pictures/0.png"}


def test_a_folder_that_cannot_be_written_is_told_before_the_files_are_read(tmp_path, monkeypatch):
    fake("esc50", tmp_path / "d")
    monkeypatch.setattr("transphere.training.data.convert.os.access", lambda place, mode: False)
    with pytest.raises(UserError, match="cannot be written; --out"):
        convert("esc50", tmp_path / "d", progress=False)


def test_a_text_file_that_is_not_utf8_is_named_and_left_out(tmp_path):
    for number in range(2):
        media.picture(tmp_path / f"{number}.png", number)
        (tmp_path / f"{number}.txt").write_bytes(b"caf\xe9\n" if number else "café\n".encode())
    manifest, faults = convert("folder", tmp_path, progress=False)
    assert [item.id for item in manifest.items] == ["0"]
    assert "expected UTF-8, got byte 0xe9" in faults.reasons[str(tmp_path / "1.txt")] and "1.png" in faults.reasons
