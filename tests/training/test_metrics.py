"""The ranking metrics against brute force: a twin that sorts every way to break the ties, or counts by hand."""

import itertools
import math
import random
import statistics

import numpy as np
import pytest
import torch

from transphere.training.metrics import chance_recall, per_query, places, rank, retrieval_metrics, search


def first_hit(order, positive):
    return next(place for place, j in enumerate(order, start=1) if positive[j])


def brute_bounds(scores, positive):
    """Lowest and highest rank of the first positive over every order that sorts the scores."""
    n = len(scores)
    ranks = [
        first_hit(order, positive)
        for order in itertools.permutations(range(n))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return min(ranks), max(ranks), statistics.fmean(ranks)


@pytest.mark.parametrize("seed", range(30))
def test_ranks_against_every_order(seed):
    draw = random.Random(seed)
    n = draw.randint(1, 6)
    scores = [float(draw.randint(0, 3)) for _ in range(n)]  # many ties
    positive = [draw.random() < 0.4 for _ in range(n)]
    positive[draw.randrange(n)] = True
    ranks = rank(torch.tensor([scores]), torch.tensor([positive]))
    low, high, mean = brute_bounds(scores, positive)
    best = max(s for s, p in zip(scores, positive, strict=True) if p)
    tied_positives = sum(s == best and p for s, p in zip(scores, positive, strict=True))
    assert ranks.optimistic[0] == low
    # Every tied negative before every tied positive is the worst order, however many positives tie.
    assert ranks.pessimistic[0] == high
    assert ranks.expected[0] == (low + high) / 2
    if tied_positives == 1:
        assert ranks.expected[0] == pytest.approx(mean)
    else:
        assert ranks.expected[0] >= mean  # several positives that tie: half of the tied negatives errs against the model


@pytest.mark.parametrize("seed", range(10))
def test_metrics_against_sorting(seed):
    generator = torch.Generator().manual_seed(seed)
    queries, gallery = 17, 23
    scores = torch.randn(queries, gallery, generator=generator, dtype=torch.float64)
    positives = torch.rand(queries, gallery, generator=generator) < 0.1
    positives[torch.arange(queries), torch.randint(gallery, (queries,), generator=generator)] = True
    got = retrieval_metrics(scores, positives)
    ranks = [first_hit(np.argsort(-row.numpy()), p) for row, p in zip(scores, positives.tolist(), strict=True)]
    for k in (1, 5, 10):
        assert got[f"R@{k}"] == pytest.approx(sum(r <= k for r in ranks) / queries)
    assert got["MRR"] == pytest.approx(sum(1 / r for r in ranks) / queries)
    assert got["median_rank"] == statistics.median(ranks)
    assert got["mean_rank"] == pytest.approx(statistics.fmean(ranks))
    assert (got["queries"], got["gallery"], got["tied"]) == (queries, gallery, 0)


def brute_places(scores, positive):
    """Place of every positive, best first: its number, plus the negatives above it, plus half of those that tie."""
    own = sorted((s for s, p in zip(scores, positive, strict=True) if p), reverse=True)
    negatives = [s for s, p in zip(scores, positive, strict=True) if not p]
    return [i + sum(s > o for s in negatives) + 0.5 * sum(s == o for s in negatives) for i, o in enumerate(own, start=1)]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_several_positives_against_counting(seed, ties):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(13, 40, generator=generator)
    scores = scores.round(decimals=0) if ties else scores
    positives = torch.rand(13, 40, generator=generator) < 0.15
    positives[:, 0] = True
    got, place = per_query(scores, positives), places(scores, positives)
    assert (place[:, 0] == rank(scores, positives).expected).all()
    for q in range(13):
        expected = brute_places(scores[q].tolist(), positives[q].tolist())
        R = len(expected)
        assert place[q, :R].tolist() == expected and np.isinf(place[q, R:]).all()
        precision = [i / p for i, p in enumerate(expected, start=1)]
        assert got["mAP"][q] == pytest.approx(sum(precision) / R)
        assert got["mAP@10"][q] == pytest.approx(sum(v for v, p in zip(precision, expected, strict=True) if p <= 10) / R)
        assert got["R-precision"][q] == pytest.approx(sum(p <= R for p in expected) / R)
        for k in (1, 5, 10):
            assert got[f"recall@{k}"][q] == pytest.approx(sum(p <= k for p in expected) / R)
            assert got[f"R@{k}"][q] == (expected[0] <= k)
    means = retrieval_metrics(scores, positives)
    assert all(means[name] == pytest.approx(values.mean()) for name, values in got.items() if name != "rank")


def test_map_against_sklearn():
    average_precision_score = pytest.importorskip("sklearn.metrics").average_precision_score
    g = torch.Generator().manual_seed(1)
    scores, positives = torch.randn(9, 30, generator=g), torch.rand(9, 30, generator=g) < 0.3
    positives[:, 3] = True
    expected = [average_precision_score(p, s) for p, s in zip(positives.numpy(), scores.numpy(), strict=True)]
    assert per_query(scores, positives)["mAP"] == pytest.approx(expected)


def test_with_one_positive_ap_is_the_reciprocal_rank():
    scores = torch.randn(20, 20)
    got = retrieval_metrics(scores, torch.eye(20, dtype=torch.bool))
    assert got["mAP"] == got["MRR"] and got["recall@5"] == got["R@5"] and got["R-precision"] == got["R@1"]


def test_five_captions_of_a_clip():
    """mAP@10 of the worked example: the order in which the captions are listed does not matter, and no value passes 1."""
    scores = torch.tensor([[1.0, 0, 0, 0, 0, 0.9, 0.8, 0.7, 0.6, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9, 0, 0, 0, 0, 1.0]])
    positives = torch.tensor([[1, 0, 0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]).bool()
    assert retrieval_metrics(scores, positives)["mAP@10"] == 1


def test_search_is_chunked_and_exact():
    g = torch.Generator().manual_seed(0)
    clips, captions = torch.randn(30, 8, generator=g), torch.randn(150, 8, generator=g)
    keys, caption_keys = torch.arange(30), torch.arange(30).repeat_interleave(5)
    for queries, gallery, q, k in ((clips, captions, keys, caption_keys), (captions, clips, caption_keys, keys)):
        whole = per_query(queries @ gallery.T, q[:, None] == k)
        for name, values in search(queries, gallery, q, k, chunk=7).items():
            assert (values == whole[name]).all()


def test_other_positives_do_not_push_the_first_one_down():
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.1]])
    assert rank(scores, torch.tensor([[False, True, True, True]])).expected[0] == 2
    assert rank(scores, torch.tensor([[True, True, True, True]])).expected[0] == 1


def test_a_collapsed_model_is_not_rewarded():
    got = retrieval_metrics(torch.zeros(50, 50), torch.eye(50, dtype=torch.bool))
    assert got["R@1"] == got["R@10"] == 0
    assert got["median_rank"] == 25.5
    assert got["tied"] == 1
    assert (got["R@1_min"], got["R@1_max"], got["MRR_max"]) == (0, 1, 1)


def test_even_numbers_of_queries_take_the_middle():
    scores = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    assert retrieval_metrics(scores, torch.tensor([[False, True, False], [False, False, True]]))["median_rank"] == 1.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(value):
    scores = torch.zeros(2, 3)
    scores[1, 2] = value
    with pytest.raises(ValueError, match="expected finite scores"):
        retrieval_metrics(scores, torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("scores", "positives", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool), "a positive for every query"),
        (torch.zeros(2, 3), torch.ones(2, 3), "bool positives"),
        (torch.zeros(2, 3), torch.ones(3, 3, dtype=torch.bool), "same shape"),
        (torch.zeros(3), torch.ones(3, dtype=torch.bool), "same shape"),
        (torch.zeros(0, 3), torch.ones(0, 3, dtype=torch.bool), "at least one query"),
        (torch.zeros(3, 0), torch.ones(3, 0, dtype=torch.bool), "at least one query"),
    ],
)
def test_bad_input(scores, positives, message):
    with pytest.raises(ValueError, match=message):
        rank(scores, positives)


@pytest.mark.parametrize(("gallery", "positives", "k"), [(5, 1, 1), (6, 2, 3), (7, 3, 10), (4, 4, 1), (6, 1, 6), (8, 5, 4)])
def test_chance_against_every_subset(gallery, positives, k):
    subsets = list(itertools.combinations(range(gallery), min(k, gallery)))
    hit = sum(any(j < positives for j in subset) for subset in subsets) / len(subsets)
    assert chance_recall(np.array([positives]), gallery, k) == pytest.approx(hit)
    assert 1 - math.comb(gallery - positives, min(k, gallery)) / math.comb(gallery, min(k, gallery)) == pytest.approx(hit)


def test_chance_is_the_mean_over_queries():
    each = [chance_recall(np.array([p]), 9, 3) for p in (1, 2, 5)]
    assert chance_recall(np.array([1, 2, 5]), 9, 3) == pytest.approx(statistics.fmean(each))


@pytest.mark.parametrize("counts", [[], [0], [4]])
def test_chance_refuses_counts_that_cannot_be(counts):
    with pytest.raises(ValueError, match="positives for every query"):
        chance_recall(np.array(counts, dtype=int), 3, 1)
