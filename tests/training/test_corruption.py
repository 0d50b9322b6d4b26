"""Training data spoilt on purpose, kinds of items held out, and splits that leak."""

import dataclasses
from dataclasses import replace

import pytest

from transphere.training import config
from transphere.training.data.corruption import corrupt
from transphere.training.data.hold_out import held_out
from transphere.training.data.manifest import Manifest
from transphere.training.errors import UserError
from transphere.training.run import open_manifest


@pytest.fixture
def styled(whole):
    """Every third item by one hand, the rest by another; speech in one of two voices."""
    items = [
        replace(
            item,
            meta={"style": "ink" if i % 3 else "chalk", "year": 1990},
            modalities={**item.modalities, "speech": {**(item.modalities["speech"] or {"vector": [0.0]}), "voice": f"v{i % 2}"}},
        )
        for i, item in enumerate(whole.items)
    ]
    return Manifest(items, whole.path, "")


def test_what_is_held_out_is_not_trained_on(styled):
    found = held_out(styled, {"style": "chalk"}, {"style": "chalk"})
    assert {(item.split, item.meta["style"]) for item in found.items} == {("train", "ink"), ("val", "ink"), ("test", "chalk")}
    assert [item for item in styled.items if item in found.items] == found.items
    assert found.sha256 != held_out(styled, {"style": "chalk"}, {}).sha256
    voiced = held_out(styled, {"voice": "v0", "style": "chalk"}, {"voice": "v0", "style": "chalk"})  # neither of both; both at once
    assert {item.modalities["speech"]["voice"] for item in voiced.split("train")} == {"v1"}
    assert all(item.meta["style"] == "chalk" and item.modalities["speech"]["voice"] == "v0" for item in voiced.split("test"))
    for hold_out, test_only, message in (
        ({"stile": "ink"}, {}, "data.hold_out: no item of .* says its 'stile'; did you mean 'style'"),
        ({}, {"style": "inc"}, "data.test_only.style: .* has no item with 'inc'; did you mean 'ink'"),
        ({"year": "1990"}, {}, "data.hold_out: no item of .* says its 'year'; known: style, voice"),
    ):
        with pytest.raises(UserError, match=message):
            held_out(styled, hold_out, test_only)
    alone = Manifest([replace(item, meta={"style": item.split}) for item in styled.items], styled.path, "")
    with pytest.raises(UserError, match="leave no item of .* in the split 'test'"):
        held_out(alone, {}, {"style": "val"})


def test_held_out_by_a_run(styled, tmp_path):
    path = Manifest.write(tmp_path / "styled.jsonl", styled.items).path
    data = config.load("ismir2024", ["data.split_seed=1", "data.hold_out.style=ink", "data.test_only.voice=v1"]).data
    found = open_manifest(dataclasses.replace(data, manifest=str(path)))
    assert {item.meta["style"] for item in found.split("train")} == {"chalk"}
    assert {item.modalities["speech"]["voice"] for item in found.split("test")} == {"v1"} and len(found.split("test")) > 3


@pytest.fixture
def whole(manifest):
    return Manifest.read(manifest)


def changed(a, b, name):
    """The items whose entry differs."""
    return [x for x, y in zip(a.items, b.items, strict=True) if x.modalities[name] != y.modalities[name]]


def test_noise_gives_another_ones_to_a_share_of_the_training_items(whole):
    spoilt = corrupt(whole, {}, {"text": 0.5}, seed=0)
    wrong = changed(whole, spoilt, "text")
    training = whole.split("train")
    assert 0.3 * len(training) < len(wrong) < 0.7 * len(training) and {item.split for item in wrong} == {"train"}
    entries = lambda found: sorted(str(item.modalities["text"]) for item in found.items)  # noqa: E731
    assert entries(whole) == entries(spoilt)  # exchanged, none lost
    assert not changed(whole, spoilt, "image") and spoilt.sha256 != whole.sha256
    assert len(changed(whole, corrupt(whole, {}, {"text": 1.0}, seed=0), "text")) == len(training)


def test_what_happens_is_keyed_by_seed_and_id(whole):
    gone = lambda found: {item.id for item in found.items if item.modalities["speech"] is None}  # noqa: E731
    some, more = (gone(corrupt(whole, {"speech": rate}, {}, seed=1)) for rate in (0.3, 0.6))
    assert some < more and gone(corrupt(whole, {"speech": 0.3}, {}, seed=2)) != some
    other_order = Manifest(whole.items[::-1], whole.path, whole.sha256)
    assert gone(corrupt(other_order, {"speech": 0.3}, {}, seed=1)) == some
    assert corrupt(whole, {"speech": 0.3}, {}, seed=1) == corrupt(whole, {"speech": 0.3}, {}, seed=1)
    assert not some & {item.id for item in whole.items if item.split != "train"}


def test_what_is_missing_already_stays_so(tmp_path, write_manifest):
    whole = Manifest.read(write_manifest(tmp_path / "m.jsonl", missing=0.5))
    spoilt = corrupt(whole, {}, {"speech": 1.0}, seed=0)
    assert [item.modalities["speech"] is None for item in whole.items] == [item.modalities["speech"] is None for item in spoilt.items]


def test_an_unknown_modality_and_a_rate_out_of_range(whole):
    with pytest.raises(UserError, match="data.noise: .* has no modality 'txt'; did you mean 'text'"):
        corrupt(whole, {}, {"txt": 0.1}, 0)
    for text, message in (
        ("data.noise.text=1.5", "data.noise.text: expected 0 <= rate <= 1, got 1.5"),
        ("data.missing.text=1", "data.missing.text: expected 0 <= rate < 1"),
        ("data.missing.text=much", "data.missing.text.*expected a finite number"),
        ("data.split_by=item", "data.split_by: expected group without a data.split_seed, got item"),
        ("data.split_by=label", "data.split_by: expected group or item, got label"),
    ):
        with pytest.raises(UserError, match=message):
            config.load("ismir2024", [text])


def test_a_leaky_split(tmp_path, write_manifest):
    whole = Manifest.read(write_manifest(tmp_path / "m.jsonl"))
    pairs = [item.__class__(**{**item.__dict__, "group": f"g{k // 2}"}) for k, item in enumerate(whole.items)]
    path = Manifest.write(tmp_path / "pairs.jsonl", pairs).path

    def torn(by):
        items = open_manifest(config.Data(manifest=str(path), split_seed=0, split_by=by)).items
        return sum(a.split != b.split for a, b in zip(items[::2], items[1::2], strict=True))

    assert torn("group") == 0 < torn("item")
