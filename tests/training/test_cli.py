"""Every command, from the words that a person types to the words that come back."""

import errno
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import transphere
from transphere.training import checkpoint, cli, trainer
from transphere.training.cli import main
from transphere.training.config import load

pytestmark = pytest.mark.usefixtures("one_thread")


def sets(tiny):
    return [word for text in tiny for word in ("--set", text)]


@pytest.fixture
def run(manifest, tiny, tmp_path, capsys):
    """A finished run."""
    assert main(["fit", "ismir2024", "--data", str(manifest), "--out", str(tmp_path / "run"), *sets(tiny)]) == 0
    capsys.readouterr()
    return tmp_path / "run"


def fails(argv, capsys, *words, code=2):
    """The command ends with one line on stderr that holds these words."""
    assert main(argv) == code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("transphere: error: ")]
    assert len(lines) == 1 and "Traceback" not in err
    for word in words:
        assert str(word) in lines[0]
    return out


def test_fit_eval_plot(manifest, tiny, tmp_path, capsys):
    out = tmp_path / "runs" / "first"
    assert main(["fit", "ismir2024", "--data", str(manifest), "--out", str(out), *sets(tiny)]) == 0
    printed = capsys.readouterr()
    assert f"transphere eval {out}" in printed.out and "validation MRR" in printed.out
    assert "kappa" in printed.err and "contrastive" in printed.err and "sliced" in printed.err  # the progress bar
    assert main(["eval", str(out)]) == 0
    table = capsys.readouterr().out
    assert "image + text → speech" in table and "median rank" in table
    assert main(["eval", str(out), "--json", "--split", "val"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["directions"]) == 9 and report["split"] == "val"
    facts = report["run"]
    assert facts["manifest"] == str(manifest) and len(facts["manifest_sha256"]) == 64 and {"torch", "transphere", "machine"} <= set(facts)
    assert report["config"]["objective"]["name"] == "harnessed"
    # What chose the epoch is what the evaluation finds again.
    best = max((json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()), key=lambda record: record["val_mrr"])
    assert report["epoch"] == best["epoch"]
    assert {name: m["MRR"] for name, m in report["directions"].items()} == best["val"]
    assert main(["plot", str(out)]) == 0
    pictures = capsys.readouterr().out.split()
    assert len(pictures) == 3
    for picture in pictures:
        with open(picture, "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_the_written_recipe_makes_the_same_run(run, tmp_path):
    assert main(["fit", str(run / "config.toml"), "--out", str(tmp_path / "again")]) == 0
    assert (run / "best.safetensors").read_bytes() == (tmp_path / "again" / "best.safetensors").read_bytes()


def test_fit_twice(run, manifest, tiny, capsys):
    again = ["fit", "ismir2024", "--data", str(manifest), "--out", str(run), *sets(tiny)]
    fails(again, capsys, "holds a run already", "--resume auto")
    before = (run / "done.json").stat().st_mtime_ns, (run / "last.pt").stat().st_mtime_ns
    assert main([*again, "--resume", "auto"]) == 0
    assert before == ((run / "done.json").stat().st_mtime_ns, (run / "last.pt").stat().st_mtime_ns)
    fails([*again, "--resume", "auto", "--set", "optim.lr=0.5"], capsys, "optim.lr = 0.001 there, 0.5 here")
    manifest.write_text(manifest.read_text().replace("thing 0", "thing zero"))
    fails([*again, "--resume", "auto"], capsys, "data or the version")
    fails(["eval", str(run)], capsys, manifest, "has changed since")


def test_resume_begins_where_there_is_nothing(manifest, tiny, tmp_path):
    assert main(["fit", "ismir2024", "--data", str(manifest), "--out", str(tmp_path / "r"), "--resume", "auto", *sets(tiny)]) == 0


def test_a_moved_manifest(run, manifest, tmp_path, capsys):
    moved = tmp_path / "moved.jsonl"
    manifest.rename(moved)
    fails(["eval", str(run)], capsys, manifest)
    assert main(["eval", str(run), "--data", str(moved)]) == 0


def test_default_out(manifest, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "ismir2024-baseline", "--data", str(manifest), *sets(tiny), "--set", "run.seed=3"]) == 0
    assert (tmp_path / "runs" / "ismir2024-baseline-seed3" / "best.safetensors").is_file()


def test_bad_fits(manifest, tiny, tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")]
    fails(["fit", "ismir2042", *out], capsys, "unknown recipe 'ismir2042'", "did you mean 'ismir2024'")
    fails(["fit", "ismir2024", *out], capsys, "no data", "--data", "tux")
    fails(["fit", "ismir2024", "--data", "tuxx", *out], capsys, "'tuxx'", "did you mean 'tux'")
    fails(["fit", "ismir2024", "--data", str(tmp_path / "no.jsonl"), *out], capsys, "no.jsonl")
    fails(["fit", "ismir2024", "--data", str(manifest), *out, "--set", "optim.lrate=1"], capsys, "'optim.lrate'", "did you mean 'optim.lr'")
    fails(["fit", "ismir2024", "--data", str(manifest), *out, "--set", "run.device=cuda:77"], capsys, "run.device")
    bad = tmp_path / "bad.jsonl"
    bad.write_text(manifest.read_text().replace('"group"', '"gruop"', 1))
    fails(["fit", "ismir2024", "--data", str(bad), *out], capsys, "line 1", "gruop")
    no_val = tmp_path / "no_val.jsonl"
    no_val.write_text(manifest.read_text().replace('"val"', '"train"'))
    fails(["fit", "ismir2024", "--data", str(no_val), *out, *sets(tiny)], capsys, "no item in the split 'val'")


def test_a_folder_that_is_not_ours(manifest, tiny, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "config.toml").write_text("mine")
    argv = ["fit", "ismir2024", "--data", str(manifest), *sets(tiny)]
    fails([*argv, "--out", str(tmp_path / "photos")], capsys, "holds no run")
    assert (tmp_path / "photos" / "config.toml").read_text() == "mine"
    fails([*argv, "--out", str(manifest)], capsys, manifest)
    fails([*argv, "--out", str(manifest / "below")], capsys, manifest)


def test_a_folder_without_permission(manifest, tiny, tmp_path, capsys, monkeypatch):
    locked, mkdir = tmp_path / "locked", Path.mkdir

    def refuse(self, *args, **kwargs):  # root may write anywhere, so the refusal is made up
        if locked in self.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    fails(["fit", "ismir2024", "--data", str(manifest), "--out", str(locked / "run"), *sets(tiny)], capsys, "locked", "Permission denied")


def test_bad_runs(run, tmp_path, capsys):
    for command in ("eval", "plot"):
        fails([command, str(tmp_path / "none")], capsys, "no such folder")
        fails([command, str(tmp_path)], capsys, "not the folder of a run")
    weights = (run / "best.safetensors").read_bytes()
    for broken in (b"", weights[:100], weights[:-10], b"x" * 500):
        (run / "best.safetensors").write_bytes(broken)
        fails(["eval", str(run)], capsys, "best.safetensors")
    (run / "best.safetensors").unlink()
    fails(["eval", str(run)], capsys, "no best checkpoint yet")
    (run / "best.safetensors").write_bytes(weights)
    recipe = (run / "config.toml").read_text()
    (run / "config.toml").write_text(recipe.replace("dim = 16", "dim = 17"))
    fails(["eval", str(run)], capsys, "does not fit config.toml")
    (run / "config.toml").unlink()
    fails(["eval", str(run)], capsys, "config.toml")
    (run / "config.toml").write_text(recipe)
    (run / "metrics.jsonl").write_text("{")
    fails(["plot", str(run)], capsys, "metrics.jsonl")
    for broken in ("{", "[]", "{}"):
        (run / "run.json").write_text(broken)
        fails(["eval", str(run)], capsys, "run.json")
    fails(["eval", str(run / "run.json")], capsys, "no such folder")


def test_a_loss_that_is_not_finite(manifest, tiny, tmp_path, capsys, monkeypatch):
    def stop(self, index, batch):
        self._stop("sliced = nan", index)

    monkeypatch.setattr(trainer.Trainer, "_step", stop)
    argv = ["fit", "ismir2024", "--data", str(manifest), "--out", str(tmp_path / "run"), *sets(tiny)]
    fails(argv, capsys, "sliced = nan", "step", "batch: kind", code=3)


def test_interrupts(manifest, tiny, tmp_path, capsys, monkeypatch):
    def interrupt(self, improved):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.Trainer, "_save", interrupt)
    argv = ["fit", "ismir2024", "--data", str(manifest), "--out", str(tmp_path / "run"), *sets(tiny)]
    fails(argv, capsys, "interrupted", "--resume auto", code=130)


def test_a_package_that_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr(cli, "_demo", lambda arguments: importlib.import_module("no_such_package"))
    fails(["demo"], capsys, "No module named 'no_such_package'", "pip install 'transphere[training]'")
    monkeypatch.setattr(cli, "_demo", lambda arguments: importlib.import_module("transphere.no_such_module"))  # that is ours to put right
    with pytest.raises(ModuleNotFoundError):
        main(["demo"])


def raises(error):
    def command(arguments):
        raise error

    return command


def test_too_little_memory(capsys, monkeypatch):
    for text in ("CUDA out of memory. Tried to allocate", "DefaultCPUAllocator: can't allocate memory", 'torch_call( "aten::new_empty")'):
        monkeypatch.setattr(cli, "_demo", raises(RuntimeError(text)))
        fails(["demo"], capsys, "out of memory; a smaller optim.batch_size", text)
    monkeypatch.setattr(cli, "_demo", raises(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["demo"])


def test_a_full_disk(manifest, tiny, tmp_path, capsys, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    argv = ["fit", "ismir2024", "--data", str(manifest), "--out", str(tmp_path / "run"), *sets(tiny)]
    fails(argv, capsys, "No space left on device")


def test_data_commands(capsys, tmp_path):
    assert main(["data", "list"]) == 0
    assert "tux" in (listed := capsys.readouterr().out) and "emoji" in listed
    fails(["data", "build", "tuxx", "--out", str(tmp_path / "x")], capsys, "'tuxx'", "did you mean 'tux'")


def test_demo_refuses_an_unknown_corpus(capsys):
    with pytest.raises(SystemExit) as error:
        main(["demo", "--corpus", "tuks"])
    assert error.value.code == 2 and "invalid choice: 'tuks'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [[], ["fit"], ["eval"], ["plot"], ["data"], ["data", "build"], ["fly"], ["fit", "ismir2024", "--resume", "maybe"]]
)
def test_incomplete_commands(argv, capsys):
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code == 2 and "usage: transphere" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["demo"], ["fit"], ["eval"], ["plot"], ["data"], ["data", "build"], ["data", "list"]])
def test_help(argv, capsys):
    with pytest.raises(SystemExit) as error:
        main([*argv, "--help"])
    text = capsys.readouterr().out
    assert error.value.code == 0 and text.startswith("usage: transphere")
    if argv == []:
        with pytest.raises(SystemExit):
            main(["--version"])
        assert capsys.readouterr().out == f"transphere {transphere.__version__}\n"
    if argv == ["fit"]:
        assert "ismir2024-baseline" in text and "--set" in text


def test_help_does_not_wait_for_torch():
    code = (
        "import sys\nfrom transphere.training import cli\ntry:\n cli.main(['--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('matplotlib', 'sklearn', 'kornia') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_python_m(tmp_path):
    ran = subprocess.run([sys.executable, "-m", "transphere.training", "eval", str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 2 and ran.stderr.startswith("transphere: error: ") and "Traceback" not in ran.stderr


def test_every_recipe_fits(manifest, tiny, tmp_path):
    from transphere.training.config import recipe_names

    for name in [name for name in recipe_names() if not load(name).model.encoders]:  # the others read files: test_full_models.py
        assert main(["fit", name, "--data", str(manifest), "--out", str(tmp_path / name), *sets(tiny)]) == 0
        assert load(tmp_path / name / "config.toml").data.manifest == str(manifest)
    assert cli.EXIT_USER == 2
