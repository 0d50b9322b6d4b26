"""The symmetric part: exact, at every size around a tile, and its own derivative."""

import pytest
import torch
from conftest import BACKENDS

from transphere import _library
from transphere.ops.symmetric_part import symmetric_part

SHAPES = [(0, 3, 3), (2, 0, 0), (1, 1), (3, 5, 5), (32, 32), (2, 33, 33), (64, 64), (2, 2, 70, 70), (96, 96), (129, 129)]


@pytest.mark.parametrize("shape", SHAPES)
def test_is_exact_and_symmetric(shape, dtype, backend):
    M = torch.randn(*shape, dtype=dtype)
    S = symmetric_part(M, backend)
    assert torch.equal(S, 0.5 * (M + M.mT)) and torch.equal(S, S.mT)
    assert torch.equal(symmetric_part(M.mT, backend), S) and torch.equal(symmetric_part(S, backend), S)


def test_gradient(backend, gradcheck):
    M = torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda t: symmetric_part(t, backend), M)
    (grad,) = torch.autograd.grad(symmetric_part(M, backend).square().sum(), M, create_graph=True)
    torch.testing.assert_close(torch.autograd.grad(grad.sum(), M)[0], torch.full_like(M, 2.0))


@pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)  # the reference is only called with what was checked
def test_errors(backend):
    for M in (torch.ones(3, 4, 5), torch.ones(4, 4)):
        with pytest.raises(RuntimeError, match="symmetric_part: expected M of shape"):
            _library.op("symmetric_part", backend, M)(M)
