"""Angles of projected points: against atan2 in double, forward and backward."""

import math

import pytest
import torch

from transphere import _library


def project(xy, backend):
    return _library.op("circular_projection", backend, xy)(xy)


@pytest.mark.parametrize("rows, planes", [(0, 3), (1, 1), (5, 7), (3, 100), (64, 33)])
def test_matches_atan2(rows, planes, dtype, backend):
    xy = torch.randn(rows, 2 * planes, dtype=dtype)
    x, y = xy.double().chunk(2, -1)
    truth = torch.atan2(y, x) / (2 * math.pi) % 1
    theta = project(xy, backend)
    assert theta.shape == (rows, planes) and ((theta >= 0) & (theta < 1)).all()
    error = (theta.double() - truth).abs()
    assert (torch.minimum(error, 1 - error) < (8e-8 if dtype == torch.float32 else 1e-15)).all()


def test_all_directions(dtype, backend):
    """A fine sweep of the circle, the axes and the diagonals among it, at several radii."""
    t = torch.arange(4096, dtype=torch.float64) / 4096
    for radius in (1e-18, 1e-3, 1.0, 1e18):
        xy = (radius * torch.cat([(2 * math.pi * t).cos()[:, None], (2 * math.pi * t).sin()[:, None]], 1)).to(dtype)
        error = (project(xy, backend)[:, 0].double() - t).abs()
        assert torch.minimum(error, 1 - error).max() < (1e-7 if dtype == torch.float32 else 1e-15)


def test_special_points(dtype, backend):
    nan, inf = math.nan, math.inf
    points = torch.tensor([[0, 0], [-0.0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [1, -1e-30], [nan, 1], [1, nan], [inf, 0]], dtype=dtype)
    theta = project(points, backend)[:, 0]
    assert theta[:6].tolist() == [0, 0, 0, 0.25, 0.5, 0.75]
    assert 0 <= theta[6] < 1
    assert theta[7].isnan() and theta[8].isnan() and theta[9] == 0


def test_backward(dtype, backend):
    xy = torch.randn(6, 14, dtype=dtype, requires_grad=True)
    G = torch.randn(6, 7, dtype=dtype)
    (grad,) = torch.autograd.grad(project(xy, backend), xy, G)
    x, y = xy.detach().double().chunk(2, -1)
    r2 = 2 * math.pi * (x * x + y * y)
    rtol = 1e-5 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(grad.double(), torch.cat([-y * G / r2, x * G / r2], -1), rtol=rtol, atol=0)
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(lambda t: project(t, backend), xy)


def test_gradient_at_the_origin_is_zero(backend):
    xy = torch.tensor([[0.0, 3.0, 0.0, 4.0]], requires_grad=True)  # planes (0, 0) and (3, 4)
    project(xy, backend).sum().backward()
    assert xy.grad[0, 0] == 0 and xy.grad[0, 2] == 0 and xy.grad[0, 1] != 0


def test_pointers_that_are_not_aligned(backend):
    """A view from an odd place on: rows of 8 planes, whose first one does not begin a vector."""
    flat = torch.randn(1 + 5 * 16)
    assert torch.equal(project(flat[1:].view(5, 16), backend), project(flat[1:].clone().view(5, 16), backend))


def test_non_contiguous(backend):
    xy = torch.randn(8, 6)
    assert torch.equal(project(xy.T.contiguous().T, backend), project(xy, backend))
