"""The sampler of released code, kept as an ablation: its law is the one that is refuted, and a recipe can ask for it."""

import pytest
import torch

import transphere as ts
from transphere.training import config
from transphere.training.errors import UserError
from transphere.training.model import build_objective
from transphere.training.released_sampler import vmf_sample_released


@pytest.mark.parametrize(("d", "kappa", "mean"), [(512, 128.0, 0.002), (512, 9.0, None), (3, 9.0, None)])
def test_the_law(d, kappa, mean):
    """Wrong above kappa = 10 as mathematics.md says; below it is Wood's, so that the wrong b alone sets the two apart."""
    mu = torch.nn.functional.normalize(torch.randn(d, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=0)
    k = torch.tensor(kappa, dtype=torch.float64)
    z = vmf_sample_released(mu, k, 5_000, seed=1)
    assert z.shape == (5_000, d) and (z.norm(dim=-1) - 1).abs().max() < 1e-12
    expected = ts.vmf_mean_resultant(k, d).item() if mean is None else mean
    assert (z @ mu).mean().item() == pytest.approx(expected, abs=0.01 if d == 3 else 0.004)
    across = z - (z @ mu)[:, None] * mu
    assert across.mean(0).norm() < 4 / 5_000**0.5  # uniform around mu


def test_shapes_seeds_and_gradients():
    mu = torch.nn.functional.normalize(torch.randn(2, 5, 16), dim=-1).requires_grad_()
    kappa = torch.full((2, 5), 20.0, requires_grad=True)
    z = vmf_sample_released(mu, kappa, 3, seed=4, offset=8)
    assert z.shape == (2, 5, 3, 16) and z.dtype == torch.float32
    assert torch.equal(z, vmf_sample_released(mu, kappa, 3, seed=4, offset=8))
    assert not torch.equal(z, vmf_sample_released(mu, kappa, 3, seed=4, offset=9))
    z.sum().backward()
    assert mu.grad.isfinite().all() and kappa.grad.isfinite().all() and (kappa.grad != 0).all()
    assert vmf_sample_released(mu[:, :0], kappa[:, :0], 3).shape == (2, 0, 3, 16)
    assert vmf_sample_released(mu, kappa.detach() * float("nan"), 2).isnan().all()
    assert vmf_sample_released(torch.tensor([1.0, 0.0]), torch.tensor(0.0), 4).isfinite().all()
    with pytest.raises(ValueError, match=r"expected mu \(..., d\).* got \(2, 5, 16\), \(5,\), 3"):
        vmf_sample_released(mu, kappa[0], 3)


def test_a_recipe_asks_for_it():
    made = config.load("ismir2024", ["objective.sampler=released"]).objective
    loss = build_objective(made, 8)
    assert loss.contrastive.sampler is loss.sliced.sampler is vmf_sample_released
    laws = {name: ts.VonMisesFisher(torch.eye(8)[:4], torch.full((4,), 90.0)) for name in "ab"}
    right = build_objective(config.load("ismir2024").objective, 8)
    assert loss(laws, seed=3)[0].isfinite() and loss(laws, seed=3)[0] != right(laws, seed=3)[0]
    with pytest.raises(UserError, match="objective.sampler: pcme does not take it"):
        build_objective(config.load("ismir2024", ["objective.sampler=released", "objective.name=pcme"]).objective, 8)
    with pytest.raises(UserError, match="objective.sampler: expected none"):
        config.load("ismir2024", ["objective.sampler=exact"])
