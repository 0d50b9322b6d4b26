"""Frames are orthonormal, their planes uniform, and the structured ones have less variance."""

import pytest
import torch

import transphere as ts

FRAMES = [("iid", 7, 2), ("iid", 100, 512), ("orthogonal", 100, 16), ("orthogonal", 5, 3), ("fibonacci", 50, 3)]


@pytest.mark.parametrize("method, n, d", FRAMES)
def test_frames_are_orthonormal(method, n, d, dtype):
    frames = ts.great_circles(n, d, method=method, dtype=dtype)
    assert frames.shape == (n, d, 2) and frames.dtype == dtype
    eye = torch.eye(2, dtype=dtype).expand(n, 2, 2)
    torch.testing.assert_close(frames.mT @ frames, eye, atol=50 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("method, d", [("iid", 3), ("iid", 8), ("orthogonal", 8), ("orthogonal", 7), ("fibonacci", 3)])
def test_planes_are_uniform(method, d):
    """The mean projector on the planes is 2/d times the identity."""
    mean = torch.zeros(d, d, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    for _ in range(200):
        frames = ts.great_circles(20, d, method=method, generator=g, dtype=torch.float64)
        mean += torch.einsum("pik,pjk->ij", frames, frames) / 4000
    torch.testing.assert_close(mean, torch.eye(d, dtype=torch.float64) * 2 / d, atol=0.025, rtol=0)


def test_blocks_are_orthogonal():
    frames = ts.great_circles(11, 16, method="orthogonal", dtype=torch.float64)              # blocks of 8
    first = frames[:8].movedim(-1, 1).reshape(16, 16)
    torch.testing.assert_close(first @ first.T, torch.eye(16, dtype=torch.float64))


CONCENTRATED = [
    ("orthogonal", 16, 96, 3, 20),
    ("orthogonal", 64, 96, 2.5, 20),
    ("orthogonal", 512, 100, 0.7, 2),
    ("orthogonal", 3, 25, 0.5, 2),
    ("fibonacci", 3, 25, 15, 200),
    ("fibonacci", 3, 100, 50, 600),
]


@pytest.mark.parametrize("method, d, n, least, most", CONCENTRATED)
def test_structured_circles_have_less_variance(method, d, n, least, most):
    """Between two concentrated sets 60 degrees apart; measured 8.2, 5.4, 1.06, .9, 54, 157 and asserted loosely: 120 draws."""
    e = torch.eye(d, dtype=torch.float64)
    kappa = torch.tensor(1.25 * d, dtype=torch.float64)
    ends = e[0], 0.5 * e[0] + 0.75**0.5 * e[1]
    assert least < variance_ratio(*(ts.vmf_sample(mu, kappa, 32, seed=0) for mu in ends), method, n) < most


@pytest.mark.parametrize("method, d, n, least, most", [("orthogonal", 16, 96, 1.2, 5), ("fibonacci", 3, 32, 5.0, 50)])
def test_between_spread_out_sets_they_gain_less(method, d, n, least, most, unit):
    assert least < variance_ratio(unit(32, d, seed=1), unit(32, d, seed=2), method, n) < most


def variance_ratio(x, y, method, n):
    """Of independent circles to those of the method."""
    d = x.shape[-1]
    g = torch.Generator().manual_seed(1)

    def distance(how):
        return ts.sliced_wasserstein_sphere(x, y, projections=ts.great_circles(n, d, method=how, generator=g, dtype=torch.float64))

    def variance(how):
        return torch.stack([distance(how) for _ in range(120)]).var()

    return variance("iid") / variance(method)


def test_one_generator_one_result():
    a, b = (ts.great_circles(9, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) for _ in range(2))
    assert torch.equal(a, b)
    torch.testing.assert_close(ts.great_circles(9, 5, generator=torch.Generator().manual_seed(3)).double(), a, atol=1e-6, rtol=0)


def test_bad_input():
    for args, kwargs, message in [
        ((0, 3), {}, "n: expected an integer >= 1, got 0"),
        ((5, 1), {}, "d: expected an integer >= 2, got 1"),
        ((5, 4), dict(method="fibonacci"), "needs d = 3, got d = 4"),
        ((5, 3), dict(method="sobol"), "method: expected 'iid'"),
        ((5, 3), dict(dtype=torch.int64), "dtype: expected float32 or float64"),
    ]:
        with pytest.raises(ValueError, match=message):
            ts.great_circles(*args, **kwargs)
