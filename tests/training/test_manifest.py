"""Manifests: what is written is read back, and every bad row is named by file, line and field."""

import json

import pytest

from transphere.training.data.manifest import Item, Manifest
from transphere.training.errors import UserError

ROW = {
    "id": "a/b",
    "split": "train",
    "group": "g1",
    "caption": "penguin",
    "label": "animals",
    "modalities": {"image": {"path": "images/a b/é.png"}, "text": {"texts": ["A penguin."]}, "x": {"vector": [1, 2.5]}, "y": None},
}


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "with space é"
    folder.mkdir()
    return folder / "manifest.jsonl"


def rows(*changes):
    return "".join(json.dumps({**ROW, "id": str(n), **change}) + "\n" for n, change in enumerate(changes))


def test_round_trip(path):
    item = Item("1", "val", "g", "pingüino\u2028x", {"text": {"texts": ["Ein\u2028Satz"]}, "y": None}, "tiere", {"source": 3})
    written = Manifest.write(path, [item, Item(**{**ROW, "id": "2"})])
    read = Manifest.read(path)
    assert written == read and read.items[0] == item and read.root == path.parent
    assert read.modalities == ("text", "y", "image", "x")
    assert [i.id for i in read.split("val")] == ["1"] and read.split("test") == []
    assert read.counts() == "2 items, 2 groups (train 1, val 1, test 0)"
    assert list(path.parent.iterdir()) == [path]


def test_byte_order_mark_windows_lines_and_blank_lines_are_accepted(path):
    path.write_bytes(b"\xef\xbb\xbf" + rows({}, {}).replace("\n", "\r\n").encode() + b"\r\n  \n")
    assert len(Manifest.read(path).items) == 2


def test_label_may_be_left_out(path):
    path.write_text(json.dumps({k: v for k, v in ROW.items() if k != "label"}))
    assert Manifest.read(path).items[0].label == ""


@pytest.mark.parametrize("field", ["id", "split", "group", "caption", "modalities"])
def test_missing_field(path, field):
    path.write_text(rows({}) + json.dumps({k: v for k, v in ROW.items() if k != field}))
    with pytest.raises(UserError, match=rf"{path}, line 2: field '{field}' is missing"):
        Manifest.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modalites": {}}, "unknown field 'modalites'; did you mean 'modalities'"),
        ({"split": "dev"}, "'split': expected one of train, val, test, got 'dev'"),
        ({"id": 3}, "field 'id': expected a text"),
        ({"id": " "}, "field 'id': expected a text"),
        ({"id": "0"}, "id '0' is already used in line 1"),
        ({"id": "a\0b"}, "NUL"),
        ({"label": None}, "field 'label'"),
        ({"meta": []}, "field 'meta'"),
        ({"modalities": {}}, "one modality or more"),
        ({"modalities": {"image": None}}, "one modality or more"),
        ({"modalities": ["image"]}, "field 'modalities'"),
        ({"modalities": {"image": "a.png"}}, "modality 'image': expected null or an object with one of path, texts, vector"),
        ({"modalities": {"image": {"path": "a", "texts": ["b"]}}}, "with one of path"),
        ({"modalities": {"image": {"file": "a.png"}}}, "with one of path"),
        ({"modalities": {"image": {"path": ""}}}, "modality 'image': 'path'"),
        ({"modalities": {"image": {"path": "/etc/passwd"}}}, "relative to the manifest's folder"),
        ({"modalities": {"image": {"path": "a", "frames": []}}}, "'frames': expected a folder or a list"),
        ({"modalities": {"image": {"path": "a", "frames": ["b", "/c"]}}}, "'frames': expected one relative to the manifest's folder"),
        ({"modalities": {"text": {"texts": "A penguin"}}}, "'texts': expected a list"),
        ({"modalities": {"text": {"texts": []}}}, "'texts': expected a list"),
        ({"modalities": {"text": {"texts": ["a", 3]}}}, "'texts': expected a text"),
        ({"modalities": {"text": {"texts": ["\ud800"]}}}, "surrogate"),
        ({"modalities": {"x": {"vector": [1, True]}}}, "'vector': expected a list of finite numbers"),
        ({"modalities": {"x": {"vector": [1, -1e39]}}}, "finite numbers"),
        ({"modalities": {"x": {"vector": []}}}, "'vector': expected"),
        ({"modalities": {"x": {"vector": [1, 2, 3]}}}, "has 3 numbers, in line 1 2"),
    ],
)
def test_bad_row(path, change, message):
    path.write_text(rows({}, change))
    with pytest.raises(UserError) as caught:
        Manifest.read(path)
    assert message in str(caught.value) and f"{path}, line 2" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "a", ', "line 2, column"),
        (b"[1]", "expected a JSON object, got list"),
        (b'{"id": "a\xff"}', "expected UTF-8, got byte 0xff at column 10"),
        (b'{"id": "NaN", "x": NaN}', "line 2, column 20: .*NaN is not a number"),
        (b'{"id": "a", "id": "b"}', "field 'id' is given twice"),
        (b"[" * 100_000, "not JSON"),
        (b'{"id": "a"\n,"split": "val"}', "line 2, column"),
    ],
)
def test_bad_json(path, line, message):
    path.write_bytes(rows({}).encode() + line)
    with pytest.raises(UserError, match=message):
        Manifest.read(path)


def test_infinite_numbers_are_refused_however_written(path):
    path.write_text(rows({"modalities": {"x": {"vector": [1]}}}).replace("[1]", "[1e999]"))
    with pytest.raises(UserError, match="finite numbers"):
        Manifest.read(path)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\r\n"])
def test_empty_manifest(path, content):
    path.write_bytes(content)
    with pytest.raises(UserError, match="expected one item or more, got an empty file"):
        Manifest.read(path)


def test_absent_manifest_and_folder(path):
    for bad in (path, path.parent):
        with pytest.raises(UserError, match="cannot be read"):
            Manifest.read(bad)


def test_write_leaves_the_old_file_when_the_new_one_is_refused(path):
    before = Manifest.write(path, [Item(**ROW)])
    with pytest.raises(UserError, match="already used"):
        Manifest.write(path, [Item(**ROW), Item(**ROW)])
    assert Manifest.read(path) == before and list(path.parent.iterdir()) == [path]


def test_resplit_keeps_groups_together_and_depends_on_the_seed_alone(path):
    manifest = Manifest.write(path, [Item(**{**ROW, "id": str(n), "group": f"g{n // 3}"}) for n in range(300)])
    one, two = manifest.resplit(1), manifest.resplit(2)
    assert [i.split for i in one.items] != [i.split for i in two.items]
    assert one.items == manifest.resplit(1).items and one.sha256 != two.sha256
    assert len({(i.group, i.split) for i in one.items}) == 100


def test_unknown_split(path):
    with pytest.raises(UserError, match="got 'valid'"):
        Manifest.write(path, [Item(**ROW)]).split("valid")


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"split": "dev"}, '"dev"'),
        ({"id": "0"}, '"0"'),
        ({"colour": [1, {"a": "b"}]}, "[1, {"),
        ({"modalities": {"image": {"path": "a"}, "é": {"texts": ["a, b: {", 3]}}}, "3]"),
        ({"modalities": {"y": None, "x": {"vector": [1, True]}}}, "true"),
        ({"modalities": {"x": {"vector": [1, 2, 3]}}}, "[1, 2, 3]"),
        ({"modalities": {"image": {"path": "/etc/passwd"}}}, '"/etc/passwd"'),
        ({"meta": 4}, "4}"),
    ],
)
def test_the_column_is_that_of_the_value(path, change, at):
    row = "  " + json.dumps({**ROW, "id": "1", **change}, ensure_ascii=False)
    path.write_text(rows({}) + row)
    with pytest.raises(UserError, match=rf"line 2, column {row.index(at) + 1}: "):
        Manifest.read(path)
