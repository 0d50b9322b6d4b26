"""The triplet loss with the hardest negatives of the batch (Faghri et al., VSE++, 2018)."""

import torch
from torch import Tensor, nn

from .._linalg import no_autocast
from ._embeddings import Embeddings, Present, check_embeddings, index_pairs, points
from ._relation import check_duplicates, check_groups, mean_over_items, of_positives, relate


class Triplet(nn.Module):
    r"""Hinge between the right answer and the best wrong one,

    .. math:: \ell=\frac1{2m}\sum_p\left[\alpha-S_{pp}+\max_{q\ne p}S_{pq}\right]_++\left[\alpha-S_{pp}+\max_{q\ne p}S_{qp}\right]_+,

    averaged over the unordered pairs of modalities.

    Args:
        margin: :math:`\alpha` >= 0.
        hardest: False averages the hinge over all wrong answers instead of taking the hardest.
        duplicates: as in `Contrastive`; with "positive" the right answers' mean cosine takes the place of :math:`S_{pp}`.

    A `VonMisesFisher` counts as its mean direction.
    """

    def __init__(self, margin: float = 0.2, hardest: bool = True, *, duplicates: str = "ignore") -> None:
        super().__init__()
        if not margin >= 0:
            raise ValueError(f"Triplet: margin: expected a number >= 0, got {margin!r}")
        self.margin, self.hardest, self.duplicates = margin, hardest, check_duplicates("Triplet", duplicates)

    def forward(self, embeddings: Embeddings, present: Present = None, groups: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"triplet": itself, detached}. `present` and `groups` as in `Contrastive`."""
        embeddings = check_embeddings("Triplet", embeddings, present)
        z = points(embeddings)
        check_groups("Triplet", groups, z.shape[1])
        with no_autocast(z):
            losses = []
            for i, j in index_pairs(embeddings):
                relation = relate(embeddings, present, groups, self.duplicates, i, j)
                cosine = z[i] @ z[j].mT
                wrong = ~torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
                wrong = wrong if relation.keep is None else wrong & relation.keep
                wrong = wrong if relation.positive is None else wrong & ~relation.positive
                each = [self._hinge(c, of_positives(c, relation), w) for c, w in ((cosine, wrong), (cosine.mT, wrong.mT))]
                losses.append(mean_over_items(0.5 * (each[0] + each[1]), relation))
        loss = torch.stack(losses).mean()
        return loss, {"triplet": loss.detach()}

    def _hinge(self, cosine: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
        """(batch,) from cosines (batch, batch); 0 for a row without a wrong answer."""
        if self.hardest:
            return (self.margin - right + cosine.masked_fill(~wrong, -torch.inf).amax(1)).relu()
        hinge = (self.margin - right[:, None] + cosine).relu()
        return torch.where(wrong, hinge, 0.0).sum(1) / wrong.sum(1).clamp(min=1)
