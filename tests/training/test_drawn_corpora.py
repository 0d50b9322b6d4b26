"""openclipart, art4apps, emoji in four styles, tux with more texts and the union, from small look-alikes of their packages; the network
test at the end builds the real ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
from look_alikes import Thumbnail, stamp
from PIL import Image

from transphere.training import data
from transphere.training.batch import encoders_of
from transphere.training.config import Data
from transphere.training.data import alike, art4apps, emoji_styles, espeak, openclipart, tux
from transphere.training.data.manifest import Manifest
from transphere.training.errors import UserError

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><metadata><cc:Work rdf:about=""><dc:title>{title}</dc:title>'
    "{words}</cc:Work></metadata>{shape}</svg>"
)


def shape(seed):
    """A pattern that no other seed has, as the inside of an SVG."""
    rng = np.random.default_rng(seed)
    cells = [(x, y) for x in range(0, 40, 5) for y in range(0, 40, 5)]
    return "".join(f'<rect x="{x}" y="{y}" width="5" height="5" fill="#{rng.integers(0, 1 << 24):06x}"/>' for x, y in cells)


def clip(root, name, title, words=("food",), seed=0, drawn=None):
    path = root / "usr" / "share" / "openclipart" / "svg" / f"{name}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    bag = "".join(f"<rdf:li>{word}</rdf:li>" for word in words)
    # the namespaces are left undeclared in some of the real files, which resvg does not forgive: declared here
    text = SVG.format(title=title, words=bag, shape=drawn or shape(seed))
    spaces = 'xmlns:cc="c" xmlns:dc="d" xmlns:rdf="r"'
    path.write_text(text.replace("<svg ", f"<svg {spaces} ", 1), encoding="utf-8")


def picture(path, seed, size=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8)).save(path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache whose encoder and voice are stand-ins; every package is the folder `tmp_path / "package"`."""
    monkeypatch.setenv("TRANSPHERE_CACHE", str(tmp_path / "the cache é"))
    monkeypatch.setattr(alike, "encoder", lambda name: Thumbnail())
    spoken = []

    def speak(text, voice):
        spoken.append((text, voice))
        return np.arange(2205, dtype=np.int16), 22_050

    monkeypatch.setattr(espeak, "speak", speak)
    for module in (openclipart, art4apps, tux):
        monkeypatch.setattr(module, "fetch", lambda package: tmp_path / "package")
    monkeypatch.setattr(emoji_styles, "fetch", lambda package: tmp_path / package.name.replace("/", "-"))
    return spoken


@pytest.fixture
def clipart(tmp_path, cache):
    root = tmp_path / "package"
    clip(root, "food/pear_01", "Clipart by Nicu Buculei - Pear 01", ("fruit", "food", "hash", ""), seed=1)
    clip(root, "food/pear_02", "PEAR", seed=2)
    clip(root, "food/redrawn", "A green pear", seed=2)
    clip(root, "food/bread &amp; butter", "Bread &amp; butter", seed=3)
    clip(root, "people/lost", "", seed=4)
    clip(root, "shapes/star", "gramastar", seed=5)
    clip(root, "people/number", "1234", seed=6)
    clip(root, "people/broken", "broken thing", drawn="<path")
    for k in range(openclipart.COMMON + 1):
        clip(root, f"set/{k}", "Fruit basket", seed=10 + k)
    return cache


def build(name, **options):
    return Manifest.read(data.build(name, progress=False, **options))


def test_openclipart(clipart, capsys):
    manifest = build("openclipart")
    items = {item.id: item for item in manifest.items}
    assert sorted(items) == ["food/bread &amp; butter", "food/pear_01", "food/pear_02", "food/redrawn"]
    assert "item 'people/broken' is skipped" in capsys.readouterr().err
    pear = items["food/pear_01"]
    assert pear.caption == "pear" and pear.label == "food" and pear.modalities["text"] == {"texts": ["Pear"]}
    assert pear.modalities["text_keywords"] == {"texts": ["food, fruit"]}
    assert pear.modalities["speech"]["synthetic"] is True and ("Pear", pear.modalities["speech"]["voice"].split()[1]) in clipart
    assert items["food/bread &amp; butter"].caption == "bread butter"
    # pears by their caption, the third by its picture
    assert pear.group == items["food/pear_02"].group == items["food/redrawn"].group != items["food/bread &amp; butter"].group
    assert manifest.resplit(0).items == manifest.items
    assert build("openclipart") == manifest


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        ("Dog 03 Drawn With Lines", "Dog 03 Drawn With Lines"),
        ("arrow_left_07", "arrow left"),
        ("Part of the Flat Icon Collection (Wed Aug 25)", ""),
        ("Lemon SVG theme", ""),
        ("  ", ""),
        ("x", ""),
        ("clipart by nicu - sun", "sun"),
        ("Étoile &#233;", "Étoile é"),
    ],
)
def test_titles(raw, seen):
    assert openclipart.title(SVG.format(title=raw, words="", shape="")) == seen


def test_at_most_so_many(clipart, monkeypatch):
    monkeypatch.setattr(openclipart, "build", replace(openclipart.CORPUS, most=2).build)
    assert len(build("openclipart").items) == 2


@pytest.fixture
def art(tmp_path, cache):
    root = tmp_path / "package" / "usr" / "share" / "games" / "pysiogame"
    words = root / "i18n" / "custom"
    (words / "a4a_py").mkdir(parents=True)
    head = "# -*- coding: utf-8 -*-\nd = dict()\n"
    (words / "a4a_words.py").write_text(head + 'd["a4a_animals"] = ["cow", "guinea pig"]\nd["a4a_jobs"] = ["policeman"]\n')
    for code, cow, officer in (("fr", "vache", "agent"), ("es", "vaca", "<policeman>"), ("de", "Kuh", "Polizist")):
        jobs = f'["{officer}"]' if code != "de" else f'["{officer}", "zu viel"]'
        (words / "a4a_py" / f"{code}.py").write_text(
            head + f'd["a4a_animals"] = ["{cow}", "ü"]\nd["a4a_jobs"] = {jobs}\n', encoding="utf-8"
        )
    for number, name in enumerate(("animals/cow", "animals/guinea_pig", "jobs/police", "jobs/unknown")):
        picture(root / "res" / "images" / "art4apps" / f"{name}.jpg", number)
    return words


def test_art4apps(art):
    items = {item.id: item for item in build("art4apps").items}
    assert sorted(items) == ["animals/cow", "animals/guinea_pig", "jobs/police"]
    assert items["animals/cow"].modalities["text_fr"] == {"texts": ["vache"]} and items["animals/guinea_pig"].caption == "guinea pig"
    officer = items["jobs/police"]
    assert officer.caption == "policeman" and officer.modalities["text_fr"] == {"texts": ["agent"]}
    assert officer.modalities["text_es"] is None and officer.modalities["text_de"] is None  # untranslated; a list of another length


def test_art4apps_runs_no_code(art, tmp_path):
    (art / "a4a_words.py").write_text("import os\nraise SystemExit('run')\n")
    with pytest.raises(UserError, match="no item could be built"):
        build("art4apps")
    (art / "a4a_words.py").write_text("d[(")
    with pytest.raises(UserError, match="a4a_words.py: not the word lists"):
        build("art4apps")


NAMES = {
    "\U0001f427": ("penguin", "Animals & Nature"),
    "\u2764\ufe0f": ("red heart", "Symbols"),
    "\U0001f49a": ("green heart", "Symbols"),
    "\U0001f1eb\U0001f1f7": ("flag France", "Flags"),
    "1\ufe0f\u20e3": ("keycap 1", "Symbols"),
    "\U0001f34e": ("red apple", "Food & Drink"),
}


@pytest.fixture
def styles(tmp_path, cache):
    """Four styles; the apple is missing from one of them, and file names disagree about U+FE0F as the real ones do."""
    for number, (style, (package, inside)) in enumerate(emoji_styles.STYLES.items()):
        folder = tmp_path / package.name.replace("/", "-") / inside
        folder.mkdir(parents=True)
        for place, sequence in enumerate(NAMES):
            code = "-".join(f"{ord(c):04x}" for c in sequence)
            code = code.replace("-fe0f", "") if number % 2 else code
            if style == "openmoji":
                text = SVG.format(title="", words="", shape=shape(100 * number + place))
                spaces = 'xmlns:cc="c" xmlns:dc="d" xmlns:rdf="r"'
                (folder / f"{code.upper()}.svg").write_text(text.replace("<svg ", f"<svg {spaces} ", 1))
            elif style != "fluent" or "apple" not in NAMES[sequence][0]:
                picture(folder / f"{code}{'.webp' if style == 'fluent' else '.png'}", 100 * number + place)
    names = tmp_path / "unicode-emoji-json" / "package"
    names.mkdir(parents=True)
    (names / "data-by-emoji.json").write_text(json.dumps({s: {"name": name, "group": group} for s, (name, group) in NAMES.items()}))
    for code in ("en", *emoji_styles.LANGUAGES):
        folder = tmp_path / "cldr-annotations-full" / "package" / "annotations" / code
        folder.mkdir(parents=True)
        told = {"\U0001f427": {"default": ["bird", "ice"], "tts": [f"{code} penguin"]}, "\u2764": {"default": ["love"]}}
        (folder / "annotations.json").write_text(json.dumps({"annotations": {"annotations": told}}))
    return names


def test_emoji_styles(styles, cache):
    manifest = build("emoji-styles")
    items = {item.id: item for item in manifest.items}
    assert len(items) == 12 and len({item.meta["style"] for item in manifest.items}) == 4
    penguin = items["1F427/noto"]
    assert penguin.label == "animals & nature" and penguin.modalities["text_keywords"] == {"texts": ["bird, ice"]}
    assert penguin.modalities["text_fr"] == {"texts": ["fr penguin"]} and items["2764/twemoji"].modalities["text_fr"] is None
    assert items["2764/noto"].modalities["text_keywords"] == {"texts": ["love"]}
    assert len({item.group for item in manifest.items}) == 2  # the hearts are a family, all styles of one emoji a group
    assert len(cache) == 3 and penguin.modalities["speech"] == items["1F427/fluent"].modalities["speech"]  # once an emoji
    # further texts are encoded as text is, unless the modalities are named
    used = encoders_of(manifest, Data(encoders={"image": "efficientnet-lite0", "text": "minilm-l6", "speech": "duration"}))
    assert used["text_fr"] == used["text_keywords"] == "minilm-l6"


def test_emoji_styles_with_a_broken_file(styles):
    (styles / "data-by-emoji.json").write_text("{")
    with pytest.raises(UserError, match="data-by-emoji.json: not the file that was expected"):
        build("emoji-styles")
    with pytest.raises(UserError, match="'emoji-styles' speaks 'en' only"):
        data.build("emoji-styles", language="fr")


@pytest.fixture
def stamps(tmp_path):
    root = tmp_path / "package" / "usr" / "share" / "tuxpaint" / "stamps"
    stamp(root, "animals/cow", "A cow.")
    stamp(root, "food/quince", "A quince.")
    return root


def test_tux_texts(stamps, cache):
    manifest = build("tux-texts")
    cow, quince = manifest.items
    assert cow.modalities["text_fr"] == {"texts": ["fr A cow."]} and cow.modalities["text_es"] == {"texts": ["es A cow."]}
    assert cow.modalities["class"] == {"vector": [1.0, 0.0]} and quince.modalities["class"] == {"vector": [0.0, 1.0]}
    assert set(build("tux").modalities) == {"image", "text", "speech"}


def test_tux_voices(stamps, cache):
    stamp(stamps, "animals/cow", "A cow.", languages=("fr", "es", "ca", "ro"))
    stamp(stamps, "food/quince", "A quince.", languages=("ro", "de"))
    (stamps / "food" / "quince_desc_fr.ogg").unlink()
    (stamps / "food" / "quince_desc_es.ogg").unlink()
    items = {item.id: item for item in build("tux-voices").items}
    assert sorted(items) == ["animals/cow@ca", "animals/cow@es", "animals/cow@fr", "animals/cow@ro", "food/quince@ro"]
    cow = items["animals/cow@ca"]
    assert cow.modalities["speech"]["language"] == "ca" and cow.modalities["speech"]["path"] == "speech/ca/animals/cow.ogg"
    assert len({item.group for item in items.values()}) == len({item.split for item in items.values() if "cow" in item.id}) + 1 == 2
    with pytest.raises(UserError, match="'tux-voices' speaks fr, es, ca, ro, all four, got 'fr'"):
        data.build("tux-voices", language="fr")


def test_what_is_blank(tmp_path):
    """A picture in colours of one luminance is none of the blank ones, which are alike without being the same thing."""
    drawn = np.full((20, 20, 3), (200, 60, 60), np.uint8)
    drawn[5:15, 5:15] = (30, 123, 151)
    assert np.asarray(Image.fromarray(drawn).convert("L")).std() < 2
    for name, pixels, expected in (("drawn", drawn, True), ("blank", np.full((20, 20, 3), 255, np.uint8), False)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        assert alike._is_drawn(tmp_path / f"{name}.png") is expected


def test_union(stamps, clipart, art, styles, cache, tmp_path):
    manifest = build("union")
    items = {item.id: item for item in manifest.items}
    assert len(items) == 2 + 12 + 4 + 3 and {item.meta["corpus"] for item in manifest.items} == {"tux", "emoji", "openclipart", "art4apps"}
    assert manifest.modalities == ("image", "text", "speech", "speech_human")
    cow = items["tux/animals/cow"]
    assert cow.modalities["speech"]["synthetic"] and cow.modalities["speech_human"]["language"] == "fr"
    assert items["art4apps/animals/cow"].modalities["speech_human"] is None
    assert cow.group == items["art4apps/animals/cow"].group  # one caption in two corpora
    assert manifest.resplit(0).items == manifest.items
    for item in manifest.items:
        for entry in item.modalities.values():
            assert not entry or "path" not in entry or (manifest.root / entry["path"]).is_file()
    made = len(cache)
    assert build("union") == manifest and len(cache) == made
    # a part that has changed makes the union anew
    clip(tmp_path / "package", "food/plum", "Plum", seed=77)
    (data.cache_dir() / "corpora" / "openclipart" / "manifest.jsonl").unlink()
    assert len(build("union").items) == len(items) + 1


def test_a_foreign_folder_is_refused(art, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="expected a new or empty folder"):
        build("art4apps", out=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("art4apps", 585), ("openclipart", 3193), ("emoji-styles", 6340), ("union", 10_794)])
def test_the_real_ones(name, count):
    manifest = build(name)
    assert len(manifest.items) == count
    assert len({item.split for item in manifest.items}) == 3
