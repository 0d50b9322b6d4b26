"""Bootstrap intervals: coverage, dependence within items, pairing, refusals."""

import numpy as np
import pytest

from transphere.training.intervals import bootstrap, compare


def test_interval_covers_the_mean_as_often_as_it_says():
    g = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        item = g.normal(size=40)
        values = np.repeat(item, 5) + 0.1 * g.normal(size=200)                               # five captions an item, which go together
        interval = bootstrap(values, np.repeat(np.arange(40), 5), draws=400, seed=seed)
        hits += interval.low <= 0 <= interval.high
    assert 180 <= hits <= 198                                                                # 190 expected, standard deviation 3
    assert interval.items == 40


def test_captions_of_an_item_are_not_independent():
    values = np.repeat(np.random.default_rng(0).normal(size=50), 5)
    by_item = bootstrap(values, np.repeat(np.arange(50), 5))
    by_query = bootstrap(values, np.arange(250))
    assert 2.0 < (by_item.high - by_item.low) / (by_query.high - by_query.low) < 2.5         # sqrt 5


def test_pairing_takes_out_what_the_runs_share():
    g = np.random.default_rng(0)
    items = np.array([f"clip {i}" for i in range(300)])
    first = g.normal(size=300)
    second = first + 0.05 + 0.05 * g.normal(size=300)
    difference = compare(first, second, items)
    assert difference.low > 0.03 and difference.high < 0.07
    assert difference.mean == pytest.approx((second - first).mean())
    alone = bootstrap(second, items).low, bootstrap(first, items).high
    assert alone[0] < alone[1]                                                               # unpaired, they overlap
    assert compare(first, first, items) == compare(second, second, items) and str(compare(first, first, items)) == "0.0000 [0.0000, 0.0000]"


def test_seeds_and_weights():
    values, items = np.array([1.0, 0.0, 0.0]), np.array([0, 0, 1])
    assert bootstrap(values, items) == bootstrap(values, items)
    assert bootstrap(values, items, draws=4).mean == pytest.approx(1 / 3)                    # items weigh by their queries
    assert bootstrap(values, items, level=0.5).high <= bootstrap(values, items, level=0.99).high
    assert bootstrap(np.array([2.0]), np.array([7])).low == 2.0


@pytest.mark.parametrize(
    ("values", "items", "options", "message"),
    [
        ([1.0, 2.0], [1], {}, "one shape"),
        ([], [], {}, "Q >= 1"),
        ([1.0, np.nan], [1, 2], {}, "finite values, got 1"),
        ([1.0], [1], {"level": 1.0}, "level: expected"),
    ],
)
def test_bad_input(values, items, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(np.array(values), np.array(items), **options)
    with pytest.raises(ValueError, match="the same queries"):
        compare(np.zeros(2), np.zeros(3), np.zeros(2))
