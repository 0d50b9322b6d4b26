"""The multimodal probabilistic contrastive loss L_C (Nakatsuka et al., ISMIR 2024, eq. 10 and 11)."""

import torch
from torch import Tensor, nn

from .._checks import positive_number, whole_number
from .._linalg import no_autocast
from ..ops.vmf_sample import vmf_sample
from ._embeddings import Embeddings, Present, Sampler, check_embeddings, draw, index_pairs
from ._relation import check_duplicates, check_groups, relate, symmetric_cross_entropy


class ProbabilisticContrastive(nn.Module):
    r"""Contrastive loss between distributions on the sphere.

    .. math:: L_C=-\frac1m\sum_{j}\log\frac{e^{s_{jj}/\tau}}{\sum_ke^{s_{jk}/\tau}},\qquad s_{jk}=\frac1L\sum_l z_j^l\cdot z_k^l

    averaged over all ordered pairs of modalities (the paper prints a sum over them), with samples paired by their number l (eq. 11).

    Args:
        temperature: :math:`\tau`.
        n_samples: :math:`L`, draws from each distribution.
        duplicates: what items of one group are to each other: "ignore" leaves them out, "positive" counts them as right answers.
        sampler: what draws from a distribution, called as `vmf_sample` is; another one shows what another law would do.
    """

    def __init__(
        self, temperature: float = 0.07, n_samples: int = 16, *, duplicates: str = "ignore", sampler: Sampler = vmf_sample
    ) -> None:
        super().__init__()
        name = "ProbabilisticContrastive"
        self.temperature, self.n_samples = positive_number(name, "temperature", temperature), whole_number(name, "n_samples", n_samples, 1)
        self.duplicates = check_duplicates(name, duplicates)
        self.sampler = sampler

    def forward(
        self, embeddings: Embeddings, present: Present = None, groups: Tensor | None = None, *, seed: int | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"contrastive": itself, detached}.

        `present` maps a modality to a bool mask (batch,): an absent item leaves the rows or columns of its modality, and a pair of
        modalities with fewer than two common items counts as 0. `groups`: whole numbers (batch,), equal for items that show the same.
        `seed` fixes the draws: one is then a function of it and of its place in the batch; the default is torch's own generator.
        """
        embeddings = check_embeddings("ProbabilisticContrastive", embeddings, present)
        z = draw(embeddings, self.n_samples, seed, sampler=self.sampler)
        loss = contrastive(z, embeddings, present, groups, self.temperature, self.duplicates)
        return loss, {"contrastive": loss.detach()}


def contrastive(
    z: Tensor, embeddings: Embeddings, present: Present, groups: Tensor | None, temperature: float, duplicates: str
) -> Tensor:
    """L_C from samples z (S, batch, L, d)."""
    S, batch, L, _ = z.shape
    check_groups("ProbabilisticContrastive", groups, batch)
    flat = z.reshape(S, batch, -1).unbind()  # whose backward gathers once, where indexing would fill a tensor of zeros a pair
    with no_autocast(z):
        pairs = index_pairs(embeddings)
        relations = [relate(embeddings, present, groups, duplicates, i, j) for i, j in pairs]
        losses = [symmetric_cross_entropy(flat[i] @ flat[j].mT / (L * temperature), r) for (i, j), r in zip(pairs, relations, strict=True)]
    return torch.stack(losses).mean()
