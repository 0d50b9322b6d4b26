"""The pairwise cross-modal regression loss, PCMR (Sánchez and Laguna, Cross-Modal Coordination Across a Diverse Set of Input Modalities,
eq. 6, 7 and 9)."""

import torch
from torch import Tensor, nn

from .._linalg import no_autocast
from ._embeddings import Embeddings, Present, check_embeddings, index_pairs, points
from ._relation import check_duplicates, check_groups, relate

FORMS = ("paper", "elementwise")


class Regression(nn.Module):
    r"""The cosines of matching items are drawn to 1, all others to 0:

    .. math::
        \ell=\|H\odot(S-T)\|_F^{2+\rho}\quad\text{("paper")},\qquad
        \ell=\sum_{pq}H_{pq}|S_{pq}-T_{pq}|^{2+\rho}\quad\text{("elementwise")},

    averaged over the unordered pairs of modalities. :math:`T_{pq}=1` where items p and q are closer than `threshold` in any modality that
    both have, and on the diagonal; H masks what is absent. The paper prints the power on the whole norm and gives as its purpose the
    balance of few matches against many others, which only the elementwise form does; at :math:`\rho=0` both are one. Neither divides by
    the size of the batch.

    Args:
        rho: :math:`\rho\ge0`.
        threshold: cosine above which items of one modality are the same.
        form: "paper" or "elementwise".
        duplicates: what items of one group are to each other, beyond T: "ignore" takes them out of H, "positive" has :math:`T_{pq}=1`.

    A `VonMisesFisher` counts as its mean direction.
    """

    def __init__(self, rho: float = 1.0, threshold: float = 0.99, *, form: str = "paper", duplicates: str = "ignore") -> None:
        super().__init__()
        if not rho >= 0:
            raise ValueError(f"Regression: rho: expected a number >= 0, got {rho!r}")
        if form not in FORMS:
            raise ValueError(f"Regression: form: expected one of {FORMS}, got {form!r}")
        self.rho, self.threshold, self.form = rho, threshold, form
        self.duplicates = check_duplicates("Regression", duplicates)

    def forward(self, embeddings: Embeddings, present: Present = None, groups: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"regression": itself, detached}. `present` and `groups` as in `Contrastive`."""
        embeddings = check_embeddings("Regression", embeddings, present)
        z = points(embeddings)
        check_groups("Regression", groups, z.shape[1])
        with no_autocast(z):
            alike = self._alike(z.detach(), embeddings, present)
            losses = []
            for i, j in index_pairs(embeddings):
                relation = relate(embeddings, present, groups, self.duplicates, i, j)
                target = alike if relation.positive is None else alike | relation.positive
                difference = z[i] @ z[j].mT - target.to(z.dtype)
                if relation.keep is not None:
                    keep = relation.keep if relation.items is None else relation.keep & _present_or_off_diagonal(relation.items)
                    difference = torch.where(keep, difference, 0.0)
                losses.append(self._power(difference))
        loss = torch.stack(losses).mean()
        return loss, {"regression": loss.detach()}

    def _alike(self, z: Tensor, embeddings: Embeddings, present: Present) -> Tensor:
        """T of equation 7, (batch, batch) bool."""
        alike = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
        for name, x in zip(embeddings, z, strict=True):
            close = x @ x.mT > self.threshold
            mask = (present or {}).get(name)
            alike = alike | (close if mask is None else close & mask & mask[:, None])
        return alike

    def _power(self, difference: Tensor) -> Tensor:
        if self.form == "elementwise":
            return difference.abs().pow(2 + self.rho).sum()
        return difference.square().sum().pow(1 + self.rho / 2)


def _present_or_off_diagonal(items: Tensor) -> Tensor:
    """A relation keeps its whole diagonal; here an absent item leaves that too."""
    return items[:, None] | ~torch.eye(len(items), dtype=torch.bool, device=items.device)
