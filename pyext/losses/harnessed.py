"""L = L_C + lambda L_S (Nakatsuka et al., ISMIR 2024, eq. 13)."""

from torch import Tensor, nn

from ..ops.vmf_sample import vmf_sample
from ._embeddings import Embeddings, Present, Sampler, check_embeddings, draw
from .probabilistic_contrastive import ProbabilisticContrastive, contrastive
from .spherical_sliced import SphericalSliced, sliced


class Harnessed(nn.Module):
    r"""The contrastive loss, which separates items, plus `weight` times the transport loss, which matches the shapes of positives; both
    on the same samples.

    Args:
        weight: :math:`\lambda`; the paper found 1.0 best of .01 .. 100.
        temperature, n_samples: as in `ProbabilisticContrastive`.
        n_projections, debias, max_grad: as in `SphericalSliced`.
        duplicates: as in `ProbabilisticContrastive`; the transport loss compares no two items.
        sampler: as in `ProbabilisticContrastive`, of both.
    """

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 0.07,
        n_samples: int = 16,
        n_projections: int = 100,
        debias: bool = False,
        *,
        max_grad: float | None = None,
        duplicates: str = "ignore",
        sampler: Sampler = vmf_sample,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.contrastive = ProbabilisticContrastive(temperature, n_samples, duplicates=duplicates, sampler=sampler)
        self.sliced = SphericalSliced(n_projections, n_samples, debias, max_grad, sampler=sampler)

    def forward(
        self,
        embeddings: Embeddings,
        present: Present = None,
        groups: Tensor | None = None,
        *,
        seed: int | None = None,
        rows: slice | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"contrastive": L_C, "sliced": L_S, without its weight}, detached. `present`, `groups`, `seed` and `rows` as in
        the two losses."""
        embeddings = check_embeddings("Harnessed", embeddings, present)
        n, sampler = self.contrastive.n_samples, self.contrastive.sampler
        z = draw(embeddings, n, seed, sampler=sampler)                                       # (S, batch, L, d)
        twin = draw(embeddings, n, seed, turn=1, sampler=sampler) if self.sliced.debias else None
        parts = {
            "contrastive": contrastive(z, embeddings, present, groups, self.contrastive.temperature, self.contrastive.duplicates),
            "sliced": sliced(z, twin, embeddings, present, self.sliced.n_projections, self.sliced.max_grad, seed, rows),
        }
        return parts["contrastive"] + self.weight * parts["sliced"], {name: part.detach() for name, part in parts.items()}
