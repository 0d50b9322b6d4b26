"""The m-LTM loss as a module: its value, masks, scales, starts, and that it finds a planted metric which no diagonal can express."""

import pytest
import torch
from torch.nn.utils import parametrize

import transphere as ts
from transphere.losses import LearningToMatch


def embeddings(n=12, d=6, names="ab"):
    return {name: torch.randn(n, d) for name in names}


def unrolled(cost, eps, steps=500):
    """KL(I/n || plan) in float64, by Sinkhorn in the log domain."""
    n, scaled = len(cost), cost.double() / eps
    f = g = torch.zeros(n, dtype=torch.float64)
    for _ in range(steps):
        f = -torch.logsumexp(g - scaled, 1)
        g = -torch.logsumexp(f[:, None] - scaled, 0)
    return -(f + g - scaled.diagonal()).mean()


@pytest.mark.parametrize("scale", ["max", "detached max", None])
@pytest.mark.parametrize("metric", ["mahalanobis", "diagonal", "euclidean"])
def test_value_and_gradients(metric, scale):
    loss, e = LearningToMatch(6, eps=0.1, metric=metric, scale=scale), embeddings()
    x, y = (t.requires_grad_() for t in e.values())
    value, parts = loss(e)
    assert torch.equal(parts["matching"], value.detach()) and not parts["matching"].requires_grad
    M = None if loss.M is None else loss.M.detach().double().requires_grad_()
    exact = [t.detach().double().requires_grad_() for t in (x, y)]
    full = torch.eye(6).double() if M is None else M.diag() if M.dim() == 1 else 0.5 * (M + M.mT)
    apart = exact[0][:, None] - exact[1]
    cost = torch.einsum("...k,kl,...l", apart, full, apart).sqrt()
    if scale is not None:
        cost = cost / (cost if scale == "max" else cost.detach()).max()
    expected = unrolled(cost, 0.1)
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)
    wanted = exact if M is None else [*exact, M]
    got = torch.autograd.grad(value, [x, y] if M is None else [x, y, loss.M])
    for a, b in zip(got, torch.autograd.grad(expected, wanted), strict=True):
        assert (a - b).norm() <= 1e-3 * b.norm()


def test_starts():
    torch.manual_seed(3)
    paper = LearningToMatch(64).eigenvalue_range()
    assert -1e-5 <= paper[0] < 1e-5 and 30 < paper[1] < 36  # (A + A')/2 + I is indefinite; its largest is about d/2 + 1
    assert LearningToMatch(64, init="identity").eigenvalue_range().tolist() == [1, 1]
    assert LearningToMatch(4, metric="euclidean").eigenvalue_range().tolist() == [1, 1]
    assert 1 <= LearningToMatch(64, metric="diagonal").eigenvalue_range()[0]
    assert not list(LearningToMatch(4, metric="euclidean").parameters())


def test_projection_in_place():
    loss = LearningToMatch(5)
    parameter = loss.M
    with torch.no_grad():
        loss.M.sub_(2 * torch.eye(5))
    expected = ts.psd_project(loss.M.detach())
    loss.project_()
    assert loss.M is parameter and torch.equal(loss.M, expected) and loss.eigenvalue_range()[0] > -1e-5
    loss = LearningToMatch(5, metric="diagonal")
    with torch.no_grad():
        loss.M.sub_(1.5)
    loss.project_()
    assert loss.eigenvalue_range()[0] >= 0
    LearningToMatch(5, metric="euclidean").project_()
    parametrize.register_parametrization(loss := LearningToMatch(5), "M", ts.PositiveSemidefinite())
    before = loss.M.detach().clone()
    loss.project_()
    assert torch.equal(loss.M, before)
    loss(embeddings(d=5))[0].backward()
    assert loss.parametrizations.M.original.grad.abs().max() > 0


@pytest.mark.parametrize("mass", [None, 0.8])
def test_absent_items_are_as_if_not_there(mass):
    loss, e = LearningToMatch(6, eps=0.1, mass=mass), embeddings()
    present = {"a": torch.rand(12) > 0.3, "b": torch.rand(12) > 0.3}
    both = present["a"] & present["b"]
    dirty = {name: torch.where(present[name][:, None], t, torch.nan).requires_grad_() for name, t in e.items()}
    value, _ = loss(dirty, present)
    torch.testing.assert_close(value, loss({name: t[both] for name, t in e.items()})[0], rtol=1e-4, atol=1e-5)
    for grad in torch.autograd.grad(value, list(dirty.values())):
        assert grad.isfinite().all() and (grad[~both] == 0).all() and grad.abs().max() > 0
    nobody = {"a": torch.zeros(12, dtype=torch.bool)}
    value, _ = loss(dirty, nobody)
    value.backward()
    assert value == 0 and all((t.grad == 0).all() for t in dirty.values())


def test_groups_share_their_matching():
    loss, e = LearningToMatch(6, eps=0.2), embeddings(5)
    groups, present = torch.tensor([7, 1, 7, 2, 7]), {"a": torch.tensor([1, 1, 1, 1, 0]).bool()}
    apart, _ = loss(e, None, torch.arange(5))
    torch.testing.assert_close(apart, loss(e)[0])
    for mask, there in ((None, [0, 1, 2, 3, 4]), (present, [0, 1, 2, 3])):
        cost = ts.mahalanobis_cost(e["a"][there], e["b"][there], loss.M.detach())
        alike = [[float(groups[i] == groups[j]) for j in there] for i in there]
        target = torch.tensor([[v / sum(row) / len(there) for v in row] for row in alike])
        expected = ts.learning_to_match(cost / cost.max(), target, eps=0.2)
        torch.testing.assert_close(loss(e, mask, groups)[0], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="groups: expected whole numbers of shape"):
        loss(e, None, torch.zeros(5))


def test_many_modalities_and_laws():
    loss, e = LearningToMatch(6), embeddings(names="abc")
    pairs = [loss({i: e[i], j: e[j]})[0] for i, j in ("ab", "ac", "bc")]
    torch.testing.assert_close(loss(e)[0], torch.stack(pairs).mean())
    mu = torch.nn.functional.normalize(e["a"], dim=-1)
    law = ts.VonMisesFisher(mu, torch.full((12,), 5.0), validate_args=False)
    torch.testing.assert_close(loss({"a": law, "b": e["b"]})[0], loss({"a": mu, "b": e["b"]})[0])


def test_equal_embeddings_and_half():
    same = {name: torch.ones(4, 3, requires_grad=True) for name in "ab"}
    value, _ = LearningToMatch(3)(same)
    torch.testing.assert_close(value, torch.tensor(4.0).log())  # no cost tells them apart: the plan is uniform
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, list(same.values())))
    e = embeddings()
    loss = LearningToMatch(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(e)[0], LearningToMatch.forward(loss, e)[0])
    assert loss({k: t.bfloat16() for k, t in e.items()})[0].dtype == torch.float32
    partial = LearningToMatch(6, mass=0.5)
    value = partial(e)[0]
    with torch.device("meta"):  # as large models are made
        assert LearningToMatch(6).M.is_meta
        assert torch.equal(partial(e)[0], value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(dim=0), "dim: expected an integer >= 1, got 0"),
        (dict(eps=0), "eps: expected a number > 0, got 0"),
        (dict(metric="cosine"), "metric: expected one of 'mahalanobis', 'diagonal', 'euclidean', got 'cosine'"),
        (dict(mass=1.5), r"mass: expected None or a fraction in \(0, 1\], got 1.5"),
        (dict(scale="mean"), "scale: expected one of 'max', 'detached max', None, got 'mean'"),
        (dict(duplicates="ignore"), "duplicates: expected one of 'positive', got 'ignore'"),
        (dict(init="zeros"), "init: expected one of 'paper', 'identity', got 'zeros'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=f"LearningToMatch: {message}"):
        LearningToMatch(**dict(dim=4) | arguments)
    with pytest.raises(ValueError, match="LearningToMatch: expected embeddings of dimension 4, got 6"):
        LearningToMatch(4)(embeddings())


def retrieval(loss, x, y):
    """The fraction of x whose nearest y is its own."""
    cost = ts.mahalanobis_cost(x, y, loss.M.detach())
    return (cost.argmin(1) == torch.arange(len(x))).float().mean().item()


def test_a_planted_metric_is_found():
    """Pairs differ by a large error within a subspace askew to the axes: a full M learns to look away from it, a diagonal cannot."""
    torch.manual_seed(0)
    d, batch = 12, 48
    Q = torch.linalg.qr(torch.randn(d, d))[0]
    noise = Q[:, : d // 2]                                                                   # (d, 6)

    def pairs(n):
        x = torch.randn(n, d)
        return x, x + 4 * torch.randn(n, d // 2) @ noise.mT + 0.1 * torch.randn(n, d)

    held_out, found = pairs(256), {}
    for metric in ("mahalanobis", "diagonal"):
        loss = LearningToMatch(d, eps=0.05, metric=metric, init="identity")
        optimizer = torch.optim.SGD(loss.parameters(), lr=0.3)
        for _ in range(200):
            x, y = pairs(batch)
            optimizer.zero_grad()
            loss({"a": x, "b": y})[0].backward()
            optimizer.step()
            loss.project_()
        found[metric] = retrieval(loss, *held_out)
        M = loss.M.detach()
        if metric == "mahalanobis":
            assert torch.linalg.eigvalsh(M)[0] > -1e-5 * M.norm()
            assert (noise.mT @ M @ noise).trace() < 1e-3 * M.trace()
    start = retrieval(LearningToMatch(d, init="identity"), *held_out)
    assert found["mahalanobis"] > 0.98 and found["diagonal"] < 0.2 and start < 0.2, (found, start)


@pytest.mark.parametrize("mass", [None, 0.8])
@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_what_is_kept_for_the_backward_does_not_grow_with_the_iterations(mass):
    def kept(max_iter):
        torch.manual_seed(0)
        x, y = (torch.nn.functional.normalize(torch.randn(24, 8), dim=-1).requires_grad_() for _ in range(2))
        loss, sizes = LearningToMatch(8, eps=0.02, mass=mass, max_iter=max_iter), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            loss({"audio": x, "text": y})
        return sum(sizes)

    assert kept(2) == kept(200) > 0
