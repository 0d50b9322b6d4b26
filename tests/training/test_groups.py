"""Groups and splits."""

from collections import Counter

import pytest

from transphere.training.data.groups import assign, connected, normalise_caption


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("A penguin.", "penguin"),
        ("the  Penguin!", "penguin"),
        ("An “Fuji” apple", "fuji apple"),
        ("Grandma’s old rag doll.", "grandmas old rag doll"),
        ("Grandma's old rag-doll", "grandmas old rag doll"),
        ("Some carrots.", "carrots"),
        ("Another apple", "another apple"),
        ("A", "a"),
        ("?", "?"),
        ("!", "!"),
        ("Ｐｅｎｇｕｉｎ", "penguin"),
        ("Пингвин.", "пингвин"),
    ],
)
def test_normalise_caption(text, key):
    assert normalise_caption(text) == key


def test_connected_joins_through_others_and_whatever_the_order():
    keys = {"a": [1], "b": [1, 2], "c": [3], "d": [2], "e": [], "f": ["x", 3]}
    groups = connected(keys)
    assert groups["a"] == groups["b"] == groups["d"] and groups["c"] == groups["f"]
    assert len(set(groups.values())) == 3
    assert connected(dict(reversed(keys.items()))) == groups


def test_a_long_chain():
    groups = connected({f"{n:05}": [n, n + 1] for n in range(20_000)})
    assert len(set(groups.values())) == 1


def test_leaving_an_item_out_keeps_the_other_groups_names():
    keys = {f"i{n}": [n // 2] for n in range(40)}
    with_all = connected(keys)
    del keys["i7"], keys["i20"]
    assert all(with_all[item] == group for item, group in connected(keys).items() if item != "i21")


def test_assign_shares_and_independence():
    groups = [f"g{n}" for n in range(20_000)]
    counts = Counter(assign(groups, 3))
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert abs(counts[split] / len(groups) - share) < 0.012, counts  # 4 standard deviations at most
    assert assign(groups[50:60], 3) == assign(groups, 3)[50:60]
    assert assign(groups[:100], 3) != assign(groups[:100], 4)


def test_splits_never_change():
    # numbers in papers depend on it
    assert assign([f"g{n}" for n in range(7)], 1) == ["val", "train", "train", "train", "train", "train", "test"]
