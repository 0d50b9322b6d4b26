"""How two modalities lie in the shared space, and decisions from scores: modality gap, zero-shot accuracy, equal error rate."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve


def modality_gap(x: torch.Tensor, y: torch.Tensor, seed: int = 0) -> dict[str, float]:
    """The gap between paired unit vectors x, y (n, d) of two modalities.

    gap: |mean x - mean y|, which depends on the choice of items and vanishes by centring alone. positive_cosine: mean cosine of the pairs.
    centred_cosine: the same after each modality is centred and brought back to the sphere. probe: the accuracy with which a linear
    classifier, fitted on half of the items, tells the modalities of the other half apart; .5 where it cannot.
    Raises ValueError for shapes that differ, fewer than four items, values that are not finite.
    """
    if x.ndim != 2 or x.shape != y.shape or len(x) < 4:
        raise ValueError(f"modality_gap: expected two tensors (n, d) of one shape, n >= 4, got {tuple(x.shape)} and {tuple(y.shape)}")
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise ValueError("modality_gap: expected finite vectors")
    x, y = x.double().cpu(), y.double().cpu()
    unit = torch.nn.functional.normalize
    centred = (unit(x - x.mean(0), dim=1) * unit(y - y.mean(0), dim=1)).sum(1).mean()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    halves = [torch.cat([z[half] for z in (x, y)]).numpy() for half in order.split([len(x) // 2, len(x) - len(x) // 2])]
    labels = [np.repeat([0, 1], len(half) // 2) for half in halves]
    probe = LogisticRegression(max_iter=1000).fit(halves[0], labels[0])
    return {
        "gap": float((x.mean(0) - y.mean(0)).norm()),
        "centred_cosine": float(centred),
        "positive_cosine": float((unit(x, dim=1) * unit(y, dim=1)).sum(1).mean()),
        "probe": float(probe.score(halves[1], labels[1])),
    }


def zero_shot(scores: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Accuracies of the best class: over items, and T1, the mean over classes of each one's share (Xian et al., 2018).

    scores: (n, C), higher is better; labels: whole numbers (n,) below C. A class that ties with others for an item gets its part of it.
    Raises ValueError for wrong shapes, labels out of range, scores that are not finite.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not scores.numel():
        raise ValueError(f"zero_shot: expected scores (n, C) and labels (n,), got {tuple(scores.shape)} and {tuple(labels.shape)}")
    if not torch.isfinite(scores).all():
        raise ValueError("zero_shot: expected finite scores")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"zero_shot: labels: expected numbers below {scores.shape[1]}, got {int(labels.min())} to {int(labels.max())}")
    best = scores == scores.amax(1, keepdim=True)  # (n, C)
    right = best.gather(1, labels[:, None])[:, 0].double() / best.sum(1)  # (n,)
    shares = [right[labels == c].mean() for c in labels.unique()]
    return {"accuracy": float(right.mean()), "T1": float(torch.stack(shares).mean()), "classes": len(shares), "items": len(labels)}


def equal_error_rate(scores: np.ndarray, same: np.ndarray) -> float:
    """The error at the threshold that refuses as many of the matching pairs as it accepts of the others, interpolated between thresholds.

    scores: (n,), higher for pairs that match; same: (n,) bool, both values among them.
    Raises ValueError for shapes that differ, a single kind of pair, scores that are not finite.
    """
    scores, same = np.asarray(scores, dtype=float), np.asarray(same, dtype=bool)
    if scores.ndim != 1 or same.shape != scores.shape or len(np.unique(same)) < 2:
        raise ValueError(f"equal_error_rate: expected scores (n,) and pairs of both kinds (n,), got {scores.shape} and {same.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("equal_error_rate: expected finite scores")
    accepted, kept, _ = roc_curve(same, scores, drop_intermediate=False)
    refused = 1 - kept
    i = int(np.argmax(accepted >= refused))  # the first threshold past the crossing; accepted rises from 0, refused falls from 1
    slope = (accepted[i] - refused[i]) - (accepted[i - 1] - refused[i - 1])
    t = (refused[i - 1] - accepted[i - 1]) / slope
    return float(accepted[i - 1] + t * (accepted[i] - accepted[i - 1]))
