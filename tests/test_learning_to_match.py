"""The loss of learning to match against float64 autograd through converged loops."""

import pytest
import torch
from transport import loop, over_backends, partial_loop, weights

import transphere as ts


@over_backends
@pytest.mark.parametrize("n", [5, 32])
@pytest.mark.parametrize("mass", [None, 0.7])
def test_learning_to_match(n, mass, backend):
    """Value and gradient of a loop run to the end, in float64."""
    if n == 32 and backend not in ("cpu", "reference"):
        n = 9
    C = torch.rand(2, n, n, dtype=torch.float64, requires_grad=True)
    T = loop(torch.rand(n, n, dtype=torch.float64), weights(n), weights(n), 0.1, 1000)
    options = dict(eps=0.2, tol=1e-14, max_iter=3000, backend=backend)
    for target in (None, T):
        t = torch.eye(n, dtype=torch.float64) / n if target is None else T
        a, b = t.sum(1), t.sum(0)
        P = loop(C, a, b, 0.2, 500) if mass is None else partial_loop(C, torch.tensor(mass, dtype=torch.float64), a, b, 0.2, 1000)
        expected = (torch.xlogy(t, t) - t * P.log()).sum((-2, -1))
        got = ts.learning_to_match(C, target, mass=mass, **options)
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(*(torch.autograd.grad(x.sum(), C)[0] for x in (got, expected)), atol=1e-10, rtol=1e-8)
    assert ts.learning_to_match(C[0], **options).shape == ()


@over_backends
def test_learning_to_match_gradcheck(backend, gradcheck):
    C, mass = torch.rand(2, 4, 4, dtype=torch.float64, requires_grad=True), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    options = dict(eps=0.4, tol=1e-14, max_iter=2000, backend=backend)
    assert gradcheck(lambda C: ts.learning_to_match(C, **options), C)
    assert gradcheck(lambda C, s: ts.learning_to_match(C, mass=s, **options), (C, mass))


def test_learning_to_match_stays_finite_where_the_plan_underflows():
    n = 16
    C = 1 - torch.roll(torch.eye(n), 1, 0)  # the cheap pairs are all wrong
    C.requires_grad_()
    loss = ts.learning_to_match(C, eps=2e-3)
    assert ts.sinkhorn(C, eps=2e-3).plan.diagonal().max() == 0
    assert loss.item() == pytest.approx(1 / 2e-3, rel=1e-3)
    assert torch.autograd.grad(loss, C)[0].isfinite().all()


def test_learning_to_match_refuses():
    with pytest.raises(ValueError, match="target: expected one, since its default I/n needs a square cost"):
        ts.learning_to_match(torch.rand(3, 4), eps=0.1)
    with pytest.raises(ValueError, match="target: expected the last dimensions of cost"):
        ts.learning_to_match(torch.rand(3, 3), torch.ones(2, 2), eps=0.1)
    with pytest.raises(ValueError, match="target: expected finite entries >= 0, got -1"):
        ts.learning_to_match(torch.rand(2, 2), -torch.ones(2, 2), eps=0.1)
