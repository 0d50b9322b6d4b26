"""What `transphere eval` can say beside the plain table, against loops and known answers."""

import itertools
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch

import transphere as ts
from transphere.training import comparison, plan_scores, separation
from transphere.training.cli import main
from transphere.training.evaluation import report_path, score_run
from transphere.training.metrics import per_query
from transphere.training.run import open_run

pytestmark = pytest.mark.usefixtures("one_thread")


def fit(manifest, out, tiny, *changes, recipe="ismir2024"):
    sets = [word for text in [*tiny, *changes] for word in ("--set", text)]
    assert main(["fit", recipe, "--data", str(manifest), "--out", str(out), *sets]) == 0
    return out


_trained = {}


@pytest.fixture
def run(tiny, write_manifest, tmp_path, tmp_path_factory, capsys):
    """A copy of one run, to write into."""
    if not _trained:
        folder = tmp_path_factory.mktemp("trained")
        _trained["run"] = fit(write_manifest(folder / "manifest.jsonl"), folder / "run", tiny)
        capsys.readouterr()
    return shutil.copytree(_trained["run"], tmp_path / "run")


def test_every_flag_at_once(run, manifest, tiny, tmp_path, capsys):
    other = fit(manifest, tmp_path / "other", tiny, "run.seed=1")
    capsys.readouterr()
    flags = ["--intervals", "--gap", "--eer", "--zero-shot", "--plan", "--against", str(other)]
    assert main(["eval", str(run), *flags]) == 0
    printed = capsys.readouterr().out
    titles = "Bootstrap over groups", "all queries", "Against", "Modality gap", "Equal error rate", "nearest class"
    assert all(words in printed for words in (*titles, "transductive, 18 queries"))
    assert "no modality is text, hence no prompts" in printed
    assert main(["eval", str(run), *flags, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"intervals", "against", "gap", "eer", "zero_shot", "plan", "directions"} <= report.keys()
    assert report == json.loads((run / "test.json").read_text())
    assert main(["eval", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["directions"] == report["directions"]


def test_other_protocols_have_files_of_their_own(run, capsys):
    for flags, name in (
        (["--mean", "chordal"], "test-chordal.json"),
        (["--enrich", "--split", "val"], "val-enriched.json"),
        (["--query-size", "1"], "test-queries1.json"),
    ):
        assert main(["eval", str(run), *flags]) == 0
        assert str(run / name) in capsys.readouterr().out and (run / name).is_file()
    assert not (run / "test.json").exists()
    assert len(json.loads((run / "test-queries1.json").read_text())["directions"]) == 6


def test_intervals_and_the_comparison_with_itself(run):
    scored = score_run(open_run(run), "test")
    found = comparison.intervals(scored)["directions"]
    assert len(found) == 10
    for name, ranking in scored.rankings():
        each = per_query(ranking.scores, ranking.positives)
        for metric in comparison.METRICS:
            interval = found[name][metric]
            assert interval["mean"] == pytest.approx(each[metric].mean()) and interval["low"] <= interval["mean"] <= interval["high"]
            assert interval["items"] == 18
    pooled = np.concatenate([per_query(r.scores, r.positives)["MRR"] for _, r in scored.rankings()])
    assert found["all queries"]["MRR"]["mean"] == pytest.approx(pooled.mean())
    for each in comparison.against(scored, scored)["directions"].values():
        assert all(m["mean"] == m["low"] == m["high"] == 0 and m["here"] == m["there"] for m in each.values())


def test_runs_that_cannot_be_compared(run, manifest, tiny, tmp_path, capsys):
    for changes in (["data.split_seed=3"], ['data.modalities=["image", "text"]']):
        other = fit(manifest, tmp_path / "other", tiny, *changes)
        assert main(["eval", str(run), "--against", str(other)]) == 2
        assert "expected the same queries of the test split" in capsys.readouterr().err
        (tmp_path / "other").rename(tmp_path / changes[0][5:9])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--prompt", "a {}"], "give --zero-shot too"),
        (["--eps", "0.1"], "give --plan too"),
        (["--against", "/nowhere"], "/nowhere: no such folder"),
        (["--zero-shot", "--prompt", "a {}"], "no modality of the run is encoded from text"),
        (["--sheet", "a.pdf"], "ends in .html or .png"),
    ],
)
def test_refusals(run, flags, words, capsys):
    assert main(["eval", str(run), *flags]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--eps", "0", "--plan"], ["--eps", "nan", "--plan"], ["--query-size", "two"], ["--mean", "median"]])
def test_values_out_of_range(run, flags, capsys):
    with pytest.raises(SystemExit):
        main(["eval", str(run), *flags])
    assert re.search("expected a (finite|whole) number|choose from", capsys.readouterr().err)


def brute_plan(cost, eps):
    """The entropic plan with uniform marginals by 2,000 plain Sinkhorn steps."""
    K = torch.exp(-cost / eps)
    u = torch.ones(len(cost), dtype=cost.dtype) / len(cost)
    for _ in range(2000):
        v = (1 / cost.shape[1]) / (K.T @ u)
        u = (1 / cost.shape[0]) / (K @ v)
    return u[:, None] * K * v


def test_scores_by_plan_order_as_the_plan_does():
    cost = torch.rand(7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = plan_scores.log_plan(cost, 0.1)
    plan = brute_plan(cost, 0.1)
    torch.testing.assert_close(torch.exp(found["scores"] / 0.1), plan, rtol=1e-4, atol=1e-9)
    assert found["converged"] and torch.equal(found["scores"].argsort(1), plan.argsort(1))
    sharp = plan_scores.log_plan(cost, 1e-3)["scores"]  # where P itself is 0 for most pairs
    assert torch.isfinite(sharp).all() and all(len(row.unique()) == 9 for row in sharp)


def test_scores_by_a_partial_plan():
    cost = torch.rand(7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = plan_scores.log_plan(cost, 0.1, 0.6)
    plan = ts.partial_sinkhorn(cost, 0.6, eps=0.1).plan
    torch.testing.assert_close(torch.exp(found["scores"] / 0.1), plan, rtol=1e-4, atol=1e-9)
    assert plan.sum().item() == pytest.approx(0.6, rel=1e-5) and found["converged"]


def test_the_plan_of_one_query_knows_nothing():
    scores = plan_scores.log_plan(torch.rand(1, 9, dtype=torch.float64), 0.05)["scores"]
    torch.testing.assert_close(scores, scores[:, :1].expand(1, 9), atol=1e-6, rtol=0)


def test_by_plan_of_a_plain_run(run):
    scored = score_run(open_run(run), "test")
    found = plan_scores.by_plan(scored)
    assert found["eps"] == 0.05 and found["cost"] == "1 - cosine"
    for name, ranking in scored.rankings():
        each = found["directions"][name]
        plan = brute_plan(1 - ranking.scores.double(), 0.05)
        expected = [1 / (1 + int((plan[i] > plan[i][ranking.positives[i]].max()).sum())) for i in range(len(plan))]
        assert each["plan"]["MRR"] == pytest.approx(np.mean(expected)) and each["label"] == "transductive, 18 queries"
        assert each["cost"]["MRR"] == pytest.approx(per_query(ranking.scores, ranking.positives)["MRR"].mean())


@pytest.mark.parametrize(("metric", "mass"), [("mahalanobis", None), ("diagonal", None), ("euclidean", 0.7)])
def test_a_run_with_a_metric_of_its_own(manifest, tiny, tmp_path, metric, mass):
    part = [f"objective.mass={mass}"] if mass else []
    out = fit(manifest, tmp_path / "run", tiny, f"objective.metric={metric}", *part, recipe="m-ltm")
    run = open_run(out)
    learned = ts.losses.LearningToMatch(16, metric=metric).M
    assert (run.metric is None) == (learned is None) and (learned is None or run.metric.shape == learned.shape)
    scored = score_run(run, "test")
    M = torch.eye(16) if run.metric is None else run.metric if run.metric.ndim == 2 else run.metric.diag()
    found = plan_scores.by_plan(scored)
    assert found["cost"].startswith("Mahalanobis") and found["mass"] == (mass or 1)
    for name, ranking in scored.rankings():
        query, _, target = name.partition("->")
        x = scored.points[tuple(query.split("+"))][ranking.queries].double()
        y = scored.points[(target,)][ranking.gallery].double()
        distance = torch.tensor([[math.sqrt(max(float((a - b) @ M.double() @ (a - b)), 0)) for b in y] for a in x], dtype=torch.float64)
        if run.metric is not None:
            torch.testing.assert_close(-ranking.scores.double(), distance, atol=1e-4, rtol=1e-4)
        cost = distance / distance.max()
        plan = ts.partial_sinkhorn(cost, mass, eps=found["eps"], max_iter=10_000).plan if mass else brute_plan(cost, found["eps"])
        expected = [1 / (1 + int((plan[i] > plan[i][ranking.positives[i]].max()).sum())) for i in range(len(plan))]
        assert found["directions"][name]["plan"]["MRR"] == pytest.approx(np.mean(expected), abs=2e-3)
    # The epoch was chosen by the same score.
    best = max((json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()), key=lambda record: record["val_mrr"])
    report = run.evaluate("val")
    assert report["epoch"] == best["epoch"] and {n: m["MRR"] for n, m in report["directions"].items()} == best["val"]
    assert report["score"].startswith("cosine" if run.metric is None else "minus")


def test_gaps_and_error_rates(run):
    scored = score_run(open_run(run), "test")
    found = separation.gaps(scored)
    assert list(found) == [f"{a}, {b}" for a, b in itertools.combinations(("image", "text", "speech"), 2)]
    rates = separation.error_rates(scored)
    assert len(rates) == 9 and all(0 <= m["EER"] <= 0.5 and m["pairs"] == 18 * 18 for m in rates.values())
    assert report_path(scored).name == "test.json"
