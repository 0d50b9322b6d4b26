"""Spherical sliced Wasserstein: against exact programmes on every circle, in batches, in pairs, with its gradients."""

import math

import numpy as np
import ot
import pytest
import torch

import transphere as ts


def exact(x, y, frames, a=None, b=None):
    """Mean over circles of an exact programme on the circle's metric; x (n, d), y (m, d), frames (P, d, 2), numpy."""
    total = 0
    for U in frames:
        u, v = (np.arctan2(*(z @ U).T[::-1]) / (2 * math.pi) for z in (x, y))
        cost = np.abs(u[:, None] - v[None]) % 1
        weights = [np.full(len(z), 1 / len(z)) if w is None else w / w.sum() for z, w in ((u, a), (v, b))]
        total += ot.emd2(*weights, np.minimum(cost, 1 - cost))
    return total / len(frames)


@pytest.mark.parametrize("n, m, d", [(1, 1, 2), (5, 8, 3), (16, 16, 8), (30, 50, 16), (16, 16, 512)])
def test_equals_exact_programme(n, m, d, dtype, backend, unit):
    x, y = unit(n, d, seed=1), unit(m, d, seed=2)
    frames = ts.great_circles(6, d, dtype=torch.float64)
    got = ts.sliced_wasserstein_sphere(x.to(dtype), y.to(dtype), projections=frames.to(dtype), backend=backend)
    assert got.item() == pytest.approx(exact(x.numpy(), y.numpy(), frames.numpy()), abs=2e-6 if dtype == torch.float32 else 1e-12)


def test_weights(backend, unit):
    x, y, a, b = unit(7, 4), unit(9, 4, seed=1), torch.rand(7).double(), torch.rand(9).double()
    frames = ts.great_circles(5, 4, dtype=torch.float64)
    got = ts.sliced_wasserstein_sphere(x, y, projections=frames, x_weights=a, y_weights=b, backend=backend)
    assert got.item() == pytest.approx(exact(*(t.numpy() for t in (x, y, frames, a, b))), abs=1e-12)
    shared = ts.sliced_wasserstein_sphere(x.expand(3, 7, 4), y, projections=frames, x_weights=a, y_weights=b.expand(3, 9), backend=backend)
    torch.testing.assert_close(shared, got.expand(3))


def test_the_circle_itself(dtype):
    """At d = 2 the one great circle is the sphere, and the distance does not depend on the frame."""
    u, v = torch.rand(12, dtype=torch.float64), torch.rand(12, dtype=torch.float64)
    x, y = (torch.stack([(2 * math.pi * t).cos(), (2 * math.pi * t).sin()], -1).to(dtype) for t in (u, v))
    torch.testing.assert_close(
        ts.sliced_wasserstein_sphere(x, y, 7).double(), ts.circular_wasserstein(u, v), atol=1e-6 if dtype == torch.float32 else 1e-12,
        rtol=0
    )


def test_only_the_span_of_a_frame_counts(unit):
    x, y = unit(6, 5), unit(6, 5, seed=1)
    frames = ts.great_circles(9, 5, dtype=torch.float64)
    mixed = frames @ torch.tensor([[2.0, 0.3], [-1.0, 0.7]], dtype=torch.float64)
    one, other = (ts.sliced_wasserstein_sphere(x, y, projections=f) for f in (frames, mixed))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("shape_x, shape_y, batch", [((), (), ()), ((4,), (4,), (4,)), ((2, 1), (3,), (2, 3)), ((0,), (0,), (0,))])
def test_batches(shape_x, shape_y, batch, backend, unit):
    x, y = unit(*shape_x, 6, 10, seed=1), unit(*shape_y, 4, 10, seed=2)
    got = ts.sliced_wasserstein_sphere(x, y, 20, seed=5, backend=backend)
    assert got.shape == batch
    x, y = x.expand(*batch, 6, 10), y.expand(*batch, 4, 10)
    for i in np.ndindex(*batch):
        torch.testing.assert_close(got[i], ts.sliced_wasserstein_sphere(x[i], y[i], 20, seed=5, backend=backend))


def test_pairs_equal_single_calls(dtype, tolerance, unit):
    sets = unit(4, 3, 8, 20, dtype=dtype)
    pairs = [(0, 1), (2, 0), (3, 3), (1, -1)]
    got = ts.sliced_wasserstein_sphere_pairs(sets, pairs, 30, seed=2)
    assert got.shape == (4, 3)
    for k, (i, j) in enumerate(pairs):
        torch.testing.assert_close(got[k], ts.sliced_wasserstein_sphere(sets[i], sets[j], 30, seed=2), **tolerance)
    assert (got[2] < 1e-6).all()
    assert ts.sliced_wasserstein_sphere_pairs(sets, []).shape == (0, 3)


@pytest.mark.parametrize("d", [2, 3, 7])
def test_gradients(d, backend, unit, gradcheck):
    x, y = unit(2, 4, d, seed=1).requires_grad_(), unit(2, 3, d, seed=2).requires_grad_()
    a = (torch.rand(2, 4, dtype=torch.float64) + 0.5).requires_grad_()
    frames = ts.great_circles(5, d, dtype=torch.float64)
    f = lambda x, y, a: ts.sliced_wasserstein_sphere(x, y, projections=frames, x_weights=a, backend=backend)  # noqa: E731
    assert gradcheck(f, (x, y, a))
    g = lambda x, y: ts.sliced_wasserstein_sphere_pairs(torch.stack([x[:, :3], y]), [(0, 1), (1, 0)], projections=frames, backend=backend)  # noqa: E731
    assert gradcheck(g, (x, y))


def test_axioms(unit):
    x, y, z = unit(5, 12, 6, seed=1), unit(5, 12, 6, seed=2), unit(5, 9, 6, seed=3)
    w = lambda a, b: ts.sliced_wasserstein_sphere(a, b, 50, seed=0)  # noqa: E731
    assert (w(x, x) < 1e-12).all() and (w(x, y) > 0).all() and (w(x, y) <= 0.5).all()
    torch.testing.assert_close(w(x, y), w(y, x))
    assert (w(x, z) <= w(x, y) + w(y, z) + 1e-12).all()
    assert w(x[0, :1], -x[0, :1]) == pytest.approx(0.5)                                    # antipodes are half a turn apart on every circle


def test_sources_of_circles(unit):
    x, y = unit(6, 5, dtype=torch.float32), unit(6, 5, dtype=torch.float32, seed=1)
    w = lambda **how: ts.sliced_wasserstein_sphere(x, y, 10, **how)  # noqa: E731
    assert w(seed=3) == w(seed=3) != w(seed=4)
    assert w(generator=torch.Generator().manual_seed(1)) == w(generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    first, second = w(), w()
    torch.manual_seed(0)
    assert w() == first != second
    torch.testing.assert_close(ts.sliced_wasserstein_sphere(x.double(), y.double(), 10, seed=3), w(seed=3).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_types(half, unit):
    x, y = unit(3, 6, 8, dtype=half).requires_grad_(), unit(3, 6, 8, dtype=half, seed=1)
    got = ts.sliced_wasserstein_sphere(x, y, seed=0)
    assert got.dtype == half
    torch.testing.assert_close(got.float(), ts.sliced_wasserstein_sphere(x.float(), y.float(), seed=0), atol=2e-3, rtol=0)
    got.sum().backward()
    assert x.grad.dtype == half and x.grad.isfinite().all()


def test_nan_and_zero_vectors(unit):
    x, y = unit(3, 6, 8), unit(3, 6, 8, seed=1)
    x[1, 2, 3] = math.nan
    x[2, 0] = 0                                                                              # has no angle: taken as 0, gradient 0
    x.requires_grad_()
    got = ts.sliced_wasserstein_sphere(x, y, seed=0)
    assert got[1].isnan() and got[[0, 2]].isfinite().all()
    got[[0, 2]].sum().backward()
    assert x.grad[[0, 2]].isfinite().all() and (x.grad[2, 0] == 0).all()


def test_non_contiguous(unit):
    x, y = unit(3, 6, 8), unit(3, 6, 8, seed=1)
    strided = x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    torch.testing.assert_close(ts.sliced_wasserstein_sphere(strided, y, seed=0), ts.sliced_wasserstein_sphere(x, y, seed=0))


def test_bad_input(unit):
    x = unit(3, 6, 8)
    bad = [
        (dict(y=unit(3, 6, 7)), "y: expected vectors of dimension 8"),
        (dict(y=unit(2, 6, 8)), "batch dimensions that broadcast"),
        (dict(y=unit(8)), "y: expected at least 2 dimensions"),
        (dict(y=x.float()), "y: expected torch.float64 as x"),
        (dict(p=2), "p: expected 1"),
        (dict(n_projections=0), "n: expected an integer >= 1"),
        (dict(projections=torch.rand(5, 7, 2)), r"projections: expected shape \(P, 8, 2\), got \(5, 7, 2\)"),
        (dict(projections=torch.rand(5, 8, 2), seed=1), "at most one of"),
        (dict(x_weights=-torch.ones(6, dtype=torch.float64)), "weights: expected finite values >= 0"),
    ]
    for change, message in bad:
        with pytest.raises(ValueError, match=message):
            ts.sliced_wasserstein_sphere(**(dict(x=x, y=x) | change))
    for pairs in ([(0, 3)], [(0, 1, 2)], [(0.0, 1)]):
        with pytest.raises(ValueError, match="pairs: expected pairs of indices below 3"):
            ts.sliced_wasserstein_sphere_pairs(x, pairs)
