"""Retrieval in every direction, against a plain loop."""

import itertools
import statistics

import pytest
import torch

from transphere import chordal_mean, frechet_mean, vmf_sample
from transphere.training import config, config_rules
from transphere.training.batch import Batch, load_features
from transphere.training.classification import CLASSIFIERS
from transphere.training.data.manifest import Item, Manifest
from transphere.training.errors import UserError
from transphere.training.evaluator import Direction, can_ask, directions, embed, evaluate, mean_mrr, rank_direction, same_caption
from transphere.training.model import LOSSES, Frozen, build_model, build_objective
from transphere.training.seeding import derive

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("image", "text", "speech")


def batch_of(captions, present=None, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n = len(captions)
    items = [Item(f"i{k}", "test", f"g{k}", caption, {}) for k, caption in enumerate(captions)]
    inputs = {name: torch.randn(n, dim, generator=generator) for name in NAMES}
    there = {name: torch.ones(n, dtype=torch.bool) for name in NAMES}
    for name, values in (present or {}).items():
        there[name] = torch.tensor(values)
    return Batch(inputs, there, items)


def model_for(batch, **changes):
    torch.manual_seed(0)
    return build_model(config.Model(dim=8, **changes), {name: x.shape[1] for name, x in batch.inputs.items()})


def test_the_nine_directions_of_three_modalities():
    assert [str(d) for d in directions(NAMES)] == [
        "image->text",
        "text->image",
        "image->speech",
        "speech->image",
        "text->speech",
        "speech->text",
        "image+text->speech",
        "image+speech->text",
        "text+speech->image",
    ]
    assert len(directions("ab")) == 2 and len(directions("ab", 5)) == 2 and len(directions(NAMES, 1)) == 6
    assert len(directions("abcd")) == 12 + 12
    every = directions("abcd", 3)
    assert len(every) == 12 + 12 + 4 and str(every[-1]) == "b+c+d->a" and len(set(every)) == 28
    assert directions("abcd", 99) == every


def test_one_modality_cannot_ask_but_two_of_one_caption_can():
    for there, expected in (([False, False, False], False), ([False, True, False], False), ([False, False, True], True)):
        present = dict(zip(NAMES, ([True, False, False], there, [False, False, False]), strict=True))
        assert can_ask(batch_of(["cat", "dog", "cat"], present)) is expected


def test_same_caption_is_a_hit_but_no_caption_is_not():
    same = same_caption(batch_of(["cat", "dog", "cat", "", ""]))
    expected = torch.eye(5, dtype=torch.bool)
    expected[0, 2] = expected[2, 0] = True
    assert torch.equal(same, expected)


def brute(model, batch, n_samples, seed, mean=frechet_mean, enrich=False, size=2, metric=None):
    """MRR of every direction by loops over items, from the definition."""
    def compared(x, y):
        return float(x @ y) if metric is None else -float((x - y) @ metric @ (x - y))

    model.eval()
    with torch.no_grad():
        laws = {name: model[name](x) for name, x in batch.inputs.items()}
        z = {name: vmf_sample(law.loc, law.concentration, n_samples, seed=derive(seed, "embed", name, 0)) for name, law in laws.items()}
    result = {}
    for query in [q for k in range(1, size + 1) for q in itertools.combinations(NAMES, k)]:
        for target in NAMES:
            if target in query:
                continue
            reciprocal = []
            for i, item in enumerate(batch.items):
                if not all(batch.present[name][i] for name in query):
                    continue
                point = mean(torch.cat([z[name][i] for name in query]))
                others = [target] + [name for name in NAMES if enrich and name not in query and name != target]
                answer = lambda j: mean(torch.cat([z[name][j] for name in others if batch.present[name][j]]))  # noqa: E731, B023
                scored = [
                    (compared(point, answer(j)), other.caption == item.caption)
                    for j, other in enumerate(batch.items)
                    if batch.present[target][j]
                ]
                if any(right for _, right in scored):
                    best = max(score for score, right in scored if right)
                    reciprocal.append(1 / (1 + sum(score > best for score, right in scored if not right)))
            result["+".join(query) + "->" + target] = statistics.fmean(reciprocal)
    return result


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("options", [{}, {"mean": "chordal"}, {"enrich": True}, {"metric": True}, {"enrich": True, "mean": "chordal"}])
def test_evaluate_against_loops(missing, options):
    captions = ["cat", "dog", "cat", "bird", "fish", "dog", "hen", "cow"]
    present = {"speech": [True, False, True, True, False, True, False, True], "image": [True] * 6 + [False] * 2} if missing else None
    batch = batch_of(captions, present)
    model = model_for(batch)
    if "metric" in options:
        A = torch.randn(8, 8, generator=torch.Generator().manual_seed(5))
        options = {"metric": A @ A.T}
    got = evaluate(model, batch, 4, seed=3, **options)
    expected = brute(model, batch, 4, seed=3, **{**options, "mean": chordal_mean if options.get("mean") == "chordal" else frechet_mean})
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name]["MRR"] == pytest.approx(value), name
    assert mean_mrr(got) == pytest.approx(statistics.fmean(expected.values()))


def test_samples_do_not_depend_on_the_other_items_of_a_split_or_on_the_mode():
    batch = batch_of([f"c{k}" for k in range(130)])  # two chunks
    model = model_for(batch, dropout=0.5)
    model.train()
    whole = embed(model, batch, 3, seed=0)
    assert model.training and all(module.training for module in model.modules())
    again = embed(model.eval(), batch.select(list(range(128))), 3, seed=0)
    assert whole[("image",)].shape == (130, 8) and len(whole) == 6
    for subset, points in again.items():
        torch.testing.assert_close(whole[subset][:128], points)
    assert not torch.equal(whole[("image",)], embed(model, batch, 3, seed=1)[("image",)])
    torch.testing.assert_close(whole[("image", "text")].norm(dim=1), torch.ones(130))


def test_a_query_without_a_right_answer_is_left_out():
    batch = batch_of(["a", "b", "c"], {"speech": [True, False, False]})
    points = embed(model_for(batch), batch, 2, seed=0)
    ranking = rank_direction(Direction(("image",), "speech"), points, batch)
    assert (ranking.queries, ranking.gallery, ranking.scores.shape) == ([0], [0], (1, 1))
    assert "image->speech" in evaluate(model_for(batch), batch, 2, seed=0)
    nobody = batch_of(["a", "b"], {name: [False, False] for name in ("speech", "text")})
    assert evaluate(model_for(nobody), nobody, 2, seed=0) == {}


def test_a_broken_model_is_refused_not_praised():
    batch = batch_of(["a", "b", "c"])
    model = model_for(batch)
    with torch.no_grad():
        next(model["image"].parameters()).fill_(torch.nan)
    with pytest.raises(ValueError):
        evaluate(model, batch, 2, seed=0)


def test_kappa_stays_in_its_interval_and_mu_on_the_sphere():
    batch = batch_of(["a"] * 50, dim=7)
    laws = model_for(batch)({name: 1e3 * x for name, x in batch.inputs.items()})
    for law in laws.values():
        assert (law.concentration >= 64).all() and (law.concentration <= 128).all()
        torch.testing.assert_close(law.loc.norm(dim=1), torch.ones(50))


def test_frozen_features_are_standardised_by_training_items():
    x = torch.randn(40, 3) * torch.tensor([1e3, 1e-3, 1.0]) + torch.tensor([5.0, 0.0, -1e4])
    x[:, 2] = -1e4  # a column that does not vary
    encoder = Frozen(3)
    torch.testing.assert_close(encoder(x), x)
    encoder.fit(x)
    y = encoder(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-4, rtol=0)
    encoder.fit(x[:1])
    assert torch.isfinite(encoder(x)).all()


def test_modality_names_that_torch_cannot_take():
    for name in ("type", "a.b"):
        with pytest.raises(UserError, match="modality"):
            build_model(config.Model(), {name: 3, "text": 3})


def test_objectives():
    assert set(config_rules.OBJECTIVES) == set(LOSSES) | set(CLASSIFIERS)
    for name in LOSSES:
        eps = 0.1 if name == "entropic-contrastive" else None
        objective = build_objective(config.Objective(name=name, n_projections=4, n_samples=3, eps=eps), 8)
        batch = batch_of(["a", "b", "c", "d"], {"speech": [True, True, False, True]})
        loss, parts = objective(model_for(batch)(batch.inputs), batch.present)
        assert torch.isfinite(loss) and loss.ndim == 0 and parts
    assert build_objective(config.Objective(name="pcmr", rho=2.0, form="elementwise"), 8).rho == 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(name="contrastive", margin=0.1), "objective.margin: contrastive does not take it; it takes temperature, n_samples, dup"),
        (dict(name="entropic-contrastive"), "objective.eps: entropic-contrastive needs it"),
        (dict(name="pcmr", form="mean"), "objective: Regression: form: expected one of"),
        (dict(name="sliced", duplicates="ignore"), "objective.duplicates: sliced does not take it"),
    ],
)
def test_objectives_refuse(options, message):
    with pytest.raises(UserError, match=message):
        build_objective(config.Objective(**options), 8)


def test_features_of_a_manifest(manifest, write_manifest, tmp_path):
    read = Manifest.read(manifest)
    batch = load_features(read, config.Data())
    assert {name: tuple(x.shape) for name, x in batch.inputs.items()} == {"image": (90, 12), "text": (90, 10), "speech": (90, 8)}
    assert [item.id for item in batch.split("test").items] == [item.id for item in read.split("test")]
    assert list(load_features(read, config.Data(modalities=["speech", "image"])).inputs) == ["speech", "image"]
    with pytest.raises(UserError, match="did you mean 'image'"):
        load_features(read, config.Data(modalities=["imag", "text"]))
    one = Manifest.read(write_manifest(tmp_path / "one.jsonl", modalities=(("image", 3),)))
    with pytest.raises(UserError, match="at least two modalities"):
        load_features(one, config.Data())
    holes = load_features(Manifest.read(write_manifest(tmp_path / "holes.jsonl", missing=0.5)), config.Data())
    assert (holes.inputs["speech"][~holes.present["speech"]] == 0).all() and not holes.present["speech"].all()
    assert len(holes.matchable()) == int(
        (holes.present["image"].int() + holes.present["text"].int() + holes.present["speech"].int() >= 2).sum()
    )
    train_only = holes.select([0, 1])
    with pytest.raises(UserError, match="no item in the split 'val'"):
        train_only.split("val")


def test_a_modality_without_encoder_is_named(tmp_path):
    path = tmp_path / "m.jsonl"
    row = '{"id": "%d", "split": "train", "group": "%d", "caption": "c", "modalities": {"text": {"texts": ["a"]}, "x": {"vector": [1]}}}\n'
    path.write_text("".join(row % (k, k) for k in range(3)))
    with pytest.raises(UserError, match=r"data.encoders.text=NAME \(minilm-l6\)"):
        load_features(Manifest.read(path), config.Data())
    with pytest.raises(UserError, match="unknown name 'minilm'"):
        load_features(Manifest.read(path), config.Data(encoders={"text": "minilm"}))
