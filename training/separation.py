"""How apart the modalities lie, and how well one threshold on the score tells matching pairs from others."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from .geometry import equal_error_rate, modality_gap

if TYPE_CHECKING:
    from .evaluation import Scored


def gaps(scored: Scored) -> dict[str, dict[str, float]]:
    """{"image, text": `modality_gap` over the items that have both}; pairs with fewer than four such items are left out."""
    batch = scored.batch
    results = {}
    for a, b in itertools.combinations(batch.modalities, 2):
        both = batch.present[a] & batch.present[b]  # (N,)
        if int(both.sum()) >= 4:
            results[f"{a}, {b}"] = {**modality_gap(scored.points[(a,)][both], scored.points[(b,)][both]), "items": int(both.sum())}
    return results


def error_rates(scored: Scored) -> dict[str, dict[str, float]]:
    """{"image->text": equal error rate over all pairs of a query and a gallery item}, by the scores that rank (cosines of embeddings)."""
    results = {}
    for name, ranking in scored.rankings():
        if not ranking.positives.all():
            rate = equal_error_rate(ranking.scores.flatten().numpy(), ranking.positives.flatten().numpy())
            results[name] = {"EER": rate, "matching": int(ranking.positives.sum()), "pairs": ranking.positives.numel()}
    return results
