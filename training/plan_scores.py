"""Retrieval by the entropic transport plan of all queries to the whole gallery, beside retrieval by the cost alone.

The plan's score of a pair depends on every other query, so its metrics say how well a *set* of queries is matched to a set of answers; they
are no answer to a single query, whose plan under uniform marginals is constant.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from transphere import partial_sinkhorn, sinkhorn

from .evaluator import Ranking
from .metrics import retrieval_metrics

if TYPE_CHECKING:
    from .evaluation import Scored

EPS = 0.05  # m-LTM's (Luong et al., ICLR 2024)
MATCHING = "learning-to-match"


def by_plan(scored: Scored, eps: float | None = None) -> dict:
    """Metrics by cost and by plan of every direction.

    The cost of an m-LTM run is what it was trained on, its Mahalanobis distance over the largest of the direction; that of any other run is
    1 - cosine, in whose unit a contrastive loss's temperature is an eps. eps: by default that of the run's objective, else .05. A run that
    was trained by plans of a part of the mass is scored by such a plan, too.
    """
    objective = scored.run.config.objective
    mass = objective.mass if objective.name == MATCHING else None
    eps = eps or (objective.eps if objective.name == MATCHING and objective.eps else EPS)
    results = {}
    for name, ranking in scored.rankings():
        plan = log_plan(_cost(scored, ranking), eps, mass)
        results[name] = {
            "label": f"transductive, {len(ranking.queries)} queries",
            "cost": retrieval_metrics(ranking.scores, ranking.positives),
            "plan": retrieval_metrics(plan.pop("scores"), ranking.positives),
            **plan,
        }
    cost = "Mahalanobis distance / its maximum" if objective.name == MATCHING else "1 - cosine"
    return {"eps": eps, "cost": cost, "marginals": "uniform", "mass": mass or 1.0, "directions": results}


def _cost(scored: Scored, ranking: Ranking) -> torch.Tensor:
    """(Q, G) float64."""
    if scored.run.config.objective.name != MATCHING:
        return 1 - ranking.scores.double()
    distance = -ranking.scores.double()
    if scored.run.metric is None:  # a Euclidean one was trained, and the scores are cosines of unit vectors
        distance = (2 - 2 * ranking.scores.double()).clamp(min=0).sqrt()
    return distance / distance.max().clamp(min=torch.finfo(distance.dtype).tiny)


def log_plan(cost: torch.Tensor, eps: float, mass: float | None = None) -> dict:
    """eps log P of the entropic plan P of a cost (Q, G) with uniform marginals, and how its iteration ended. mass: of
    the partial plan that transports this share of them.

    The logarithm orders answers as the plan does, and does not underflow to ties where eps is small.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # not converged: said in the result
        options = {"eps": eps, "max_iter": 10_000}
        result = sinkhorn(cost, **options) if mass is None else partial_sinkhorn(cost, mass, **options)
    scores = result.f[:, None] + result.g + result.h - cost
    return {
        "scores": scores,
        "iterations": int(result.iterations),
        "converged": bool(result.converged),
        "marginal_error": float(result.error),
    }
