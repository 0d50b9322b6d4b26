"""`transphere check metrics`: it agrees with what is right, and finds what is wrong."""

import json

import numpy as np
import pytest
import torch

from transphere.training import brute_force, check_metrics, geometry
from transphere.training.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")


def test_made_up_scores_agree(capsys):
    assert main(["check", "metrics"]) == 0
    said = capsys.readouterr().out
    count = len(list(check_metrics.made_up()))
    assert f"{count} of {count} numbers agree" in said and count > 100


def agreeing(capsys):
    """The number of numbers in "351 of 351 numbers agree"."""
    return int(capsys.readouterr().out.splitlines()[-1].split()[0])


@pytest.mark.parametrize("recipe", ["ismir2024", "m-ltm"])
def test_a_run_agrees_until_something_is_changed(manifest, tiny, tmp_path, capsys, monkeypatch, recipe):
    out = tmp_path / "run"
    sets = [word for text in tiny for word in ("--set", text)]
    assert main(["fit", recipe, "--data", str(manifest), "--out", str(out), *sets]) == 0
    assert main(["check", "metrics", str(out)]) == 0
    first = agreeing(capsys)
    assert main(["eval", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert main(["check", "metrics", str(out)]) == 0
    assert agreeing(capsys) > first  # the report's numbers are compared too
    report["directions"]["text->image"]["mAP"] += 1e-6
    (out / "test.json").write_text(json.dumps(report))
    assert main(["check", "metrics", str(out)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("differs: text->image mAP in test.json: ") and said.count("differs") == 1
    (out / "test.json").unlink()
    monkeypatch.setattr(geometry, "zero_shot", lambda scores, labels: {"T1": 0.123, "accuracy": 0.0})
    assert main(["check", "metrics", str(out)]) == 1
    assert capsys.readouterr().out.count("T1: 0.123") == 9
    monkeypatch.undo()
    right = check_metrics.retrieval_metrics
    monkeypatch.setattr(check_metrics, "retrieval_metrics", lambda s, p: {**right(s, p), "MRR": float("nan")})
    assert main(["check", "metrics", str(out)]) == 1
    assert capsys.readouterr().out.count("MRR: nan") == 9


def test_error_rate_and_gap_by_loops():
    generator = np.random.default_rng(0)
    for _ in range(20):
        scores = generator.integers(0, 12, 60).astype(float)
        same = generator.random(60) < 0.3
        same[:2] = True, False
        rate = brute_force.equal_error_rate(scores.tolist(), same.tolist())
        assert rate == pytest.approx(geometry.equal_error_rate(scores, same), abs=1e-12)
    x, y = torch.randn(2, 9, 4).double()
    fast = geometry.modality_gap(x, y)
    for name, value in brute_force.gap(x.tolist(), y.tolist()).items():
        assert fast[name] == pytest.approx(value, abs=1e-12)


def test_a_run_that_is_not_there(tmp_path, capsys):
    assert main(["check", "metrics", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
