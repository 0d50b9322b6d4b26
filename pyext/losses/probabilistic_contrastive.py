"""The multimodal probabilistic contrastive loss L_C (Nakatsuka et al., ISMIR 2024, eq. 10 and 11)."""

import torch
from torch import Tensor, nn

from ._embeddings import Embeddings, Present, both_present, check_embeddings, draw, index_pairs


class ProbabilisticContrastive(nn.Module):
    r"""Contrastive loss between distributions on the sphere.

    .. math:: L_C=-\frac1m\sum_{j}\log\frac{e^{s_{jj}/\tau}}{\sum_ke^{s_{jk}/\tau}},\qquad s_{jk}=\frac1L\sum_l z_j^l\cdot z_k^l

    averaged over all ordered pairs of modalities (the paper prints a sum over them), with samples paired by their number l (eq. 11).

    Args:
        temperature: :math:`\tau`.
        n_samples: :math:`L`, draws from each distribution.
    """

    def __init__(self, temperature: float = 0.07, n_samples: int = 16) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"ProbabilisticContrastive: temperature: expected a number > 0, got {temperature!r}")
        self.temperature, self.n_samples = temperature, n_samples

    def forward(self, embeddings: Embeddings, present: Present = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"contrastive": itself, detached}. `present` maps a modality to a bool mask (batch,): absent items leave the rows
        and columns of its pairs, and a pair of modalities with fewer than two common items counts as 0."""
        check_embeddings("ProbabilisticContrastive", embeddings, present)
        loss = contrastive(draw(embeddings, self.n_samples), embeddings, present, self.temperature)
        return loss, {"contrastive": loss.detach()}


def contrastive(z: Tensor, embeddings: Embeddings, present: Present, temperature: float) -> Tensor:
    """L_C from samples z (S, batch, L, d)."""
    S, batch, L, _ = z.shape
    flat = z.reshape(S, batch, -1).unbind()  # whose backward gathers once, where indexing would fill a tensor of zeros a pair
    with torch.autocast(z.device.type, enabled=False):
        pairs = index_pairs(embeddings)
        losses = [_symmetric(flat[i] @ flat[j].mT / (L * temperature), both_present(embeddings, present, i, j)) for i, j in pairs]
    return torch.stack(losses).mean()


def _symmetric(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Mean cross-entropy of rows and of columns of (batch, batch) against the diagonal, over the masked items."""
    if mask is None:
        target = torch.arange(logits.shape[0], device=logits.device)
        return 0.5 * (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.mT, target))
    # The diagonal stays: a row without any column would have no logarithm to take.
    keep = mask[:, None] & mask | torch.eye(len(mask), dtype=torch.bool, device=mask.device)
    logits = logits.masked_fill(~keep, -torch.inf)
    diagonal = logits.diagonal()
    each = 0.5 * (logits.logsumexp(0) + logits.logsumexp(1)) - diagonal
    count = mask.sum()
    return torch.where(mask, each, 0.0).sum() / count.clamp(min=1) * (count >= 2)
