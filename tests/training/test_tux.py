"""The tux corpus from a small look-alike of the package; the network test at the end builds the real one."""

import errno
import json
import os
import signal

import pytest
from look_alikes import Thumbnail, sound, stamp
from PIL import Image

from transphere.training import data
from transphere.training.data import alike, cache, pins, raster, tux
from transphere.training.data.features import features
from transphere.training.data.manifest import Manifest
from transphere.training.errors import SourceUnavailable, UserError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A package folder with six usable stamps and much that is to be left out."""
    monkeypatch.setenv("TRANSPHERE_CACHE", str(tmp_path / "the cache é"))
    monkeypatch.setattr(tux, "fetch", lambda package: tmp_path / "package")
    monkeypatch.setattr(alike, "encoder", lambda name: Thumbnail())
    root = tmp_path / "package" / "usr" / "share" / "tuxpaint" / "stamps"
    stamp(root, "animals/birds/penguin", "A penguin.", languages=("fr", "es", "en"))
    stamp(root, "animals/birds/cartoon/big [pingüin]", "The penguin!")
    stamp(root, "food/red apple", "A red apple.", svg=True)
    stamp(root, "food/pear", "A pear.")
    stamp(root, "food/quince", "A quince.")
    stamp(root, "town/white", "A white thing.")
    stamp(root, "town/spanish", "A house.", languages=("es",))
    stamp(root, "symbols/a", "The letter A.")
    stamp(root, "food/silent", "A silent thing.", languages=())
    stamp(root, "food/unseen", "An unseen thing.", picture=False)
    stamp(root, "food/untold", "")
    Image.new("RGB", (9, 9)).save(root / "food/pear_mirror.png")
    sound(root / "food/pear_desc_da.ogg.ogg", 3)
    sound(root / "food/pear.ogg", 4)
    (root / "food/pear.dat").write_text("tintable")
    white = Image.new("RGBA", (300, 600), (255, 255, 255, 0))
    white.paste((255, 255, 255, 255), (100, 100, 200, 400))
    white.save(root / "town/white.png")
    return root


def build(**options):
    return Manifest.read(data.build("tux", progress=False, **options))


def test_items(root, capsys):
    manifest = build()
    items = {item.id: item for item in manifest.items}
    assert sorted(items) == [
        "animals/birds/cartoon/big [pingüin]", "animals/birds/penguin", "food/pear", "food/quince", "food/red apple", "town/white",
    ]  # fmt: skip
    item = items["animals/birds/penguin"]
    assert item.caption == "penguin" and item.label == "animals" and item.modalities["text"] == {"texts": ["A penguin."]}
    assert item.modalities["speech"] == {"path": "speech/fr/animals/birds/penguin.ogg", "language": "fr", "text": "fr A penguin."}
    for item in manifest.items:
        with Image.open(manifest.root / item.modalities["image"]["path"]) as picture:
            assert picture.mode == "RGB" and max(picture.size) <= 256
        copied = (manifest.root / item.modalities["speech"]["path"]).read_bytes()
        assert copied == (root / f"{item.id}_desc_fr.ogg").read_bytes()
    assert items["animals/birds/penguin"].group == items["animals/birds/cartoon/big [pingüin]"].group
    assert len({item.group for item in manifest.items}) == 5
    assert manifest.resplit(0).items == manifest.items
    about = json.loads((manifest.root / "about.json").read_text())
    assert about["speech"] == "human, language fr" and about["skipped"] == {} and "6 items" in about["counts"]
    assert "warning" not in capsys.readouterr().err


def test_margins_are_cut_and_white_on_white_is_seen(root):
    with Image.open(build().root / "images/town/white.png") as picture:
        assert picture.size == (85, 256)  # 100 x 300 without its margins
    raster.rasterise(root / "food/red apple.svg", root / "drawn.png")
    with Image.open(root / "drawn.png") as picture:
        assert abs(picture.size[0] / picture.size[1] - 2) < 0.05


def test_other_languages_have_their_own_folder(root):
    french, spanish, english = build(), build(language="es"), build(language="en")
    assert (french.root.name, spanish.root.name, english.root.name) == ("tux", "tux-es", "tux-en")
    assert len(spanish.items) == 7 and [item.id for item in english.items] == ["animals/birds/penguin"]
    shared = {item.id: (item.group, item.split) for item in spanish.items}
    assert all(shared[item.id] == (item.group, item.split) for item in french.items)


@pytest.mark.parametrize("language", ["xx", "de", "../.."])
def test_unknown_language(root, language, tmp_path):
    with pytest.raises(UserError, match="language: no speech in .* known: en, es, fr"):
        build(language=language)
    assert not (tmp_path / "the cache é" / "corpora").exists()


def test_groups_share_a_caption_a_recording_or_a_picture(root):
    (root / "food/pear_desc_es.ogg").write_bytes((root / "town/white_desc_es.ogg").read_bytes())  # the other language counts too
    text = (root / "food/quince.txt").read_text().replace("fr A quince.", "Une pomme")
    (root / "food/quince.txt").write_text(text)
    text = (root / "food/red apple.txt").read_text().replace("fr A red apple.", "une POMME.")
    (root / "food/red apple.txt").write_text(text)
    (root / "town/spanish.png").write_bytes((root / "animals/birds/penguin.png").read_bytes())
    group = {item.id: item.group for item in build(language="es").items}
    assert group["food/pear"] == group["town/white"]
    assert group["food/quince"] == group["food/red apple"]
    assert group["town/spanish"] == group["animals/birds/penguin"]
    assert len(set(group.values())) == 3


def test_blank_pictures_are_not_alike(root):
    for name in ("food/pear", "food/quince"):
        Image.new("RGB", (50, 50), "white").save(root / f"{name}.png")
    assert len({item.group for item in build().items}) == 5


def spoil(root):
    (root / "food/pear.png").write_bytes(b"")
    (root / "food/red apple.svg").write_text("<svg")
    ogg = (root / "food/quince_desc_fr.ogg").read_bytes()
    (root / "food/quince_desc_fr.ogg").write_bytes(ogg[: len(ogg) * 2 // 3])


def test_corrupt_files_are_named_skipped_and_counted(root, capsys):
    whole = {item.id: (item.group, item.split) for item in build(out=root / "whole").items}
    spoil(root)
    manifest = build()
    assert sorted(item.id for item in manifest.items) == ["animals/birds/cartoon/big [pingüin]", "animals/birds/penguin", "town/white"]
    assert all(whole[item.id] == (item.group, item.split) for item in manifest.items)
    errors = capsys.readouterr().err
    for name, file in {"food/pear": "pear.png", "food/red apple": "red apple.svg", "food/quince": "quince_desc_fr.ogg"}.items():
        assert f"warning: item '{name}' is skipped: " in errors and file in errors
    assert len(json.loads((manifest.root / "about.json").read_text())["skipped"]) == 3
    assert "3 items were skipped" in errors


def test_strict_makes_them_fatal(root):
    spoil(root)
    with pytest.raises(UserError, match=r"item 'food/pear': .*pear.png: not an image that can be read: it is empty \(--strict\)"):
        build(strict=True)
    assert not list(data.cache_dir().rglob("manifest.jsonl"))


def test_nothing_usable(root):
    for picture in [*root.rglob("*.png"), *root.rglob("*.svg")]:
        picture.write_bytes(b"")
    with pytest.raises(UserError, match="tux: no item could be built; 7 items"):
        build()


def test_an_interrupted_build_goes_on_where_it_stopped(root, monkeypatch):
    drawn, real = [], tux.rasterise

    def interrupted(source, target):
        if len(drawn) >= 3:
            raise KeyboardInterrupt
        real(source, target)
        drawn.append(source.name)

    monkeypatch.setattr(tux, "rasterise", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build()
    folder = data.cache_dir() / "corpora" / "tux"
    assert (
        not (folder / "manifest.jsonl").exists()
        and len(list(folder.rglob("*.png"))) == len(drawn) < 6
        and not list(folder.rglob("*.part*"))
    )
    monkeypatch.setattr(tux, "rasterise", lambda source, target: (drawn.append(source.name), real(source, target)))
    assert len(build().items) == 6 and len(drawn) == len(set(drawn)) == 7


def test_a_killed_build_goes_on_and_leaves_no_half_file(root):
    child = os.fork()
    if child == 0:
        replace, calls = os.replace, []

        def killed_at_the_fifth(*names):
            calls.append(names)
            if len(calls) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*names)

        cache.os.replace = killed_at_the_fifth
        try:
            build()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    folder = data.cache_dir() / "corpora" / "tux"
    assert list(folder.rglob(".*.part*")) and not (folder / "manifest.jsonl").exists()
    assert len(build().items) == 6 and not list(folder.rglob(".*.part*"))


def test_a_finished_build_is_kept_and_a_damaged_one_made_whole(root, monkeypatch):
    manifest = build()
    monkeypatch.setattr(tux, "fetch", lambda package: pytest.fail("not needed"))
    assert build() == manifest
    monkeypatch.undo()
    monkeypatch.setenv("TRANSPHERE_CACHE", str(manifest.root.parent.parent))
    monkeypatch.setattr(tux, "fetch", lambda package: root.parents[3])
    monkeypatch.setattr(alike, "encoder", lambda name: Thumbnail())
    (manifest.root / "images/food/pear.png").unlink()
    assert build() == manifest and (manifest.root / "images/food/pear.png").is_file()
    (manifest.root / "manifest.jsonl").write_text((manifest.root / "manifest.jsonl").read_text()[:-40])
    assert build() == manifest
    monkeypatch.setattr(tux, "_VERSION", "other")
    (manifest.root / "images/food/pear.png").write_bytes(b"made by an older version")
    build()
    with Image.open(manifest.root / "images/food/pear.png") as picture:
        assert picture.size == (60, 40)


def test_a_full_disk_is_not_a_corrupt_item(root, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tux.shutil, "copyfile", full)
    with pytest.raises(UserError, match="no space left on the disk while writing .*speech"):
        build()
    assert not list(data.cache_dir().rglob("manifest.jsonl")) and not list(data.cache_dir().rglob("*.part*"))


def test_out_never_touches_a_users_folder(root, tmp_path):
    (tmp_path / "mine" / "images").mkdir(parents=True)
    (tmp_path / "mine" / "images" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="mine: expected a new or empty folder or one made by"):
        build(out=tmp_path / "mine")
    assert (tmp_path / "mine" / "images" / "holiday.jpg").is_file()
    assert build(out=str(tmp_path / "a new one é")).root == tmp_path / "a new one é"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: File exists"):
        build(out=tmp_path / "file")


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setenv("TRANSPHERE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tux, "TUX", pins.Package("debian", "tuxpaint-stamps-default", "1", "0" * 64, 10, ("*",)))
    with pytest.raises(SourceUnavailable, match="tuxpaint-stamps-default 1: cannot be had from Debian"):
        build()


def test_unknown_corpus():
    with pytest.raises(UserError, match="corpus: unknown name 'tuxx'; did you mean 'tux'"):
        data.build("tuxx")


@pytest.mark.network
def test_the_real_corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSPHERE_CACHE", str(tmp_path))
    manifest = build()
    assert len(manifest.items) == 676 and len({item.group for item in manifest.items}) == 566
    for modality, name in {"image": "efficientnet-lite0", "text": "minilm-l6", "speech": "moonshine-tiny"}.items():
        x, present = features(manifest, modality, name, progress=False)
        assert x.isfinite().all() and present.all() and x.std(0).max() > 0
