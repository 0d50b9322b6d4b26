"""The forms that widely copied code uses are wrong, by how much, and ours are not.

Written from their formulas, only to be refuted: no operator or loss calls them, and of the training package one ablation the sampler.
"""

import numpy as np
import ot
import pytest
import torch
from ot.lp.solver_circle import wasserstein1_circle

import transphere as ts
from transphere.training.released_sampler import vmf_sample_released


@pytest.mark.parametrize("kappa, copied", [(64.0, -0.332), (96.0, -0.141), (128.0, 0.002)])
def test_copied_sampler_draws_from_the_wrong_law(kappa, copied):
    """At d = 512 and the concentrations of the ISMIR 2024 system its mean cosine to mu is negative or zero; exact are .12 to .24."""
    exact = ts.vmf_mean_resultant(torch.tensor(kappa, dtype=torch.float64), 512).item()
    mu = torch.eye(512, dtype=torch.float64)[0]
    w = vmf_sample_released(mu, torch.tensor(kappa, dtype=torch.float64), 20_000, seed=0) @ mu
    assert w.mean().item() == pytest.approx(copied, abs=0.003)
    ours = ts.vmf_sample(mu, torch.tensor(kappa, dtype=torch.float64), 20_000, seed=0) @ mu
    assert ours.mean().item() == pytest.approx(exact, abs=0.002) and exact > 0.12


def dropped_arc_w1(u, v):
    """The level-median closed form without the arc [0, t_1], and with the threshold 1/2 all the same."""
    n, m = u.shape[-1], v.shape[-1]
    t, order = torch.cat([u, v], -1).sort(-1)
    level = torch.cat([torch.full((n,), 1 / n), torch.full((m,), -1 / m)]).double()[order].cumsum(-1)
    gap = torch.cat([t[..., 1:], torch.ones_like(t[..., :1])], -1) - t
    ordered, by_level = level.sort(-1)
    reached = gap.gather(-1, by_level).cumsum(-1) - 0.5
    reached = torch.where(reached < 0, torch.inf, reached)
    median = ordered.gather(-1, reached.argmin(-1, keepdim=True))
    return ((level - median).abs() * gap).sum(-1)


def test_copied_circular_distance_is_wrong():
    u, v = torch.tensor([0.97]).double(), torch.tensor([0.9]).double()
    assert dropped_arc_w1(u, v).item() == pytest.approx(0.03)
    assert ts.circular_wasserstein(u, v).item() == pytest.approx(0.07)
    u, v = torch.rand(2, 400, 16, dtype=torch.float64)
    error = (dropped_arc_w1(u, v) - ts.circular_wasserstein(u, v)).abs()
    assert error.max() > 0.02 and ts.circular_wasserstein(u, v).mean() < 0.1


def test_pots_closed_form_is_the_copied_one():
    """POT's `wasserstein1_circle` has it too; its binary search, where it converges, agrees with us."""
    rng = np.random.default_rng(0)
    u, v = rng.random((16, 50)), rng.random((16, 50))
    ours = ts.circular_wasserstein(torch.tensor(u.T), torch.tensor(v.T)).numpy()
    assert np.abs(ot.wasserstein_circle(u, v, p=1) - ours).max() < 1e-6
    assert np.abs(wasserstein1_circle(u, v) - ours).max() > 0.01


def test_copied_normaliser_underflows():
    """log(ive) at d = 512 is -inf below kappa = 12.9 in float64; ours is exact."""
    from scipy.special import ive

    assert ive(255.0, 12.0) == 0
    assert ts.vmf_log_normalizer(torch.tensor(12.0, dtype=torch.float64), 512).isfinite()
