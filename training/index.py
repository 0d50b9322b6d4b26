"""The nearest points of a gallery: exactly by torch, or by FAISS where it is installed and was measured to be faster; or by a graph.

Both kinds of exact search give the same answers: whatever finds the candidates, they are scored anew in float64 and sorted by that, equal
scores by place. docs/retrieval.md has the figures behind the constants.
"""

from __future__ import annotations

import importlib.util

import torch

from .errors import UserError

FAISS_FROM = 100_000  # points: there one batch of 1,000 queries saves what importing FAISS takes
FEW, MANY = 4, 256  # queries up to and from which FAISS is faster there; in between torch's product is
SPARE = 16  # candidates beyond the asked ones, so that rounding does not decide which come back
LINKS, BUILD, LOOK = 32, 80, 128  # HNSW: neighbours a point, and how many are looked at while building and while searching
_CHUNK = 1 << 25  # scores in memory at a time


class Index:
    """Points (N, d) to be searched by cosine, or by the distance of a Mahalanobis metric.

    points: finite, unit vectors where metric is None. metric: M (d, d), symmetric, or its diagonal (d,). approximate: by an HNSW graph of
    FAISS, which takes seconds to build per ten thousand points and may miss some answers; for programs that ask thousands of times.
    Raises UserError for no points, other shapes, values that are not finite, and an approximate index without FAISS.
    """

    def __init__(self, points: torch.Tensor, metric: torch.Tensor | None = None, *, approximate: bool = False) -> None:
        if points.ndim != 2 or not points.numel() or not torch.isfinite(points).all():
            raise UserError(f"index: expected finite points (N, d), N >= 1, got shape {tuple(points.shape)}")
        if approximate and not has_faiss():
            raise UserError("index: an approximate search takes faiss-cpu; pip install faiss-cpu, or search exactly")
        self.root = None if metric is None else _root(metric.detach().cpu().double()).float()  # (d, d): |x - y|_M = |(x - y) root|
        self.points = self._map(points)  # (N, d)
        self.half = None if metric is None else self.points.square().sum(1) / 2  # (N,)
        self.graph = self._build() if approximate else None

    def __len__(self) -> int:
        return len(self.points)

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The min(k, N) best of every query: scores float32 and places int64, each (Q, k), best first. A distance comes with a minus.

        queries: (Q, d), finite. Raises UserError for other shapes, values that are not finite, and k < 1.
        """
        if queries.ndim != 2 or queries.shape[1] != self.points.shape[1] or not torch.isfinite(queries).all():
            raise UserError(f"index: expected finite queries (Q, {self.points.shape[1]}), got shape {tuple(queries.shape)}")
        if k < 1:
            raise UserError(f"index: expected one answer or more to be asked for, got {k}")
        if not len(queries):
            return torch.zeros(0, min(k, len(self))), torch.zeros(0, min(k, len(self)), dtype=torch.long)
        x = self._map(queries)
        most = min(k + SPARE, len(self))
        if self.graph is not None:
            places = self._from_graph(x, most)
        elif len(self) >= FAISS_FROM and not FEW < len(x) < MANY and has_faiss():
            places = self._by_faiss(x, most)
        else:
            places = self._by_torch(x, most)
        return self._sorted(x, places, min(k, len(self)))

    def _map(self, x: torch.Tensor) -> torch.Tensor:
        x = x.detach().cpu().float()
        return (x if self.root is None else x @ self.root).contiguous()

    def _by_torch(self, x: torch.Tensor, most: int) -> torch.Tensor:
        found = []
        for part in x.split(max(1, _CHUNK // len(self))):
            scores = part @ self.points.T  # (q, N)
            found.append((scores if self.half is None else scores - self.half).topk(most, dim=1).indices)
        return torch.cat(found)

    def _by_faiss(self, x: torch.Tensor, most: int) -> torch.Tensor:
        import faiss

        # On the points where they lie: an IndexFlatIP would first copy them, which costs several searches.
        metric = faiss.METRIC_INNER_PRODUCT if self.half is None else faiss.METRIC_L2
        return torch.from_numpy(faiss.knn(x.numpy(), self.points.numpy(), most, metric=metric)[1])

    def _build(self) -> object:
        import faiss

        graph = faiss.IndexHNSWFlat(self.points.shape[1], LINKS, faiss.METRIC_L2)  # of unit vectors the same order as by cosine
        graph.hnsw.efConstruction = BUILD
        graph.add(self.points.numpy())
        return graph

    def _from_graph(self, x: torch.Tensor, most: int) -> torch.Tensor:
        self.graph.hnsw.efSearch = max(LOOK, 2 * most)
        return torch.from_numpy(self.graph.search(x.numpy(), most)[1])

    def _sorted(self, x: torch.Tensor, places: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        missing = places < 0  # (Q, most): a graph may find fewer
        places = places.clamp(min=0).sort(dim=1)
        missing, places = missing.gather(1, places.indices), places.values
        y = self.points[places].double()  # (Q, most, d)
        x = x.double()[:, None]
        scores = (y * x).sum(-1) if self.half is None else -(y - x).norm(dim=-1)  # (Q, most)
        order = scores.masked_fill(missing, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :k]
        return scores.gather(1, order).float(), places.gather(1, order)


def has_faiss() -> bool:
    """Whether faiss-cpu is installed; not imported before it is needed, which takes .2 s."""
    return importlib.util.find_spec("faiss") is not None


def _root(M: torch.Tensor) -> torch.Tensor:
    """R (d, d) with R R' = M on the positive cone, of a symmetric matrix (d, d) or a diagonal (d,)."""
    if M.ndim == 1:
        return M.clamp(min=0).sqrt().diag()
    values, vectors = torch.linalg.eigh((M + M.T) / 2)
    return vectors * values.clamp(min=0).sqrt()
