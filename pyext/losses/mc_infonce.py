"""Monte-Carlo InfoNCE between distributions (Kirchhof et al., Probabilistic contrastive learning recovers the correct aleatoric uncertainty
of ambiguous inputs, ICML 2023), and as Nakatsuka et al. (ISMIR 2024, eq. 1) print it."""

import math

import torch
from torch import Tensor, nn

from .._checks import positive_number, whole_number
from .._linalg import no_autocast
from ._embeddings import Embeddings, Present, check_embeddings, draw, index_pairs
from ._relation import Relation, check_duplicates, check_groups, mean_over_items, of_positives, relate

FORMS = ("kirchhof2023", "ismir2024")


class MCInfoNCE(nn.Module):
    r"""InfoNCE over draws, those of number l together: with
    :math:`\ell_l=\log\frac{e^{s^l_{pp}/\tau}}{e^{s^l_{pp}/\tau}+\frac1{m-1}\sum_{q\ne p}e^{s^l_{pq}/\tau}}` the loss of item p is

    .. math:: -\log\frac1L\sum_le^{\ell_l}\quad\text{("kirchhof2023")},\qquad-\frac1L\sum_l\ell_l\quad\text{("ismir2024")},

    averaged over items and ordered pairs of modalities. The form "ismir2024" takes the logarithm inside, as its eq. 1 does (there with
    sums in place of the means over l and over negatives; the sum over negatives is kept).

    Args:
        temperature: :math:`\tau`; its inverse is Kirchhof's :math:`\kappa_{pos}`.
        n_samples: L, draws from each distribution.
        form: "kirchhof2023" or "ismir2024".
        duplicates: as in `Contrastive`.
    """

    def __init__(
        self, temperature: float = 0.07, n_samples: int = 16, *, form: str = "kirchhof2023", duplicates: str = "ignore"
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"MCInfoNCE: form: expected one of {FORMS}, got {form!r}")
        self.temperature, self.form = positive_number("MCInfoNCE", "temperature", temperature), form
        self.n_samples = whole_number("MCInfoNCE", "n_samples", n_samples, 1)
        self.duplicates = check_duplicates("MCInfoNCE", duplicates)

    def forward(
        self, embeddings: Embeddings, present: Present = None, groups: Tensor | None = None, *, seed: int | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"mc_infonce": itself, detached}. `present` and `groups` as in `Contrastive`, `seed` as in
        `ProbabilisticContrastive`."""
        embeddings = check_embeddings("MCInfoNCE", embeddings, present)
        z = draw(embeddings, self.n_samples, seed).transpose(1, 2)                           # (S, L, batch, d)
        check_groups("MCInfoNCE", groups, z.shape[2])
        losses = []
        with no_autocast(z):
            for i, j in index_pairs(embeddings):
                relation = relate(embeddings, present, groups, self.duplicates, i, j)
                logits = z[i] @ z[j].mT / self.temperature                                   # (L, batch, batch)
                wrong = ~torch.eye(logits.shape[-1], dtype=torch.bool, device=z.device)
                wrong = wrong if relation.keep is None else wrong & relation.keep
                wrong = wrong if relation.positive is None else wrong & ~relation.positive
                each = self._rows(logits, wrong, relation) + self._rows(logits.mT, wrong.mT, relation)
                losses.append(mean_over_items(0.5 * each, relation))
        loss = torch.stack(losses).mean()
        return loss, {"mc_infonce": loss.detach()}

    def _rows(self, logits: Tensor, wrong: Tensor, relation: Relation) -> Tensor:
        """(batch,) from (L, batch, batch); 0 for a row without a wrong answer."""
        least = torch.finfo(logits.dtype).min  # finite: a row without a wrong answer has its gradient too
        against = logits.masked_fill(~wrong, least).logsumexp(-1)                            # (L, batch)
        if self.form == "kirchhof2023":
            against = against - wrong.sum(-1).clamp(min=1).to(logits.dtype).log()
        against = torch.where(wrong.any(-1), against, least)
        log_share = logits - torch.logaddexp(logits, against[..., None])                     # (L, batch, batch), one column an answer
        if self.form == "ismir2024":
            return -of_positives(log_share.mean(0), relation)
        return -of_positives(log_share.logsumexp(0) - math.log(len(logits)), relation)
