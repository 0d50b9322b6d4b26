"""Modality gap, zero-shot accuracy and equal error rate against values known by hand."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from transphere.training.geometry import equal_error_rate, modality_gap, zero_shot


def test_gap_of_a_shift_vanishes_by_centring():
    x = normalize(torch.randn(400, 16), dim=1)
    shift = torch.zeros(16)
    shift[0] = 3.0
    apart = modality_gap(x, normalize(x + shift, dim=1))
    assert apart["gap"] > 0.5 and apart["probe"] > 0.95 and apart["centred_cosine"] > 0.7 > apart["positive_cosine"]
    same = modality_gap(x, x)
    assert same["gap"] == 0 and same["positive_cosine"] == pytest.approx(1) and abs(same["probe"] - 0.5) < 0.05
    mixed = modality_gap(x, x[torch.randperm(400)])
    assert abs(mixed["centred_cosine"]) < 0.1 and mixed["gap"] < 1e-6


def test_gap_is_the_distance_of_means():
    x, y = torch.randn(6, 3).double(), torch.randn(6, 3).double()
    assert modality_gap(x, y)["gap"] == pytest.approx(math.dist(x.mean(0).tolist(), y.mean(0).tolist()))


def test_zero_shot():
    scores = torch.tensor([[3.0, 1, 2], [0, 5, 4], [1, 2, 9], [9, 0, 0], [1, 1, 0]])
    got = zero_shot(scores, torch.tensor([0, 1, 1, 0, 0]))
    assert got == {"accuracy": (1 + 1 + 0 + 1 + 0.5) / 5, "T1": pytest.approx((2.5 / 3 + 1 / 2) / 2), "classes": 2, "items": 5}
    assert zero_shot(torch.zeros(12, 4), torch.arange(12) % 4)["T1"] == 0.25                 # a collapsed model


def brute_eer(scores, same):
    """Walk down the thresholds; where refusals and acceptances cross, go along the straight line."""
    points = [(0.0, 1.0)]
    for t in sorted(set(scores), reverse=True):
        accepted = sum(s >= t for s, m in zip(scores, same, strict=True) if not m) / sum(not m for m in same)
        refused = sum(s < t for s, m in zip(scores, same, strict=True) if m) / sum(same)
        points.append((accepted, refused))
    for (a0, r0), (a1, r1) in zip(points, points[1:], strict=False):
        if a1 >= r1:
            t = (r0 - a0) / ((r0 - a0) + (a1 - r1))
            return a0 + t * (a1 - a0)


@pytest.mark.parametrize("seed", range(20))
def test_equal_error_rate_against_every_threshold(seed):
    g = np.random.default_rng(seed)
    same = g.random(30) < 0.4
    same[:2] = [True, False]
    scores = np.round(g.normal(size=30) + same, 1)                                           # with ties
    assert equal_error_rate(scores, same) == pytest.approx(brute_eer(scores.tolist(), same.tolist()))


def test_equal_error_rate_at_its_ends():
    assert equal_error_rate([3.0, 2.0, 1.0], [True, True, False]) == 0
    assert equal_error_rate([1.0, 2.0, 3.0], [True, True, False]) == 1
    assert equal_error_rate([1.0, 1.0], [True, False]) == 0.5


def test_bad_input():
    x = torch.zeros(5, 2)
    for call, message in [
        (lambda: modality_gap(x, x[:4]), "one shape"),
        (lambda: modality_gap(x[:3], x[:3]), "n >= 4"),
        (lambda: modality_gap(x, x + math.nan), "finite vectors"),
        (lambda: zero_shot(x, torch.zeros(4).long()), r"expected scores \(n, C\)"),
        (lambda: zero_shot(x + math.inf, torch.zeros(5).long()), "finite scores"),
        (lambda: zero_shot(x, torch.full((5,), 2)), "labels: expected numbers below 2"),
        (lambda: equal_error_rate([1.0], [True]), "both kinds"),
        (lambda: equal_error_rate([1.0, math.nan], [True, False]), "finite scores"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
