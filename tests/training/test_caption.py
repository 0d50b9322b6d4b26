"""Texts: easy data augmentation, dropped words, byte tokens."""

from collections import Counter

import numpy as np
import pytest

from transphere.training.config import Encoder
from transphere.training.data.manifest import Item
from transphere.training.encoders.networks import pipeline
from transphere.training.errors import UserError
from transphere.training.pipelines import eda as module
from transphere.training.pipelines.eda import eda

SENTENCE = "The quick brown fox jumps over a lazy dog near the quiet river bank, at dawn and dusk in spring"
SYNONYMS = {"quick": ["fast", "rapid"], "bank": ["shore"], "dog": ["hound"], "spring": ["springtime"]}
ITEM = Item("i", "train", "g", "a caption", {})


@pytest.fixture
def wordnet(tmp_path, monkeypatch):
    """A WordNet of four synsets in its own format, in the place of the package."""
    folder = tmp_path / "usr" / "share" / "wordnet"
    folder.mkdir(parents=True)
    licence = "  1 This software and database is being provided to you, the LICENSEE\n"
    (folder / "data.noun").write_text(
        licence + "00001740 03 n 02 dog 0 hound 0 001 @ 00001930 n 0000 | a canine\n"
        "00002137 03 n 02 spring 0 springtime 0 000 | the season\n00003553 03 n 02 bank 0 Shore 1 000 | land\n"
    )
    adjectives = "00001740 00 a 03 quick(a) 0 fast 0 rapid(p) 0 000 | at speed\n00002137 00 a 01 quiet 0 000 | no sound\n"
    (folder / "data.adj").write_text(licence + adjectives)
    monkeypatch.setattr(module, "fetch", lambda package: tmp_path)
    module.synonyms.cache_clear()
    yield
    module.synonyms.cache_clear()


def test_synonyms_are_those_of_wordnet(wordnet):
    found = module.synonyms()
    assert found["quick"] == ["fast", "rapid"] and found["rapid"] == ["fast", "quick"] and found["bank"] == ["shore"]
    assert "quiet" not in found and "the" not in found and "1" not in found


def test_eda_makes_one_of_four_changes(wordnet):
    words, seen = Counter(SENTENCE.split()), Counter()
    for seed in range(400):
        changed = eda(SENTENCE, np.random.default_rng(seed)).split()
        assert eda(SENTENCE, np.random.default_rng(seed)).split() == changed
        new, gone = Counter(changed) - words, words - Counter(changed)
        if not gone and not new:
            seen["swapped" if changed != SENTENCE.split() else "kept"] += 1
        elif not new:
            seen["deleted"] += 1
        elif not gone:
            assert len(changed) == 22  # ten per cent of twenty words
            seen["inserted"] += 1
        else:
            assert len(changed) == 20 and all(any(w in options for options in SYNONYMS.values()) for w in new)
            seen["replaced"] += 1
    assert all(60 < seen[change] < 140 for change in ("swapped", "deleted", "inserted", "replaced"))


@pytest.mark.parametrize("text", ["", "   ", "dog", "unknown", "a b", "quick."])
def test_eda_keeps_what_it_cannot_change(text, wordnet):
    for seed in range(50):
        changed = eda(text, np.random.default_rng(seed))
        assert bool(changed.strip()) == bool(text.strip())


def test_words_are_dropped_and_never_all():
    made, random = pipeline(Encoder("bert", size="tiny", augment=["drop"])), np.random.default_rng(0)
    lengths = [len(made.text([SENTENCE], ITEM, random).split()) for _ in range(500)]
    assert 18.7 < np.mean(lengths) < 19.3
    assert all(made.text(["word"], ITEM, random) for _ in range(200))
    assert made.text([SENTENCE, "other"], ITEM, None) == SENTENCE  # nothing is random in an evaluation
    assert {made.text(["x", "y", "z"], ITEM, random) for _ in range(50)} == {"x", "y", "z"}


def test_a_template_shows_what_an_item_has():
    made = pipeline(Encoder("bert", size="tiny", template="{{{title}}} by {artist}: {a.b}{tags}, {year}"))
    item = Item("i", "train", "g", "", {}, meta={"title": "{x} 🎵", "artist": None, "a.b": "שלום ", "tags": ["dog", "rain"], "year": 0})
    made.check([item])
    assert made.text(["unused"], item, None) == "{{x} 🎵} by : שלום dog, rain, 0"


@pytest.mark.parametrize("template", ["{", "{title", "}", "{}", "{title!r}", "{title:>9}", "a {} b"])
def test_braces_without_a_name_are_told(template):
    with pytest.raises(UserError, match="template: expected names of fields in braces, got"):
        pipeline(Encoder("bert", size="tiny", template=template))


@pytest.mark.parametrize("text", ["👩‍👩‍👧‍👦 🎵", "word " * 10_000, "كلب يجري שלום", "w" * 100_000, "a\0b", "\u200b"])
def test_captions_of_any_kind(text, wordnet):
    for name, longest in (("bert", 128), ("clip-text", 77)):
        made = pipeline(Encoder(name, size="tiny", augment=["drop", "eda"]))
        for random in (None, np.random.default_rng(0)):
            assert 2 < len(made.read([text], ITEM, random)) <= longest


@pytest.mark.parametrize("name", ["bert", "clip-text"])
def test_byte_tokens_end_where_the_model_does(name):
    made = pipeline(Encoder(name, size="tiny"))
    longest = {"bert": 128, "clip-text": 77}[name]
    assert len(made.of_text("ü" * 1000)) == longest and len(made.of_text("")) == 2
    assert made.of_text("ab").tolist()[1:-1] == [100, 101]


@pytest.mark.network
def test_the_real_wordnet():
    module.synonyms.cache_clear()
    assert "hound" in module.synonyms()["dog"] or "domestic dog" in module.synonyms()["dog"]
    assert len(module.synonyms()) > 90_000
