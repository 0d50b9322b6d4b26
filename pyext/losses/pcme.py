"""Probabilistic cross-modal embeddings (Chun et al., PCME, CVPR 2021), on the sphere."""

import math

import torch
from torch import Tensor, nn

from .._checks import whole_number
from .._linalg import no_autocast
from ..distributions import VonMisesFisher
from ..ops.vmf_cumulant import vmf_kl_uniform
from ._embeddings import Embeddings, Present, check_embeddings, draw, index_pairs
from ._relation import Relation, check_duplicates, check_groups, relate


class PCME(nn.Module):
    r"""Soft contrastive loss: the chance of a match is :math:`p_{jk}=\frac1{L^2}\sum_{l,l'}\sigma(b-a\|z_j^l-z_k^{l'}\|)`, and the loss the
    mean of :math:`-\log p` over the matches and of :math:`-\log(1-p)` over all others, in equal parts, over the unordered pairs of
    modalities.

    The paper's Gaussians are von Mises-Fisher distributions here, and its information bottleneck is the divergence to the uniform law. The
    paper sums over all pairs, of which one in batch is a match; equal parts keep the scale of the two at any batch size.

    Args:
        n_samples: L, draws from each distribution.
        scale, shift: first values of the learned a and b.
        bottleneck: weight of the mean divergence of the distributions to the uniform law.
        uniformity: weight of :math:`\log E\,e^{-2\|z-z'\|^2}` over the draws of all modalities (the paper: 10 on CUB, 0 on COCO).
        duplicates: as in `Contrastive`.
    """

    def __init__(
        self,
        n_samples: int = 7,
        scale: float = 5.0,
        shift: float = 5.0,
        bottleneck: float = 1e-4,
        uniformity: float = 0.0,
        *,
        duplicates: str = "ignore",
    ) -> None:
        super().__init__()
        self.n_samples = whole_number("PCME", "n_samples", n_samples, 1)
        self.bottleneck, self.uniformity = bottleneck, uniformity
        self.duplicates = check_duplicates("PCME", duplicates)
        self.scale, self.shift = nn.Parameter(torch.tensor(float(scale))), nn.Parameter(torch.tensor(float(shift)))

    def forward(
        self, embeddings: Embeddings, present: Present = None, groups: Tensor | None = None, *, seed: int | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts {"match", "bottleneck", "uniformity"}, each without its weight, detached. `present` and `groups` as in
        `Contrastive`, `seed` as in `ProbabilisticContrastive`."""
        embeddings = check_embeddings("PCME", embeddings, present)
        z = draw(embeddings, self.n_samples, seed)                                           # (S, batch, L, d)
        check_groups("PCME", groups, z.shape[1])
        with no_autocast(z):
            pairs = index_pairs(embeddings)
            relations = [relate(embeddings, present, groups, self.duplicates, i, j) for i, j in pairs]
            losses = [self._match(z[i], z[j], r) for (i, j), r in zip(pairs, relations, strict=True)]
            parts = {"match": torch.stack(losses).mean()}
            if self.bottleneck:
                parts["bottleneck"] = _divergence(embeddings, present, z)
            if self.uniformity:
                parts["uniformity"] = _uniformity(z, embeddings, present)
        loss = parts["match"] + sum(getattr(self, name) * parts[name] for name in ("bottleneck", "uniformity") if name in parts)
        return loss, {name: part.detach() for name, part in parts.items()}

    def _match(self, x: Tensor, y: Tensor, relation: Relation) -> Tensor:
        """From draws (batch, L, d)."""
        batch, L, _ = x.shape
        squared = 2 - 2 * x.flatten(0, 1) @ y.flatten(0, 1).mT                               # (batch L, batch L)
        distance = squared.clamp(min=1e-6).sqrt().reshape(batch, L, batch, L)
        logit = self.shift.to(x.dtype) - self.scale.to(x.dtype) * distance
        log_match, log_other = (nn.functional.logsigmoid(s * logit).logsumexp((1, 3)) - 2 * math.log(L) for s in (1, -1))
        right = torch.eye(batch, dtype=torch.bool, device=x.device) if relation.positive is None else relation.positive
        keep = torch.ones_like(right) if relation.keep is None else relation.keep
        if relation.items is not None:
            right = right & relation.items[:, None] & relation.items
            keep = keep & (right | ~torch.eye(batch, dtype=torch.bool, device=x.device))
        return -0.5 * (_mean(log_match, right & keep) + _mean(log_other, keep & ~right))


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def _divergence(embeddings: Embeddings, present: Present, like: Tensor) -> Tensor:
    """Mean divergence to the uniform law of the distributions that are there; a point has none."""
    total = [
        _mean(kl, (present or {}).get(name, torch.ones_like(kl, dtype=torch.bool)))
        for name, law in embeddings.items()
        if isinstance(law, VonMisesFisher)
        for kl in [vmf_kl_uniform(law.concentration.to(like.dtype), law.dim)]
    ]
    return torch.stack(total).mean() if total else like.new_zeros(())


def _uniformity(z: Tensor, embeddings: Embeddings, present: Present) -> Tensor:
    """log of the mean of exp(-2 |z - z'|^2) over all ordered pairs of different draws (Wang and Isola, 2020)."""
    flat = z.flatten(0, 2)                                                                   # (S batch L, d)
    there = [(present or {}).get(name, torch.ones(z.shape[1], dtype=torch.bool, device=z.device)) for name in embeddings]
    there = torch.stack(there)[..., None].expand(z.shape[:3]).flatten()
    energy = 4 * (flat @ flat.mT) - 4                                                        # -2 |z - z'|^2
    keep = there[:, None] & there & ~torch.eye(len(flat), dtype=torch.bool, device=z.device)
    return energy.masked_fill(~keep, torch.finfo(z.dtype).min).logsumexp((0, 1)) - keep.sum().clamp(min=1).to(z.dtype).log()
