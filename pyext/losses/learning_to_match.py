"""Minibatch learning to match with a learned metric, m-LTM (Luong et al., ICLR 2024)."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._checks import positive_number, whole_number
from .._linalg import no_autocast
from ..distributions import VonMisesFisher
from ..ops.learning_to_match import learning_to_match
from ..ops.learning_to_match_sharded import learning_to_match_sharded
from ..ops.mahalanobis_cost import mahalanobis_cost
from ..ops.psd_project import psd_project
from ._embeddings import Embeddings, Present, at_least_float32, both_present, check_embeddings, index_pairs
from ._ranks import largest_of_all, shared
from ._relation import check_groups


class LearningToMatch(nn.Module):
    r"""KL of the true matching I/n to the entropic plan of the costs :math:`C_{ij}=\sqrt{(x_i-y_j)^\top M(x_i-y_j)}`, M learned; the mean
    over the unordered pairs of modalities, one M for all.

    After each step of the optimiser call `project_()`, which puts M back on the positive cone: where M is not positive a cost is 0 and has
    no gradient. Let plain SGD step M: the nearest matrix of the cone goes with the gradient; steps that Adam scales entry by entry stall
    before they find a planted metric (tests/test_learning_to_match_loss.py). Or parametrise M by `PositiveSemidefinite`, and there is
    nothing to project.

    Args:
        dim: d of the embeddings.
        eps: entropic regularisation, in the unit of the scaled cost; the paper has .05, its released settings .03.
        metric: "mahalanobis", M (d, d); "diagonal", what the released code computes, M (d,); "euclidean", nothing to learn.
        mass: None for the balanced plan, or the fraction in (0, 1] that a partial plan transports, against noisy pairs. The loss is then at
            least -log mass.
        scale: "max" divides the costs of a pair of modalities by the largest, which gets a gradient, all of it on one entry; "detached max"
            holds it constant; None leaves the costs in the unit of the embeddings.
        init: "paper", (A + A')/2 + I with A uniform on [0, 1], projected: at d = 1024 45 percent of its eigenvalues are negative before.
            One eigenvalue, d/2 + 1 along the vector of ones, outweighs all others. "identity" starts from the Euclidean distance.
        duplicates: what items of one group are to each other: "positive" spreads the matching evenly within the group. There is no other
            choice: a plan cannot leave an entry out without moving its mass elsewhere.
        sharded: with `rows`, in torch.distributed, each process makes its rows of the costs alone, against all columns, and all solve the
            problem together (`learning_to_match_sharded`); balanced only. False: each solves the whole problem.
        tol, max_iter: as in `sinkhorn`. On GPUs the sharded problem takes all `max_iter` iterations, since nothing is read back.
    """

    def __init__(
        self,
        dim: int,
        eps: float = 0.05,
        metric: str = "mahalanobis",
        mass: float | None = None,
        scale: str | None = "max",
        init: str = "paper",
        *,
        duplicates: str = "positive",
        sharded: bool = False,
        tol: float = 1e-6,
        max_iter: int = 1000,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        for argument, value, allowed in (
            ("metric", metric, ("mahalanobis", "diagonal", "euclidean")),
            ("scale", scale, ("max", "detached max", None)),
            ("init", init, ("paper", "identity")),
            ("duplicates", duplicates, ("positive",)),
        ):
            if value not in allowed:
                raise ValueError(f"{name}: {argument}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")
        if mass is not None and not 0 < mass <= 1:
            raise ValueError(f"{name}: mass: expected None or a fraction in (0, 1], got {mass!r}")
        if not tol >= 0:
            raise ValueError(f"{name}: tol: expected a number >= 0, got {tol!r}")
        if sharded and mass is not None:
            raise ValueError(f"{name}: mass: expected None with sharded, which has the balanced plan alone, got {mass!r}")
        self.dim, self.eps = whole_number(name, "dim", dim, 1), positive_number(name, "eps", eps)
        self.metric, self.mass, self.scale = metric, mass, scale
        self.sharded, self.tol, self.max_iter = sharded, tol, whole_number(name, "max_iter", max_iter, 1)
        M = _initial(self.dim) if init == "paper" else torch.eye(self.dim)
        self.register_parameter("M", {"mahalanobis": nn.Parameter(M), "diagonal": nn.Parameter(M.diagonal().clone())}.get(metric))

    def forward(
        self, embeddings: Embeddings, present: Present = None, groups: Tensor | None = None, *, rows: slice | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"matching": itself, detached}. Of a `VonMisesFisher` the mean direction is matched; a tensor is taken as it is.

        `present` maps a modality to a bool mask (batch,): pairs with an absent item leave the marginals; a pair of modalities without any
        counts 0. `groups`: whole numbers (batch,), equal for items that show the same: the matching spreads evenly within a group. `rows`:
        with `sharded`, where every process has the whole batch, the items that are this one's, the batch's in the order of the ranks; the
        value is that of all, and so is the gradient of its items and, on every process, of M.
        """
        embeddings = check_embeddings(type(self).__name__, embeddings, present)
        points = [at_least_float32(e.loc if isinstance(e, VonMisesFisher) else e) for e in embeddings.values()]
        if points[0].shape[-1] != self.dim:
            raise ValueError(f"{type(self).__name__}: expected embeddings of dimension {self.dim}, got {points[0].shape[-1]}")
        check_groups(type(self).__name__, groups, len(points[0]))
        columns, M, own = points, self.M, slice(None)
        if self.sharded and rows is not None:
            *columns, M = shared(*points, self.M)
            own = rows
        pairs = index_pairs(embeddings)
        losses = [self._match(points[i], columns[j], M, both_present(embeddings, present, i, j), groups, own) for i, j in pairs]
        loss = torch.stack(losses).mean()
        return loss, {"matching": loss.detach()}

    def _match(self, x: Tensor, y: Tensor, M: Tensor | None, mask: Tensor | None, groups: Tensor | None, own: slice) -> Tensor:
        """x, y (n, d), mask and groups (n,); own: the rows of the costs that are made here, all but where they are spread."""
        if mask is None:
            return self._loss(x, y, M, None, groups, own)
        x, y = (torch.where(mask[:, None], t, 0.0) for t in (x, y))
        any_present = mask.any()
        mask = mask | ~any_present  # no empty problem, which has no plan; its loss is dropped
        return torch.where(any_present, self._loss(x, y, M, mask, groups, own), 0.0)

    def _loss(self, x: Tensor, y: Tensor, M: Tensor | None, mask: Tensor | None, groups: Tensor | None, own: slice) -> Tensor:
        with no_autocast(x):
            cost = mahalanobis_cost(x[own], y, M)                                            # (rows, n)
            spread, counted, target = own != slice(None), cost, None
            if mask is not None:
                counted = torch.where(mask[own, None] & mask, cost, 0.0)
            if mask is not None or groups is not None:
                kind = torch.arange(len(y), device=y.device) if groups is None else groups
                here = kind[own, None] == kind
                here = here if mask is None else here & mask & mask[own, None]
                count = len(y) if mask is None else mask.sum().to(cost.dtype)
                # Constant within a group, so that both marginals are those of the plain matching.
                target = here.to(cost.dtype) / count / here.sum(1, keepdim=True).clamp(min=1)
            if self.scale is not None:
                entries = counted if self.scale == "max" else counted.detach()
                largest = largest_of_all(entries) if spread else entries.max()
                cost = cost / largest.clamp(min=torch.finfo(cost.dtype).tiny)
            options = {"eps": self.eps, "tol": self.tol, "max_iter": self.max_iter}
            if spread:
                return learning_to_match_sharded(cost, target, **options)
            return learning_to_match(cost, target, mass=self.mass, **options)

    @torch.no_grad()
    def project_(self) -> None:
        """Put M on the positive cone, in place: the nearest such matrix. Nothing to do where M is parametrised or there is none."""
        if self.M is None or parametrize.is_parametrized(self, "M"):
            return
        self.M.copy_(self.M.clamp(min=0) if self.M.dim() == 1 else psd_project(self.M))

    @torch.no_grad()
    def eigenvalue_range(self) -> Tensor:
        """The least and the largest eigenvalue of M, (2,), for the logs of a training; takes an eigendecomposition, and a sync."""
        if self.M is None:
            return torch.ones(2)
        M = self.M.double()
        values = M if M.dim() == 1 else torch.linalg.eigvalsh(0.5 * (M + M.mT))
        return torch.stack(values.aminmax())


def _initial(dim: int) -> Tensor:
    A = torch.rand(dim, dim)
    return psd_project(0.5 * (A + A.mT) + torch.eye(dim))
