"""Minibatch learning to match, m-LTM (Luong et al., ICLR 2024, eq. 6-13)."""

import torch
from torch import Tensor, nn

from ..ops.learning_to_match import learning_to_match
from ..ops.mahalanobis_cost import mahalanobis_cost
from ..ops.psd_project import psd_project
from ._embeddings import Embeddings, Present, check_embeddings, index_pairs, points
from ._relation import Relation, check_duplicates, check_groups, relate

METRICS = ("mahalanobis", "diagonal", "euclidean")
SCALES = ("max", "detached", "none")


class LearningToMatch(nn.Module):
    r""":math:`KL(\hat\pi\,\|\,\pi)` between the matching of a batch, :math:`\hat\pi=I/m`, and the entropic plan :math:`\pi` of the cost
    :math:`c_{ij}=\sqrt{(x_i-y_j)^\top M(x_i-y_j)}`, averaged over the unordered pairs of modalities.

    Args:
        dim: d of the embeddings.
        eps: the plan's regularisation, in units of the scaled cost.
        metric: "mahalanobis" learns M (d, d), "diagonal" its diagonal, "euclidean" nothing. The authors' code is "diagonal", whatever the
            paper says: its einsum reads no other entry.
        mass: None, or the part of the mass in (0, 1] that a partial plan moves (eq. 12), for batches of which some pairs are wrong.
        scale: the cost is divided by its largest entry: "max" differentiates through it, as the paper's code does, which puts a gradient on
            that one entry; "detached" takes it as a constant; "none" leaves the cost as it is.
        init: M at first: "paper" is :math:`(A+A^\top)/2+I` with A uniform on [0, 1), projected, as it has large negative eigenvalues;
            "identity" starts from the Euclidean distance.
        tol, max_iter: of `sinkhorn`.
        duplicates: what items of one group are to each other: "positive" spreads :math:`\hat\pi` evenly over a group, "ignore" is refused:
            a plan has no entry to leave out without moving its mass elsewhere.

    Call `project_` after each optimiser step: the hybrid step, a gradient step on everything and the projection of M to the positive cone.
    A `VonMisesFisher` counts as its mean direction. `cost` and `plan` (transductive: a score depends on the other queries) rank answers.
    """

    def __init__(
        self,
        dim: int,
        eps: float = 0.05,
        metric: str = "mahalanobis",
        mass: float | None = None,
        scale: str = "max",
        *,
        init: str = "paper",
        tol: float = 1e-5,
        max_iter: int = 1000,
        duplicates: str = "positive",
    ) -> None:
        super().__init__()
        name = "LearningToMatch"
        if not eps > 0:
            raise ValueError(f"{name}: eps: expected a number > 0, got {eps!r}")
        if mass is not None and not 0 < mass <= 1:
            raise ValueError(f"{name}: mass: expected None or a number in (0, 1], got {mass!r}")
        for key, value, known in (("metric", metric, METRICS), ("scale", scale, SCALES), ("init", init, ("paper", "identity"))):
            if value not in known:
                raise ValueError(f"{name}: {key}: expected one of {known}, got {value!r}")
        if check_duplicates(name, duplicates) == "ignore":
            raise ValueError(f"{name}: duplicates: expected 'positive': a plan cannot leave entries out, got 'ignore'")
        self.eps, self.metric, self.mass, self.scale = eps, metric, mass, scale
        self.tol, self.max_iter, self.duplicates = tol, max_iter, duplicates
        self.M = None if metric == "euclidean" else nn.Parameter(_first(dim, metric, init))

    @torch.no_grad()
    def project_(self) -> None:
        """Put the nearest positive semidefinite matrix in the place of M."""
        if self.metric == "mahalanobis":
            self.M.copy_(psd_project(self.M))
        elif self.metric == "diagonal":
            self.M.clamp_(min=0)

    def cost(self, x: Tensor, y: Tensor, there: Tensor | None = None) -> Tensor:
        """Scaled costs (n, m) between points x (n, d) and y (m, d); 0 where `there` (n, m) is false."""
        cost = mahalanobis_cost(x, y, None if self.M is None else self.M.to(x.dtype))
        if there is not None:
            cost = torch.where(there, cost, 0.0)
        if self.scale == "none":
            return cost
        largest = cost.amax() if self.scale == "max" else cost.detach().amax()
        return cost / torch.where(largest > 0, largest, 1.0)

    def forward(self, embeddings: Embeddings, present: Present = None, groups: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"learning_to_match": itself, detached}.

        `present` maps a modality to a bool mask (batch,): an item that lacks one of a pair has no mass there; fewer than two common items
        count as 0. `groups`: whole numbers (batch,), equal for items that show the same.
        """
        check_embeddings("LearningToMatch", embeddings, present)
        z = points(embeddings)
        check_groups("LearningToMatch", groups, z.shape[1])
        with torch.autocast(z.device.type, enabled=False):
            losses = []
            for i, j in index_pairs(embeddings):
                relation = relate(embeddings, present, groups, self.duplicates, i, j)
                losses.append(self._pair(z[i], z[j], relation))
        loss = torch.stack(losses).mean()
        return loss, {"learning_to_match": loss.detach()}

    def _pair(self, x: Tensor, y: Tensor, relation: Relation) -> Tensor:
        options = dict(eps=self.eps, mass=self.mass, tol=self.tol, max_iter=self.max_iter)
        if relation.positive is None and relation.items is None:
            return learning_to_match(self.cost(x, y), **options)
        m, device = len(x), x.device
        items = torch.ones(m, dtype=torch.bool, device=device) if relation.items is None else relation.items
        there, count = items & items[:, None], items.sum()
        # Where nothing is there any target will do, since its loss does not count.
        own = torch.eye(m, dtype=torch.bool, device=device)
        right = (own if relation.positive is None else relation.positive) & there | (own & (count == 0))
        # Constant within a group, so its two marginals are equal.
        target = right / right.sum(1, keepdim=True).clamp(min=1) / count.clamp(min=1)
        return learning_to_match(self.cost(x, y, there), target.to(x.dtype), **options) * (count >= 2)


def _first(dim: int, metric: str, init: str) -> Tensor:
    if init == "identity":
        return torch.ones(dim) if metric == "diagonal" else torch.eye(dim)
    A = torch.rand(dim, dim)
    M = psd_project(0.5 * (A + A.mT) + torch.eye(dim))
    return M.diagonal().clone() if metric == "diagonal" else M
