"""The losses against loops written from their equations, masks, gradients and limits."""

import math

import pytest
import torch

import transphere as ts
from transphere import losses
from transphere.losses import _embeddings


def laws(unit, *, names=("image", "text", "speech"), batch=5, d=8, kappa=30.0, dtype=torch.float64):
    k = torch.full((batch,), kappa, dtype=dtype)
    return {m: ts.VonMisesFisher(unit(batch, d, seed=i, dtype=dtype), k + i) for i, m in enumerate(names)}


def loop_contrastive(z, tau, keep=None):
    """Equations 10 and 11, term by term; z (S, batch, L, d)."""
    S, batch, L, _ = z.shape
    total = []
    for a in range(S):
        for b in range(S):
            if a == b:
                continue
            items = [j for j in range(batch) if keep is None or (keep[a][j] and keep[b][j])]
            answers = [k for k in range(batch) if keep is None or keep[b][k]]
            if len(items) < 2:
                total.append(0.0)
                continue
            sim = lambda j, k: sum(float(z[a, j, l] @ z[b, k, l]) for l in range(L)) / L  # noqa: B023, E731
            each = [-math.log(math.exp(sim(j, j) / tau) / sum(math.exp(sim(j, k) / tau) for k in answers)) for j in items]
            total.append(sum(each) / len(items))
    return sum(total) / len(total)


def test_contrastive_is_its_equation(unit):
    e = laws(unit)
    torch.manual_seed(3)
    loss, parts = losses.ProbabilisticContrastive(temperature=0.2, n_samples=4)(e)
    torch.manual_seed(3)
    z = _embeddings.draw(e, 4)
    assert loss.item() == pytest.approx(loop_contrastive(z, 0.2), rel=1e-12)
    assert parts["contrastive"] == loss and not parts["contrastive"].requires_grad


def test_sliced_is_its_equation(unit):
    e = laws(unit)
    torch.manual_seed(3)
    loss, parts = losses.SphericalSliced(n_projections=6, n_samples=4)(e)
    torch.manual_seed(3)
    z = _embeddings.draw(e, 4)
    frames = ts.great_circles(6, 8, dtype=torch.float64)
    each = [ts.sliced_wasserstein_sphere(z[a, j], z[b, j], projections=frames) for a, b in ((0, 1), (0, 2), (1, 2)) for j in range(5)]
    assert loss.item() == pytest.approx(float(sum(each)) / 15, rel=1e-12)
    assert set(parts) == {"sliced"}


def test_harnessed_adds_up_on_the_same_samples(unit):
    e = laws(unit)
    torch.manual_seed(3)
    loss, parts = losses.Harnessed(weight=2.5, temperature=0.2, n_samples=4, n_projections=6)(e)
    assert loss.item() == pytest.approx(float(parts["contrastive"] + 2.5 * parts["sliced"]), rel=1e-12)
    torch.manual_seed(3)
    assert losses.ProbabilisticContrastive(temperature=0.2, n_samples=4)(e)[0] == parts["contrastive"]
    torch.manual_seed(3)
    assert losses.SphericalSliced(n_projections=6, n_samples=4)(e)[0] == parts["sliced"]


def test_another_sampler(unit):
    """In the place of vmf_sample, called as it is."""
    e, asked = laws(unit), []

    def point_mass(loc, kappa, n_samples, *, seed, offset):
        asked.append((loc.shape, kappa.shape, n_samples, seed, offset))
        return loc[..., None, :].expand(*kappa.shape, n_samples, loc.shape[-1])

    given = {"sampler": point_mass, "n_samples": 3}
    both = losses.Harnessed(n_projections=5, debias=True, **given)
    three = losses.ProbabilisticContrastive(**given), losses.SphericalSliced(5, **given), both
    points = {name: law.loc for name, law in e.items()}
    for loss, plain in zip(three, (losses.ProbabilisticContrastive(), losses.SphericalSliced(5), None), strict=True):
        value, _ = loss(e, seed=7)
        assert plain is None or value.item() == pytest.approx(plain(points, seed=7)[0].item(), rel=1e-9)
    size = len(e) * len(next(iter(points.values()))) * 3
    assert [call[2:] for call in asked] == [(3, 7, 0), (3, 7, 0), (3, 7, 0), (3, 7, size)]


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d")])
def test_any_number_of_modalities(names, unit):
    e = laws(unit, names=names)
    three = losses.ProbabilisticContrastive(n_samples=3), losses.SphericalSliced(5, 3), losses.Harnessed(n_samples=3, n_projections=5)
    for loss in three:
        value, parts = loss(e)
        assert value.shape == () and value.isfinite() and all(p.shape == () for p in parts.values())


def test_plain_tensors_are_point_masses(unit):
    x, y = unit(5, 8, seed=1), unit(5, 8, seed=2)
    loss, _ = losses.ProbabilisticContrastive(temperature=0.1)({"a": 3 * x, "b": y})          # normalised inside
    target = torch.arange(5)
    clip = 0.5 * sum(torch.nn.functional.cross_entropy(s / 0.1, target) for s in (x @ y.T, y @ x.T))
    torch.testing.assert_close(loss, clip)
    equal, _ = losses.SphericalSliced(20)({"a": x, "b": x})
    assert equal < 1e-12
    mixed, _ = losses.Harnessed(n_samples=4)({"a": x, "b": ts.VonMisesFisher(y, torch.tensor(1e9, dtype=torch.float64))})
    assert mixed.isfinite()


def test_missing_items(unit):
    e = laws(unit)
    keep = {"image": torch.tensor([1, 1, 0, 1, 1]).bool(), "speech": torch.tensor([1, 0, 0, 1, 1]).bool()}
    torch.manual_seed(3)
    loss, parts = losses.Harnessed(temperature=0.2, n_samples=4, n_projections=6)(e, keep)
    torch.manual_seed(3)
    z = _embeddings.draw(e, 4)
    all_there = torch.ones(5).bool()
    masks = [keep["image"], all_there, keep["speech"]]
    assert parts["contrastive"].item() == pytest.approx(loop_contrastive(z, 0.2, masks), rel=1e-12)
    frames = ts.great_circles(6, 8, dtype=torch.float64)
    pairs = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = masks[a] & masks[b]
        pairs.append(ts.sliced_wasserstein_sphere(z[a, both], z[b, both], projections=frames).mean())
    assert parts["sliced"].item() == pytest.approx(float(sum(pairs)) / 3, rel=1e-12)


def test_absent_items_get_no_gradient(unit):
    loc = {m: unit(5, 8, seed=i).requires_grad_() for i, m in enumerate("ab")}
    e = {m: ts.VonMisesFisher(x, torch.full((5,), 20.0, dtype=torch.float64)) for m, x in loc.items()}
    loss, _ = losses.Harnessed()(e, {"a": torch.tensor([1, 1, 0, 1, 1]).bool()})
    loss.backward()
    for x in loc.values():
        assert x.grad.isfinite().all() and (x.grad[0] != 0).any()
    assert (loc["a"].grad[2] == 0).all() and (loc["b"].grad[2] != 0).any()                    # b's item 2 is a wrong answer to others


@pytest.mark.parametrize("there", [0, 1])
def test_a_pair_with_too_few_common_items_counts_nothing(there, unit):
    loc = {m: unit(5, 8, seed=i).requires_grad_() for i, m in enumerate("ab")}
    e = {m: ts.VonMisesFisher(x, torch.full((5,), 20.0, dtype=torch.float64)) for m, x in loc.items()}
    mask = torch.arange(5) < there
    loss, parts = losses.Harnessed()(e, {"a": mask})
    assert parts["contrastive"] == 0 and parts["sliced"].isfinite()
    loss.backward()
    assert loc["a"].grad.isfinite().all()


def test_gradients_reach_mu_and_kappa(unit):
    for loss in (losses.ProbabilisticContrastive(), losses.SphericalSliced(), losses.Harnessed(debias=True)):
        loc = {m: unit(6, 16, seed=i, dtype=torch.float32).requires_grad_() for i, m in enumerate("abc")}
        kappa = {m: torch.full((6,), 40.0, requires_grad=True) for m in "abc"}
        value, _ = loss({m: ts.VonMisesFisher(loc[m], kappa[m]) for m in "abc"})
        value.backward()
        for x in (*loc.values(), *kappa.values()):
            assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_gradcheck_with_frozen_noise(unit):
    x, y = unit(4, 6, seed=1).requires_grad_(), unit(4, 6, seed=2).requires_grad_()

    def f(x, y):
        torch.manual_seed(0)
        return losses.Harnessed(temperature=0.5, n_projections=4, n_samples=2)({"a": x, "b": y})[0]

    assert torch.autograd.gradcheck(f, (x, y))


def test_debias_removes_the_floor(unit):
    """Equal laws have distance 0 on average; without it the floor of finite samples remains."""
    e = laws(unit, names=("a", "b"), batch=64, d=64, kappa=40.0)
    same = {"a": e["a"], "b": ts.VonMisesFisher(e["a"].loc, e["a"].concentration)}
    plain = losses.SphericalSliced(50)(same)[0]
    debiased = losses.SphericalSliced(50, debias=True)(same)[0]
    assert plain > 0.05 and debiased.abs() < 0.01
    assert losses.SphericalSliced(50, debias=True)(e)[0] > 0.02


def test_half_embeddings_are_computed_in_float32(unit):
    e = {m: ts.VonMisesFisher(law.loc.bfloat16(), law.concentration.bfloat16(), validate_args=False) for m, law in laws(unit).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = losses.Harnessed()(e)
    assert loss.dtype == torch.float32 and loss.isfinite()


def test_bad_input(unit):
    e = laws(unit)
    loss = losses.Harnessed()
    for embeddings, present, message in [
        ({"a": e["image"]}, None, "expected at least two modalities"),
        (e | {"text": unit(4, 8)}, None, r"text: expected shape \(5, 8\) as image, got \(4, 8\)"),
        (e | {"text": unit(5, 2, 8)}, None, r"text: expected embeddings of shape \(batch, d\)"),
        (e, {"music": torch.ones(5).bool()}, "present: expected modalities among"),
        (e, {"text": torch.ones(5)}, r"present\['text'\]: expected bool"),
        (e, {"text": torch.ones(4).bool()}, r"present\['text'\]: expected bool"),
        (e, {"text": [True] * 5}, r"present\['text'\]: expected bool of shape \(5,\), got list"),
        (list(e.values()), None, "embeddings: expected a mapping from the names of modalities, got list"),
        (e | {"text": torch.ones(5, 8).long()}, None, "text: expected a tensor of a floating dtype or .* got a tensor of torch.int64"),
        (e | {"text": ts.PowerSpherical(unit(5, 8), 1.0)}, None, "text: .* got PowerSpherical"),
        ({m: unit(0, 8) for m in "ab"}, None, r"a: expected embeddings of shape \(batch, d\), batch >= 1, got \(0, 8\)"),
    ]:
        for module in (loss, loss.contrastive, loss.sliced):
            with pytest.raises(ValueError, match=message):
                module(embeddings, present)
    with pytest.raises(ValueError, match="temperature: expected a number > 0"):
        losses.ProbabilisticContrastive(temperature=0)


DRAWING = [
    losses.ProbabilisticContrastive(n_samples=3),
    losses.SphericalSliced(5, 3),
    losses.SphericalSliced(5, 3, debias=True),
    losses.Harnessed(n_samples=3, n_projections=5),
    losses.MCInfoNCE(n_samples=3),
    losses.PCME(n_samples=3, uniformity=1.0),
    losses.MPC(n_samples=3),
]


@pytest.mark.parametrize("loss", DRAWING, ids=lambda loss: type(loss).__name__)
def test_a_seed_fixes_the_draws(loss, unit):
    e = laws(unit)
    torch.manual_seed(1)
    first = loss(e, seed=5)[0]
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, loss(e, seed=5)[0]) and first != loss(e, seed=6)[0]
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())  # nothing was drawn from it


def test_draws_by_seed_and_place(unit):
    """Also where a modality is a point, which draws nothing; a second turn draws anew."""
    e = laws(unit)
    z = _embeddings.draw(e, 4, seed=9)
    for s, law in enumerate(e.values()):
        assert torch.equal(z[s], ts.vmf_sample(law.loc, law.concentration, 4, seed=9, offset=s * 5 * 4))
    mixed = _embeddings.draw({**e, "text": e["text"].loc}, 4, seed=9)
    assert torch.equal(mixed[0], z[0]) and torch.equal(mixed[2], z[2])
    twin = _embeddings.draw(e, 4, seed=9, turn=1)
    assert torch.equal(twin[0], ts.vmf_sample(e["image"].loc, e["image"].concentration, 4, seed=9, offset=3 * 5 * 4))


@pytest.mark.parametrize("loss", DRAWING[1:4], ids=lambda loss: type(loss).__name__)
def test_parts_of_the_sliced_loss_add_up(loss, unit, monkeypatch):
    """What each process makes of its rows: the gradients of these, and, with the sum over processes, the value of all."""
    e = laws(unit)
    leaves = {m: law.loc.clone().requires_grad_() for m, law in e.items()}
    e = {m: ts.VonMisesFisher(x, e[m].concentration) for m, x in leaves.items()}
    present = {"text": torch.tensor([True, False, True, True, False])}
    whole, parts = loss(e, present, seed=3)
    expected = torch.autograd.grad(whole, list(leaves.values()))
    cuts = (slice(0, 2), slice(2, 5))
    shares = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: shares.append(x.clone()))
    for rows in cuts:
        loss(e, present, seed=3, rows=rows)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: x.copy_(sum(shares[:2])))
    for rows in cuts:
        value, again = loss(e, present, seed=3, rows=rows)
        assert value.item() == pytest.approx(whole.item(), rel=1e-12) and again["sliced"].item() == pytest.approx(parts["sliced"].item())
        got = torch.autograd.grad(value, list(leaves.values()))
        for g, x in zip(got, expected, strict=True):
            torch.testing.assert_close(g[rows], x[rows], rtol=1e-9, atol=1e-12)
