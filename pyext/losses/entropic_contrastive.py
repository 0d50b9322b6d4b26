"""The contrastive loss with entropic regularisation (Luong et al., m-LTM, ICLR 2024, eq. 14)."""

import torch
from torch import Tensor, nn

from .._checks import positive_number
from .._linalg import no_autocast
from ._embeddings import Embeddings, Present, check_embeddings, index_pairs, points
from ._relation import check_duplicates, check_groups, mean_over_items, relate, symmetric_cross_entropy


class EntropicContrastive(nn.Module):
    r""":math:`\ell+\epsilon\,L_{ent}`, with :math:`\ell` that of `Contrastive` and
    :math:`L_{ent}=\frac1{2m}\sum_{pq}R_{pq}\log R_{pq}+R'_{pq}\log R'_{pq}`, R and R' the softmax of the scaled cosines over rows and over
    columns (eq. 2): the negative entropy of the rankings, so that :math:`\epsilon>0` smooths them, as in entropic transport.

    The paper names :math:`L_{ent}(R)` without writing it down; this is the reading in which its sign agrees with its purpose.

    Args:
        eps: :math:`\epsilon`; the paper tries .05, .1 and .5.
        temperature: > 0.
        duplicates: as in `Contrastive`.
    """

    def __init__(self, eps: float, temperature: float = 0.07, *, duplicates: str = "ignore") -> None:
        super().__init__()
        self.eps, self.temperature = eps, positive_number("EntropicContrastive", "temperature", temperature)
        self.duplicates = check_duplicates("EntropicContrastive", duplicates)

    def forward(self, embeddings: Embeddings, present: Present = None, groups: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"contrastive": the first term, "entropy": mean entropy of the rankings in nats}, detached. `present` and `groups`
        as in `Contrastive`."""
        embeddings = check_embeddings("EntropicContrastive", embeddings, present)
        z = points(embeddings)
        check_groups("EntropicContrastive", groups, z.shape[1])
        contrastive, entropy = [], []
        with no_autocast(z):
            for i, j in index_pairs(embeddings):
                relation = relate(embeddings, present, groups, self.duplicates, i, j)
                logits = z[i] @ z[j].mT / self.temperature
                contrastive.append(symmetric_cross_entropy(logits, relation))
                each = 0.5 * (_entropy(logits, relation.keep, 1) + _entropy(logits, relation.keep, 0))
                entropy.append(mean_over_items(each, relation))
        first, second = torch.stack(contrastive).mean(), torch.stack(entropy).mean()
        return first - self.eps * second, {"contrastive": first.detach(), "entropy": second.detach()}


def _entropy(logits: Tensor, keep: Tensor | None, dim: int) -> Tensor:
    """Of the softmax along a dimension of (batch, batch), over the kept entries."""
    if keep is not None:
        logits = logits.masked_fill(~keep, -torch.inf)
    log_r = logits.log_softmax(dim)
    log_r = log_r if keep is None else log_r.masked_fill(~keep, 0.0)                         # whose probability is 0
    probability = logits.softmax(dim)
    return -(probability * log_r).sum(dim)
