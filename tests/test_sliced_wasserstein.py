"""Spherical sliced Wasserstein: against exact programmes on every circle, in batches, in pairs, with its gradients."""

import math
import subprocess
import sys

import numpy as np
import ot
import pytest
import torch

import transphere as ts


def exact(x, y, frames, a=None, b=None, p=1):
    """By an exact programme on the circle's metric, on every circle; x (n, d), y (m, d), frames (P, d, 2), numpy."""
    total = 0
    for U in frames:
        u, v = (np.arctan2(*(z @ U).T[::-1]) / (2 * math.pi) for z in (x, y))
        cost = np.abs(u[:, None] - v[None]) % 1
        weights = [np.full(len(z), 1 / len(z)) if w is None else w / w.sum() for z, w in ((u, a), (v, b))]
        total += ot.emd2(*weights, np.minimum(cost, 1 - cost) ** p)
    return (total / len(frames)) ** (1 / p)


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


def test_pairs_take_weights_and_any_order(dtype, tolerance, unit):
    sets, weights = unit(5, 3, 8, 20, dtype=dtype), torch.rand(5, 1, 8, dtype=dtype)
    pairs = [(i, j) for i in range(5) for j in range(i)]                                     # more than are taken at a time
    got = ts.sliced_wasserstein_sphere_pairs(sets, pairs, 30, p=2, weights=weights, seed=2)
    for k, (i, j) in enumerate(pairs):
        alone = ts.sliced_wasserstein_sphere(sets[i], sets[j], 30, p=2, x_weights=weights[i], y_weights=weights[j], seed=2)
        torch.testing.assert_close(got[k], alone, **tolerance)
    with pytest.raises(ValueError, match=r"weights: expected a shape that broadcasts to \(5, 3, 8\), got \(7,\)"):
        ts.sliced_wasserstein_sphere_pairs(sets, pairs, weights=torch.ones(7, dtype=dtype))


@pytest.mark.parametrize("p", [1.5, 2, 3])
@pytest.mark.parametrize("n, m, d", [(1, 1, 2), (5, 8, 3), (16, 16, 8)])
def test_any_order_equals_exact_programme(n, m, d, p, dtype, unit):
    x, y = unit(n, d, seed=1), unit(m, d, seed=2)
    frames = ts.great_circles(6, d, dtype=torch.float64)
    a = torch.rand(n, dtype=torch.float64) + 0.1
    got = ts.sliced_wasserstein_sphere(x.to(dtype), y.to(dtype), p=p, projections=frames.to(dtype), x_weights=a.to(dtype))
    expected = exact(*(t.numpy() for t in (x, y, frames, a)), p=p)
    assert got.item() == pytest.approx(expected, abs=2e-6 if dtype == torch.float32 else 1e-11)


@pytest.mark.parametrize("p", [1.5, 2])
def test_any_order_has_gradients(p, unit):
    x, y = unit(2, 4, 5, seed=1).requires_grad_(), unit(2, 3, 5, seed=2).requires_grad_()
    frames = ts.great_circles(5, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, y: ts.sliced_wasserstein_sphere(x, y, p=p, projections=frames), (x, y))
    same = ts.sliced_wasserstein_sphere(x, x.detach(), p=p, projections=frames)
    assert (same == 0).all() and (torch.autograd.grad(same.sum(), x)[0] == 0).all()


@pytest.mark.parametrize("p", [1, 2])
def test_uniform_equals_a_dense_sample(p, dtype, backend, unit):
    """On every circle the uniform law projects to the uniform one, here 20000 evenly spaced points."""
    x, a = unit(2, 6, 5, dtype=dtype), torch.rand(2, 6, dtype=dtype) * torch.tensor([1, 1, 0, 1, 1, 1], dtype=dtype)
    frames = ts.great_circles(4, 5, dtype=torch.float64)
    angle = torch.arange(20000, dtype=torch.float64).add(0.5) / 20000
    projected = x.double() @ frames.permute(1, 0, 2).reshape(5, -1)
    u = (torch.atan2(projected[..., 1::2], projected[..., ::2]) / (2 * math.pi)).mT         # (2, 4, 6)
    for weights in (None, a):
        circles = ts.circular_wasserstein(u, angle, p=p, u_weights=None if weights is None else weights.double()[:, None])
        got = ts.sliced_wasserstein_sphere_uniform(x, p=p, x_weights=weights, projections=frames.to(dtype), backend=backend)
        expected = circles.pow(p).mean(-1) ** (1 / p)
        torch.testing.assert_close(got.double(), expected, atol=1e-6 if dtype == torch.float32 else 1e-8, rtol=0)


@pytest.mark.parametrize("p", [1, 2])
def test_uniform_closed_forms(p, unit):
    x, a = unit(2, 6, 5).requires_grad_(), (torch.rand(2, 6, dtype=torch.float64) + 0.1).requires_grad_()
    frames = ts.great_circles(7, 5, dtype=torch.float64)
    f = lambda x, a=None: ts.sliced_wasserstein_sphere_uniform(x, p=p, x_weights=a, projections=frames)  # noqa: E731
    assert torch.autograd.gradcheck(f, (x, a)) and torch.autograd.gradcheck(f, x)
    # n evenly spaced points on the circle, the least distance there is, and a single one, the greatest
    turn = torch.arange(8, dtype=torch.float64) / 8 * 2 * math.pi
    even = torch.stack([turn.cos(), turn.sin()], -1)
    least, greatest = (1 / 32, 1 / 4) if p == 1 else (1 / (8 * 12**0.5), 1 / 12**0.5)
    assert ts.sliced_wasserstein_sphere_uniform(even, 3, p=p).item() == pytest.approx(least)
    assert ts.sliced_wasserstein_sphere_uniform(even[:1], 3, p=p).item() == pytest.approx(greatest)


def test_uniform_equals_pot(unit):
    x, frames = unit(16, 5), ts.great_circles(20, 5, dtype=torch.float64)
    expected = ot.sliced_wasserstein_sphere_unif(x, n_projections=20, projections=frames)
    torch.testing.assert_close(ts.sliced_wasserstein_sphere_uniform(x, projections=frames), expected)


def test_uniform_in_batches_and_bad_input(unit):
    x = unit(3, 6, 8)
    got = ts.sliced_wasserstein_sphere_uniform(x, 20, seed=1)
    assert got.shape == (3,) and torch.allclose(got[1], ts.sliced_wasserstein_sphere_uniform(x[1], 20, seed=1))
    x[0, 0, 0] = math.nan
    assert torch.equal(ts.sliced_wasserstein_sphere_uniform(x, 20, seed=1)[1:], got[1:])
    assert ts.sliced_wasserstein_sphere_uniform(x, 20, seed=1)[0].isnan()
    assert ts.sliced_wasserstein_sphere_uniform(x[:0]).shape == (0,)
    assert ts.sliced_wasserstein_sphere_uniform(x.bfloat16()).dtype == torch.bfloat16
    for change, message in [
        (dict(p=3), "p: expected 1 or 2, the orders with a closed form, got 3"),
        (dict(x=x[:, :0]), "at least one point"),
        (dict(x=x[0, 0]), "x: expected at least 2 dimensions"),
        (dict(x_weights=torch.zeros(6, dtype=torch.float64)), "rows with a positive sum"),
        (dict(x_weights=torch.ones(5, dtype=torch.float64)), "weights: expected a shape that broadcasts"),
    ]:
        with pytest.raises(ValueError, match=message):
            ts.sliced_wasserstein_sphere_uniform(**(dict(x=x) | change))


def test_a_cap_on_the_gradient_bounds_its_tail(unit):
    """Gradients of one set on many circles, one circle at a time: less variance, little bias; values stay as they are."""
    d, P = 8, 4000
    x, y = unit(4, d).requires_grad_(), unit(4, d, seed=1)
    frames = ts.great_circles(P, d, dtype=torch.float64)
    cap = 0.5 * d**0.5                                                                       # touches 5% of the projections

    def gradients(**how):
        many = x[None].expand(P, 4, d).detach().requires_grad_()
        distances = [ts.sliced_wasserstein_sphere(many[k], y, projections=frames[k : k + 1], **how) for k in range(P)]
        return torch.stack(distances), torch.autograd.grad(torch.stack(distances).sum(), many)[0]

    value, free = gradients()
    same, capped = gradients(max_grad=cap)
    assert torch.equal(value, same)
    assert free.norm(dim=-1).max() > cap and capped.norm(dim=-1).max() <= cap / 4 * (1 + 1e-9)  # a slope of 1/4 at most
    assert capped.var(0).sum() < 0.75 * free.var(0).sum()
    error = (capped.mean(0) - free.mean(0)).norm() / free.mean(0).norm()
    assert error < 0.15
    for wrong in (0, -1.0, "1", True):
        with pytest.raises(ValueError, match="max_grad: expected a positive number or None"):
            ts.sliced_wasserstein_sphere(x, y, max_grad=wrong)


def test_no_cap_where_none_is_needed(backend, unit):
    x, y = unit(3, 6, 5).requires_grad_(), unit(3, 6, 5, seed=1)
    frames = ts.great_circles(9, 5, dtype=torch.float64)
    plain, loose = (ts.sliced_wasserstein_sphere(x, y, projections=frames, max_grad=g, backend=backend) for g in (None, 1e6))
    assert torch.equal(plain, loose)
    assert torch.equal(torch.autograd.grad(plain.sum(), x)[0], torch.autograd.grad(loose.sum(), x)[0])


@pytest.mark.parametrize("p", [1, 2])
def test_bits_do_not_depend_on_the_batch(p, unit):
    """From given angles on: the projections are exact here, of coordinate planes."""
    x, y = unit(5, 6, 4), unit(5, 7, 4, seed=1)
    frames = torch.eye(4, dtype=torch.float64).reshape(4, 2, 2).movedim(1, 0)                # coordinates (0, 1), (2, 3)
    batch = ts.sliced_wasserstein_sphere(x, y, p=p, projections=frames)
    assert all(torch.equal(batch[i], ts.sliced_wasserstein_sphere(x[i], y[i], p=p, projections=frames)) for i in range(5))
    again = ts.sliced_wasserstein_sphere(x, y, p=p, projections=frames)
    assert torch.equal(batch, again)


def test_memory():
    """Beside the projections themselves, coordinates of all points in all planes, a call takes less than twice as much."""
    code = """
import resource, sys, torch, transphere as ts
B, n, d, P = 64, 256, 8, 400
x, y = (torch.nn.functional.normalize(torch.randn(B, n, d), dim=-1).requires_grad_() for _ in range(2))
ts.sliced_wasserstein_sphere(x[:1], y[:1], P).sum().backward()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
value = ts.sliced_wasserstein_sphere(x, y, P, p=float(sys.argv[1]))
print((peak() - before) / (2 * B * n * 2 * P * 4))
"""
    for p in ("1", "2"):
        result = subprocess.run([sys.executable, "-c", code, p], capture_output=True, text=True, check=True)
        assert float(result.stdout) < 3.0, result.stdout                                     # the projections and less than twice as much


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
    assert w(seed=np.int64(3)) == w(seed=3) and w(seed=-1) == w(seed=2**64 - 1)
    assert ts.sliced_wasserstein_sphere(x, y, np.int32(10), seed=3) == w(seed=3)


@pytest.mark.parametrize("p", [1, 2])
def test_autocast_does_not_decide(p, unit):
    x, y = unit(6, 8, dtype=torch.float32), unit(5, 8, dtype=torch.float32, seed=1)
    calls = [
        lambda: ts.sliced_wasserstein_sphere(x, y, p=p, seed=0),
        lambda: ts.sliced_wasserstein_sphere(x, x.flip(1), p=p, seed=0),
        lambda: ts.sliced_wasserstein_sphere_uniform(x, p=p, seed=0),
        lambda: ts.sliced_wasserstein_sphere_parallel(x, y, p=p, seed=0),
    ]
    for call in calls:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = call()
        assert torch.equal(got, call())


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
        (dict(p=0.9), "p: expected a number >= 1"),
        (dict(n_projections=0), "n_projections: expected an integer >= 1"),
        (dict(projections=torch.rand(5, 7, 2)), r"projections: expected shape \(P, 8, 2\), got \(5, 7, 2\)"),
        (dict(projections=torch.rand(5, 8, 2), seed=1), "at most one of"),
        (dict(projections=torch.ones(5, 8, 2).long()), "projections: expected a tensor of a floating dtype, got torch.int64"),
        (dict(seed="x"), "seed: expected an integer of 64 bits, got 'x'"),
        (dict(seed=2**64), "seed: expected an integer of 64 bits"),
        (dict(x_weights=torch.zeros(6, dtype=torch.float64)), "x_weights: expected rows with a positive sum"),
        (dict(x_weights=-torch.ones(6, dtype=torch.float64)), "weights: expected finite values >= 0"),
    ]
    for change, message in bad:
        with pytest.raises(ValueError, match=message):
            ts.sliced_wasserstein_sphere(**(dict(x=x, y=x) | change))
    for pairs in ([(0, 3)], [(0, 1, 2)], [(0.0, 1)], [0, 1], 5):
        with pytest.raises(ValueError, match="pairs: expected pairs of indices below 3"):
            ts.sliced_wasserstein_sphere_pairs(x, pairs)
    both = [ts.sliced_wasserstein_sphere_pairs(x, pairs, seed=0) for pairs in (np.array([[0, 1], [1, 2]]), iter([(0, 1), (1, 2)]))]
    assert torch.equal(*both)
