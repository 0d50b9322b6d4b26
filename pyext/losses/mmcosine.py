"""The multimodal cosine loss for classification (Xu et al., MMCosine, ICASSP 2023)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .._checks import check_values, compute_dtype, positive_number, whole_number
from .._linalg import no_autocast
from ..distributions import VonMisesFisher
from ._embeddings import Embeddings, Present, check_kinds, check_present
from ._relation import check_whole_numbers

BOUNDS = ("tight", "paper")


class MMCosine(nn.Module):
    r"""Cross-entropy of the scaled sum of unimodal cosines, :math:`s\sum_m\cos(W_y^{(m)},f^{(m)})`: no modality can win by the length of
    its features or of its weights.

    Args:
        classes: number C of classes, >= 2.
        scale: s > 0; None takes the least with which the probability of the right class can reach `probability` p.
        bound: "tight", :math:`\frac{C-1}{MC}\log\frac{(C-1)p}{1-p}` for M modalities, or "paper",
            :math:`\frac{C-1}{M(C-1+M)}\log\frac{(C-1)p}{1-p}`: eq. 4, printed for M = 2,
            whose proof bounds a sum of squares by M times what it is, so that p is not reached.
        probability: p in (1/C, 1).
        modalities: {name: width of its features}; weights are made at once. Without, they are made at the first call, which an optimiser
            made before does not know of.

    `logits` predicts. A `VonMisesFisher` counts as its mean direction.
    """

    def __init__(
        self,
        classes: int,
        scale: float | None = None,
        *,
        bound: str = "tight",
        probability: float = 0.99,
        modalities: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        classes = whole_number("MMCosine", "classes", classes, 2)
        scale = None if scale is None else positive_number("MMCosine", "scale", scale)
        if bound not in BOUNDS:
            raise ValueError(f"MMCosine: bound: expected one of {BOUNDS}, got {bound!r}")
        if not 1 / classes < probability < 1:
            raise ValueError(f"MMCosine: probability: expected a number between 1/classes and 1, got {probability!r}")
        self.classes, self.scale, self.bound, self.probability = classes, scale, bound, probability
        self.weight = nn.ParameterDict()
        for name, width in (modalities or {}).items():
            self._add(name, torch.empty(width))

    def forward(self, embeddings: Embeddings, present: Present = None, *, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and {"mmcosine": itself, "accuracy": share of right predictions}, detached.

        embeddings: {name: features (batch, any width)}, one modality or more; labels: whole numbers (batch,) below C. An absent modality
        leaves its item's sum.

        Raises:
            ValueError: on wrong shapes, widths, names or labels.
        """
        logits = self.logits(embeddings, present)
        check_present("MMCosine", list(embeddings), present, len(logits))
        check_whole_numbers("MMCosine", "labels", labels, len(logits))
        check_values("MMCosine", "labels", labels, lambda t: (t >= 0) & (t < self.classes), f"classes from 0 to {self.classes - 1}")
        loss = nn.functional.cross_entropy(logits, labels.long())
        return loss, {"mmcosine": loss.detach(), "accuracy": (logits.argmax(1) == labels).to(loss.dtype).mean()}

    def logits(self, embeddings: Embeddings, present: Present = None) -> Tensor:
        """(batch, C), in at least float32; `present` may name other modalities too."""
        check_kinds("MMCosine", embeddings)
        features = {name: e.loc if isinstance(e, VonMisesFisher) else e for name, e in embeddings.items()}
        batch = len(next(iter(features.values()), ()))
        for name, x in features.items():
            if x.dim() != 2 or len(x) != batch or not batch:
                raise ValueError(f"MMCosine: {name}: expected features of shape ({batch or 'batch'}, width), got {tuple(x.shape)}")
            if name not in self.weight:
                if self.weight:
                    raise ValueError(f"MMCosine: {name}: expected a modality among {list(self.weight)}")
            elif self.weight[name].shape[1] != x.shape[1]:
                raise ValueError(f"MMCosine: {name}: expected features of width {self.weight[name].shape[1]}, got {x.shape[1]}")
        if not features:
            raise ValueError("MMCosine: embeddings: expected at least one modality")
        if not self.weight:
            for name, x in features.items():
                self._add(name, x[0])
        present = {name: mask for name, mask in (present or {}).items() if name in features}
        check_present("MMCosine", list(features), present, batch)
        total = 0.0
        with no_autocast(next(iter(features.values()))):
            for name, x in features.items():
                x, mask = x.to(compute_dtype(x.dtype)), present.get(name)
                x = x if mask is None else torch.where(mask[:, None], x, 0.0)                # whose cosines are 0
                total = total + nn.functional.normalize(x, dim=-1) @ nn.functional.normalize(self.weight[name].to(x.dtype), dim=-1).mT
            return self._scale(len(features)) * total

    def _scale(self, M: int) -> float:
        if self.scale is not None:
            return self.scale
        C, p = self.classes, self.probability
        return (C - 1) / (M * (C if self.bound == "tight" else C - 1 + M)) * math.log((C - 1) * p / (1 - p))

    def _add(self, name: str, like: Tensor) -> None:
        weight = torch.empty(self.classes, len(like), device=like.device, dtype=compute_dtype(like.dtype))
        self.weight[name] = nn.Parameter(nn.init.xavier_uniform_(weight))
