"""The pairwise cross-modal contrastive loss, PCMC (Sánchez and Laguna, Cross-Modal Coordination Across a Diverse Set of Input Modalities,
eq. 1-5 and 8); CLIP's for two modalities."""

import math

import torch
from torch import Tensor, nn

from .._checks import positive_number
from .._linalg import no_autocast
from ._embeddings import Embeddings, Present, check_embeddings, index_pairs, points
from ._relation import check_duplicates, check_groups, relate, symmetric_cross_entropy


class Contrastive(nn.Module):
    r"""Symmetric cross-entropy of the cosines of every pair of modalities,

    .. math::
        \ell=-\frac1{2m}\sum_p\left[\log\frac{e^{S_{pp}/\tau}}{\sum_qe^{S_{pq}/\tau}}
        +\log\frac{e^{S_{pp}/\tau}}{\sum_qe^{S_{qp}/\tau}}\right],

    averaged over the unordered pairs of modalities (the paper prints sums over items and pairs).

    Args:
        temperature: :math:`\tau`, > 0.
        learnable: train :math:`\tau`, by the logarithm of its inverse; `project_` after a step keeps it at .01 or more, as in CLIP.
        duplicates: what items of one group are to each other: "ignore" leaves them out, "positive" counts them as right answers
            (the mean of the log-probabilities of all of them).

    A `VonMisesFisher` counts as its mean direction.
    """

    def __init__(self, temperature: float = 0.07, learnable: bool = False, *, duplicates: str = "ignore") -> None:
        super().__init__()
        self.duplicates = check_duplicates("Contrastive", duplicates)
        self.scale = 1 / positive_number("Contrastive", "temperature", temperature)
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.scale))) if learnable else None

    @property
    def temperature(self) -> float:
        return 1 / self.scale if self.log_scale is None else math.exp(-self.log_scale.item())

    @torch.no_grad()
    def project_(self) -> None:
        """Keep a learned temperature at .01 or more."""
        if self.log_scale is not None:
            self.log_scale.clamp_(max=math.log(100))

    def forward(self, embeddings: Embeddings, present: Present = None, groups: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"contrastive": itself, detached}.

        `present` maps a modality to a bool mask (batch,): an absent item leaves the rows or columns of its modality (eq. 8), and a pair of
        modalities with fewer than two common items counts as 0. `groups`: whole numbers (batch,), equal for items that show the same.
        """
        embeddings = check_embeddings("Contrastive", embeddings, present)
        z = points(embeddings)
        check_groups("Contrastive", groups, z.shape[1])
        with no_autocast(z):
            scale = self.scale if self.log_scale is None else self.log_scale.exp().to(z.dtype)
            scaled, z = (scale * z).unbind(), z.unbind()
            pairs = index_pairs(embeddings)
            relations = [relate(embeddings, present, groups, self.duplicates, i, j) for i, j in pairs]
            losses = [symmetric_cross_entropy(scaled[i] @ z[j].mT, r) for (i, j), r in zip(pairs, relations, strict=True)]
        loss = torch.stack(losses).mean()
        return loss, {"contrastive": loss.detach()}
