"""The nearest points: torch, FAISS and the graph against a loop, ties, metrics and refusals."""

import faiss
import pytest
import torch
from torch.nn.functional import normalize

from transphere.training import index
from transphere.training.errors import UserError
from transphere.training.index import Index

pytestmark = pytest.mark.usefixtures("one_thread")


def points(n, d=12, seed=0):
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def brute(x, y, k, metric=None):
    """(places, scores) of the k best of each query by float64 loops."""
    results = []
    for q in x.double():
        scores = [float(q @ p) if metric is None else -float((q - p) @ metric @ (q - p)) ** 0.5 for p in y.double()]
        best = sorted(range(len(y)), key=lambda j: (-scores[j], j))[:k]
        results.append((best, [scores[j] for j in best]))
    return results


@pytest.mark.parametrize("queries", [1, 3, 7])
@pytest.mark.parametrize("by", ["torch", "faiss", "graph"])
@pytest.mark.parametrize("learned", [None, "full", "diagonal"])
def test_against_a_loop(queries, by, learned, monkeypatch):
    monkeypatch.setattr(index, "FAISS_FROM", 1 if by == "faiss" else 10**9)
    monkeypatch.setattr(index, "FEW", 100)
    called = []
    monkeypatch.setattr(faiss, "knn", lambda *a, knn=faiss.knn, **k: called.append(1) or knn(*a, **k))
    g = torch.Generator().manual_seed(3)
    A = torch.randn(12, 12, generator=g)
    metric = {None: None, "full": A @ A.T, "diagonal": torch.rand(12, generator=g)}[learned]
    full = None if metric is None else (metric if metric.ndim == 2 else metric.diag()).double()
    gallery, asked = points(200), points(queries, seed=1)
    made = Index(gallery, metric, approximate=by == "graph")
    scores, places = made.search(asked, 5)
    assert bool(called) == (by == "faiss") and len(made) == 200
    for row, (best, expected) in enumerate(brute(asked, gallery, 5, full)):
        assert places[row].tolist() == best
        assert scores[row].tolist() == pytest.approx(expected, abs=2e-6, rel=1e-5)


def test_faiss_is_used_where_it_was_faster(monkeypatch):
    used = []
    monkeypatch.setattr(Index, "_by_faiss", lambda self, x, most: used.append(len(x)) or self._by_torch(x, most))
    monkeypatch.setattr(index, "FAISS_FROM", 50)
    for queries in (1, index.FEW, index.FEW + 1, index.MANY - 1, index.MANY):
        Index(points(50)).search(points(queries), 2)
    Index(points(49)).search(points(1), 2)
    assert used == [1, index.FEW, index.MANY]
    monkeypatch.setattr(index, "has_faiss", lambda: False)
    Index(points(50)).search(points(1), 2)
    assert len(used) == 3


def test_equal_scores_come_in_the_order_of_their_places():
    gallery = points(4)[[2, 0, 1, 0, 3, 0]]
    for more in (1, 2, 3):
        assert Index(gallery).search(points(4)[:1], more)[1].tolist() == [[1, 3, 5][:more]]


def test_more_than_there_are():
    scores, places = Index(points(3)).search(points(2, seed=1), 10)
    assert scores.shape == places.shape == (2, 3) and sorted(places[0].tolist()) == [0, 1, 2]
    assert Index(points(3)).search(points(0), 2)[1].shape == (0, 2)
    assert (Index(points(1)).search(points(1), 1)[0] - 1).abs() < 1e-6


def test_refusals(monkeypatch):
    for bad in (torch.zeros(0, 3), torch.zeros(3), torch.tensor([[float("nan"), 1.0]])):
        with pytest.raises(UserError, match="index: expected finite points"):
            Index(bad)
    made = Index(points(3))
    for bad in (points(1, d=5), torch.full((1, 12), torch.inf), points(1)[0]):
        with pytest.raises(UserError, match=r"index: expected finite queries \(Q, 12\)"):
            made.search(bad, 1)
    with pytest.raises(UserError, match="one answer or more"):
        made.search(points(1), 0)
    monkeypatch.setattr(index, "has_faiss", lambda: False)
    with pytest.raises(UserError, match="pip install faiss-cpu"):
        Index(points(3), approximate=True)
