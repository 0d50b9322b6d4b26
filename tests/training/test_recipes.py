"""Every recipe over features from the first command to the last, on a corpus of vectors: fit, eval, plot. Seconds each."""

import json

import pytest

from transphere.training.cli import main
from transphere.training.config import load, recipe_names

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", [name for name in recipe_names() if not load(name).model.encoders])
def test_fit_eval_plot(name, manifest, tiny, tmp_path, capsys):
    out = tmp_path / "run"
    changes = [word for text in [*tiny, "optim.epochs=2"] for word in ("--set", text)]
    assert main(["fit", name, "--data", str(manifest), "--out", str(out), *changes]) == 0
    assert f"transphere eval {out}" in capsys.readouterr().out
    assert main(["eval", str(out)]) == 0
    assert "MRR" in capsys.readouterr().out
    assert json.loads((out / "test.json").read_text())["directions"]
    assert main(["plot", str(out)]) == 0
    drawn = [line for line in capsys.readouterr().out.splitlines() if line.endswith((".png", ".html"))]
    assert len(drawn) >= 3 and all((tmp_path / line).stat().st_size > 1000 for line in drawn)
