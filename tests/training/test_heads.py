"""Heads: points of unit length, by their definitions; concentrations inside their interval."""

import pytest
import torch

from transphere import VonMisesFisher, losses
from transphere.training import config, config_rules
from transphere.training.heads import build_head, location


def head(**changes):
    torch.manual_seed(0)
    return build_head(config.Model(**{"dim": 6, "hidden": 5, "dropout": 0.0, **changes}), 9).double()


def test_linear_is_that_of_m_ltm():
    x, made = torch.randn(4, 9).double(), head(head="linear")
    first, _, _, last = made.layers
    y = torch.relu(x @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(made(x), y / y.norm(dim=1, keepdim=True))
    assert len(head(head="linear", hidden=0).layers) == 1


def test_residual_is_that_of_pcmc():
    x, made = torch.randn(4, 9).double(), head(head="residual")
    y = made.project(x)
    z = torch.nn.functional.layer_norm(y + made.block(y), (6,), made.norm.weight, made.norm.bias)
    torch.testing.assert_close(made(x), z / z.norm(dim=1, keepdim=True))
    assert head(head="residual", hidden=0).block[0].out_features == 6  # the paper's: as wide as the space


@pytest.mark.parametrize("interval", [(64.0, 128.0), (0.0, 1.0)])
def test_kappa_stays_inside(interval):
    law = head(head="vmf", kappa=interval)(1e4 * torch.randn(100, 9).double())
    assert isinstance(law, VonMisesFisher) and ((interval[0] <= law.concentration) & (law.concentration <= interval[1])).all()
    torch.testing.assert_close(law.loc.norm(dim=1), torch.ones(100).double())


@pytest.mark.parametrize("kind", [kind for kind in config_rules.HEADS if kind != "none"])  # none: for classes alone
def test_every_head_suits_the_losses(kind):
    x = {name: torch.randn(4, 9).double() for name in ("a", "b")}
    embeddings = {name: head(head=kind)(value) for name, value in x.items()}
    assert location(embeddings["a"]).shape == (4, 6)
    for loss in (losses.Contrastive(), losses.Harnessed(n_samples=2, n_projections=3)):
        assert loss(embeddings)[0].isfinite()
