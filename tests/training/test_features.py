"""The feature cache: keyed by content, resumed, never trusting what is damaged. The encoders here are stand-ins."""

import sqlite3

import pytest
import torch

from transphere.training.data import features as module
from transphere.training.data.cache import cache_dir
from transphere.training.data.features import cached, features
from transphere.training.data.manifest import Item, Manifest
from transphere.training.errors import CorruptFile, UserError


class Counting:
    """A file's or text's length, its first byte, and 1."""

    name, version, dim, batch = "counting", "1", 3, 2

    def __init__(self, modality="image"):
        self.modality, self.seen, self.fail_after = modality, [], None

    def encode(self, contents):
        if self.fail_after is not None and len(self.seen) >= self.fail_after:
            raise KeyboardInterrupt
        self.seen += contents
        data = [c.encode() if isinstance(c, str) else c.read_bytes() for c in contents]
        if b"corrupt" in data:
            raise CorruptFile(f"{contents[data.index(b'corrupt')]}: not an image that can be read")
        return torch.tensor([[len(d), d[0], 1] for d in data], dtype=torch.float32)


@pytest.fixture(autouse=True)
def encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSPHERE_CACHE", str(tmp_path / "cache é"))
    known = {"pictures": Counting(), "texts": Counting("text")}
    real = module.encoder_by_name
    monkeypatch.setattr(module, "encoder_by_name", lambda name: known[name] if name in known else real(name))
    return known["pictures"]


def database():
    return cache_dir() / "features" / "counting-1.sqlite"


@pytest.fixture
def manifest(tmp_path):
    for name, data in {"a": b"aa", "b": b"bbb", "c": b"aa"}.items():
        (tmp_path / f"{name} é.bin").write_bytes(data)
    entries = [
        {"image": {"path": "a é.bin"}, "text": {"texts": ["x"]}, "v": {"vector": [1, 2]}},
        {"image": None, "text": {"texts": ["x", "yyy"]}, "v": None, "none": None},
        {"image": {"path": "b é.bin"}},
        {"image": {"path": "c é.bin"}, "text": {"texts": ["ü"]}, "v": {"vector": [3, 4.5]}},
    ]
    return Manifest.write(tmp_path / "m.jsonl", [Item(str(n), "train", str(n), "c", e) for n, e in enumerate(entries)])


def test_order_presence_and_types(manifest, encoder):
    x, present = features(manifest, "image", "pictures", progress=False)
    assert x.tolist() == [[2, 97, 1], [0, 0, 0], [3, 98, 1], [2, 97, 1]] and x.dtype == torch.float32
    assert present.tolist() == [True, False, True, True] and present.dtype == torch.bool
    assert len(encoder.seen) == 2  # a and c have the same content


def test_several_texts_are_averaged_and_vectors_passed_on(manifest):
    x, present = features(manifest, "text", "texts", progress=False)
    assert x.tolist() == [[1, 120, 1], [2, 120.5, 1], [0, 0, 0], [2, 195, 1]] and present.tolist() == [True, True, False, True]
    x, present = features(manifest, "v", "vector")
    assert x.tolist() == [[1, 2], [0, 0], [0, 0], [3, 4.5]] and present.tolist() == [True, False, False, True]


def test_a_second_call_encodes_nothing_and_changed_content_anew(manifest, encoder, tmp_path):
    first, _ = features(manifest, "image", "pictures", progress=False)
    encoder.seen.clear()
    again, _ = features(manifest, "image", "pictures", progress=False)
    assert torch.equal(first, again) and not encoder.seen
    (tmp_path / "b é.bin").write_bytes(b"other")
    (tmp_path / "a é.bin").rename(tmp_path / "moved.bin")
    (tmp_path / "moved.bin").rename(tmp_path / "a é.bin")
    x, _ = features(manifest, "image", "pictures", progress=False)
    assert encoder.seen == [tmp_path / "b é.bin"] and x[2].tolist() == [5, 111, 1]


def test_an_interrupt_loses_one_batch_at_most(encoder):
    texts = [f"text {n:03}" for n in range(20)]
    encoder.fail_after = 10
    with pytest.raises(KeyboardInterrupt):
        cached(encoder, texts, progress=False)
    encoder.fail_after = None
    assert cached(encoder, texts, progress=False).shape == (20, 3)
    assert encoder.seen == texts


def test_a_corrupt_file_is_named_and_the_rest_kept(manifest, encoder, tmp_path):
    (tmp_path / "c é.bin").write_bytes(b"corrupt")
    encoder.batch = 1
    with pytest.raises(CorruptFile, match="c é.bin: not an image"):
        features(manifest, "image", "pictures", progress=False)
    (tmp_path / "c é.bin").write_bytes(b"cc")
    encoder.seen.clear()
    features(manifest, "image", "pictures", progress=False)
    assert encoder.seen == [tmp_path / "c é.bin"]


def test_half_written_or_infinite_rows_are_computed_again(encoder):
    texts = ["one", "two", "three"]
    good = cached(encoder, texts, progress=False)
    with sqlite3.connect(database()) as connection:
        connection.execute("UPDATE features SET value = substr(value, 1, 8) WHERE key = ?", (module._key("one"),))
        connection.execute("UPDATE features SET value = ? WHERE key = ?", (b"\xff" * 12, module._key("two")))
    connection.close()
    encoder.seen.clear()
    assert torch.equal(cached(encoder, texts, progress=False), good) and encoder.seen == ["one", "two"]


def test_a_damaged_cache_is_named(encoder):
    database().parent.mkdir(parents=True)
    database().write_bytes(b"not a database, though as long as one" * 100)
    with pytest.raises(UserError, match="counting-1.sqlite is damaged: .*delete the file"):
        cached(encoder, ["x"], progress=False)


@pytest.mark.parametrize("reason", ["database or disk is full", "attempt to write a readonly database"])
def test_a_cache_that_cannot_be_written(encoder, monkeypatch, reason):
    class Refusing(sqlite3.Connection):
        def executemany(self, *_):
            raise sqlite3.OperationalError(reason)

    connect = sqlite3.connect
    monkeypatch.setattr(module.sqlite3, "connect", lambda path, timeout: connect(path, timeout=timeout, factory=Refusing))
    with pytest.raises(UserError, match=f"feature cache .*counting-1.sqlite: {reason}; free some space"):
        cached(encoder, ["x"], progress=False)


def test_a_cache_folder_that_cannot_be_made(encoder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRANSPHERE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="file.*(Not a directory|File exists)"):
        cached(encoder, ["x"], progress=False)


def test_features_that_are_not_finite_are_refused(encoder, monkeypatch):
    monkeypatch.setattr(encoder, "encode", lambda contents: torch.full((len(contents), 3), float("nan")))
    with pytest.raises(UserError, match="x: counting gave features .* not finite"):
        cached(encoder, ["x"], progress=False)


def test_what_is_asked_for_must_exist(manifest, tmp_path):
    with pytest.raises(UserError, match="none called 'imgae'; did you mean 'image'"):
        features(manifest, "imgae", "pictures")
    with pytest.raises(UserError, match="unknown name 'minilm'; did you mean 'minilm-l6'"):
        features(manifest, "text", "minilm")
    with pytest.raises(UserError, match="'none' is missing from every item"):
        features(manifest, "none", "pictures")
    with pytest.raises(UserError, match="item '0': modality 'text': the encoder takes 'path', got an entry with texts"):
        features(manifest, "text", "pictures")
    with pytest.raises(UserError, match="item '0': modality 'image': the encoder takes 'vector'"):
        features(manifest, "image", "vector")
    (tmp_path / "b é.bin").unlink()
    with pytest.raises(UserError, match="b é.bin: cannot be read: No such file"):
        features(manifest, "image", "pictures")


def test_nothing_to_encode(encoder):
    assert cached(encoder, [], progress=False).shape == (0, 3)
