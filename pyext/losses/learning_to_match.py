"""Minibatch learning to match with a learned metric, m-LTM (Luong et al., ICLR 2024)."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._checks import positive_number, whole_number
from .._linalg import no_autocast
from ..distributions import VonMisesFisher
from ..ops.learning_to_match import learning_to_match
from ..ops.mahalanobis_cost import mahalanobis_cost
from ..ops.psd_project import psd_project
from ._embeddings import Embeddings, Present, both_present, check_embeddings, index_pairs
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
        self.dim, self.eps = whole_number(name, "dim", dim, 1), positive_number(name, "eps", eps)
        self.metric, self.mass, self.scale = metric, mass, scale
        M = _initial(self.dim) if init == "paper" else torch.eye(self.dim)
        self.register_parameter("M", {"mahalanobis": nn.Parameter(M), "diagonal": nn.Parameter(M.diagonal().clone())}.get(metric))

    def forward(self, embeddings: Embeddings, present: Present = None, groups: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"matching": itself, detached}. Of a `VonMisesFisher` the mean direction is matched; a tensor is taken as it is.

        `present` maps a modality to a bool mask (batch,): pairs with an absent item leave the marginals; a pair of modalities without any
        counts 0. `groups`: whole numbers (batch,), equal for items that show the same: the matching spreads evenly within a group.
        """
        embeddings = check_embeddings(type(self).__name__, embeddings, present)
        points = [e.loc if isinstance(e, VonMisesFisher) else e for e in embeddings.values()]
        if points[0].shape[-1] != self.dim:
            raise ValueError(f"{type(self).__name__}: expected embeddings of dimension {self.dim}, got {points[0].shape[-1]}")
        check_groups(type(self).__name__, groups, len(points[0]))
        pairs = index_pairs(embeddings)
        losses = [self._match(points[i], points[j], both_present(embeddings, present, i, j), groups) for i, j in pairs]
        loss = torch.stack(losses).mean()
        return loss, {"matching": loss.detach()}

    def _match(self, x: Tensor, y: Tensor, mask: Tensor | None, groups: Tensor | None) -> Tensor:
        """x, y (n, d), mask and groups (n,)."""
        if mask is None:
            return self._loss(x, y, None, groups)
        x, y = (torch.where(mask[:, None], t, 0.0) for t in (x, y))
        any_present = mask.any()
        mask = mask | ~any_present  # no empty problem, which has no plan; its loss is dropped
        return torch.where(any_present, self._loss(x, y, mask, groups), 0.0)

    def _loss(self, x: Tensor, y: Tensor, mask: Tensor | None, groups: Tensor | None) -> Tensor:
        with no_autocast(x):
            x, y = (t if t.dtype == torch.float64 else t.float() for t in (x, y))
            cost = mahalanobis_cost(x, y, self.M)
            counted, target = cost, None
            if mask is not None:
                counted = torch.where(mask[:, None] & mask, cost, 0.0)
                target = (mask / mask.sum()).to(cost.dtype).diag()
            if groups is not None:
                here = (groups[:, None] == groups) if mask is None else (groups[:, None] == groups) & mask & mask[:, None]
                # Constant within a group, so that both marginals are those of the plain matching.
                share = 1 / len(cost) if mask is None else 1 / mask.sum()
                target = here.to(cost.dtype) * share / here.sum(1, keepdim=True).clamp(min=1)
            if self.scale is not None:
                largest = counted.max() if self.scale == "max" else counted.detach().max()
                cost = cost / largest.clamp(min=torch.finfo(cost.dtype).tiny)
            return learning_to_match(cost, target, eps=self.eps, mass=self.mass)

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
