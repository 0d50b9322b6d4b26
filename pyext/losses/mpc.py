"""Probabilistic compositional embeddings (Neculai, Chen, Akata, MPC, CVPR workshops 2022), on the sphere."""

import torch
from torch import Tensor, nn

from .._checks import positive_number, whole_number
from .._linalg import no_autocast
from ..distributions import VonMisesFisher
from ._embeddings import Embeddings, Present, check_embeddings, draw
from ._relation import check_duplicates, check_groups


class MPC(nn.Module):
    r"""A query is the product of the densities of its modalities: for von Mises-Fisher laws one with
    :math:`\eta_p=\sum_i\kappa_p^{(i)}\mu_p^{(i)}`. Draws of the target are told apart by their likelihood under it,

    .. math:: \ell=-\frac1m\sum_p\log\frac{e^{s_{pp}/\tau}}{\sum_qe^{s_{pq}/\tau}},\qquad s_{pq}=\eta_p\cdot\frac1L\sum_lz_q^l,

    averaged over the targets and, for each, over the queries by every single other modality and, where there are more, by all of them. The
    normaliser of the product cancels between the targets of a query. The paper's Gaussians are von Mises-Fisher distributions here.

    Args:
        n_samples: L, draws from the target's distribution.
        temperature: :math:`\tau`.
        penalty: weight of the mean of :math:`(\frac12\log\kappa)^2`, the square of the logarithm of the spread.
        duplicates: as in `Contrastive`.
    """

    def __init__(self, n_samples: int = 7, temperature: float = 1.0, penalty: float = 1e-3, *, duplicates: str = "ignore") -> None:
        super().__init__()
        self.n_samples, self.penalty = whole_number("MPC", "n_samples", n_samples, 1), penalty
        self.temperature = positive_number("MPC", "temperature", temperature)
        self.duplicates = check_duplicates("MPC", duplicates)

    def forward(
        self, embeddings: Embeddings, present: Present = None, groups: Tensor | None = None, *, seed: int | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts {"composition", "penalty"}, the second without its weight, detached. `present` as in `Contrastive`: an
        absent modality leaves the product, a query without any is left out. `seed` as in `ProbabilisticContrastive`.

        Raises:
            ValueError: also where an embedding is not a `VonMisesFisher`: the product needs concentrations.
        """
        embeddings = check_embeddings("MPC", embeddings, present)
        for name, law in embeddings.items():
            if not isinstance(law, VonMisesFisher):
                raise ValueError(f"MPC: {name}: expected a VonMisesFisher, got {type(law).__name__}")
        centre = draw(embeddings, self.n_samples, seed).mean(2)                              # (S, batch, d)
        check_groups("MPC", groups, centre.shape[1])
        S, batch, _ = centre.shape
        everyone = torch.ones(batch, dtype=torch.bool, device=centre.device)
        there = torch.stack([(present or {}).get(name, everyone) for name in embeddings])    # (S, batch)
        with no_autocast(centre):
            kappa = torch.stack([law.concentration.to(centre.dtype) for law in embeddings.values()])
            loc = torch.stack([law.loc.to(centre.dtype) for law in embeddings.values()])
            eta = torch.where(there, kappa, 0.0)[..., None] * loc
            losses = []
            for target in range(S):
                others = [s for s in range(S) if s != target]
                for sources in [[s] for s in others] + ([others] if len(others) > 1 else []):
                    logits = eta[sources].sum(0) @ centre[target].mT / self.temperature
                    losses.append(self._rows(logits, there[sources].any(0), there[target], groups))
            composition = torch.stack(losses).mean()
            spread = torch.where(there, kappa.clamp(min=torch.finfo(kappa.dtype).tiny).log().mul(0.5).square(), 0.0)
            penalty = spread.sum() / there.sum().clamp(min=1)
        return composition + self.penalty * penalty, {"composition": composition.detach(), "penalty": penalty.detach()}

    def _rows(self, logits: Tensor, asks: Tensor, answers: Tensor, groups: Tensor | None) -> Tensor:
        """Mean cross-entropy of the rows that ask for what is there, over the columns that are."""
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        same = own if groups is None else groups[:, None] == groups
        right = own if self.duplicates == "ignore" else (same & answers) | own
        keep = (answers & (own | ~same) if self.duplicates == "ignore" else answers.expand_as(own)) | own
        hit = torch.where(right, logits, 0.0).sum(1) / right.sum(1)
        each = logits.masked_fill(~keep, -torch.inf).logsumexp(1) - hit
        items = asks & answers
        count = items.sum()
        return torch.where(items, each, 0.0).sum() / count.clamp(min=1) * (count >= 2)
