"""A run that is cut anywhere goes on as if it had not been."""

import json
import os
import signal

import pytest
import torch

from transphere.training import check_resume, checkpoint, config
from transphere.training.cli import main
from transphere.training.errors import Stopped, UserError
from transphere.training.run import fit
from transphere.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
EVERYTHING = ["optim.ema=0.9", "optim.schedule=cosine", "optim.warmup=3", "optim.clip_norm=1", "optim.accumulate=2"]


def recipe(manifest, tiny, *more, name="ismir2024"):
    return config.load(name, [*tiny, f"data.manifest={manifest}", "optim.epochs=2", "optim.batch_size=9", "run.save_every=1", *more])


def same(one, other):
    return check_resume._differing(one, other) == []


def cut(monkeypatch, step, action):
    """`action` happens after this step, within the call of fit."""
    original = Trainer._step

    def act(self, *batch):
        result = original(self, *batch)
        if self.step == step:
            action()
        return result

    monkeypatch.setattr(Trainer, "_step", act)


@pytest.mark.parametrize("name", ["ismir2024", "m-ltm"])
def test_cut_after_any_step(name, manifest, tiny, tmp_path, monkeypatch):
    """Six steps an epoch, a checkpoint each: cut in the first epoch, at its end, and in the second."""
    made = recipe(manifest, tiny, *EVERYTHING, name=name)
    fit(made, tmp_path / "straight", progress=False)
    for step in (1, 6, 9, 12):
        out = tmp_path / f"cut{step}"
        with monkeypatch.context() as patch:
            cut(patch, step, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                fit(made, out, progress=False)
        torch.randn(step)
        fit(made, out, resume=True, progress=False)
        assert same(out, tmp_path / "straight"), step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_within_the_epoch_and_the_command_says_how_to_go_on(number, manifest, tiny, tmp_path, monkeypatch, capsys):
    made = recipe(manifest, tiny, "run.save_every=0")
    fit(made, tmp_path / "straight", progress=False)
    before = signal.getsignal(number)
    argv = ["fit", "ismir2024", "--out", str(tmp_path / "run"), "--resume", "auto"]
    argv += [word for text in [*tiny, f"data.manifest={manifest}", "optim.epochs=2", "optim.batch_size=9"] for word in ("--set", text)]
    with monkeypatch.context() as patch:
        cut(patch, 8, lambda: os.kill(os.getpid(), number))
        assert main(argv) == 75
    error = capsys.readouterr().err
    assert f"stopped by {number.name} at step 8 (epoch 2)" in error and "--resume auto" in error
    assert signal.getsignal(number) is before
    state = checkpoint.load_state(tmp_path / "run" / "last.pt")
    assert (state["step"], state["epoch"], state["batch"]) == (8, 2, 2)
    assert main(argv) == 0
    assert same(tmp_path / "run", tmp_path / "straight")


def test_a_signal_is_not_lost_in_the_last_step(manifest, tiny, tmp_path, monkeypatch):
    made = recipe(manifest, tiny)
    with monkeypatch.context() as patch:
        cut(patch, 12, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped, match="step 12"):
            fit(made, tmp_path / "run", progress=False)
    assert fit(made, tmp_path / "run", resume=True, progress=False)["epochs"] == 2
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("damage", ["empty", "truncated", "other content", "missing"])
def test_a_broken_checkpoint_falls_back_to_the_one_before(damage, manifest, tiny, tmp_path, capsys):
    made, out = recipe(manifest, tiny, "run.save_every=2"), tmp_path / "run"
    fit(made, out, progress=False)
    fit(made, tmp_path / "straight", progress=False)
    (out / "done.json").unlink()
    last, data = out / "last.pt", (out / "last.pt").read_bytes()
    step = checkpoint.load_state(checkpoint.previous(last))["step"]
    if damage == "missing":
        last.unlink()
    else:
        last.write_bytes({"empty": b"", "truncated": data[: len(data) // 2], "other content": b"x" * 1000}[damage])
    fit(made, out, resume=True, progress=False)
    said = capsys.readouterr().err
    assert "last.pt" in said and f"last-previous.pt, of step {step}" in said
    assert same(out, tmp_path / "straight")


def test_two_broken_checkpoints_are_an_error(manifest, tiny, tmp_path):
    made, out = recipe(manifest, tiny), tmp_path / "run"
    fit(made, out, progress=False)
    (out / "done.json").unlink()
    for name in ("last.pt", "last-previous.pt"):
        (out / name).write_bytes(b"PK")
    with pytest.raises(UserError, match="last.pt: not a readable checkpoint"):
        fit(made, out, resume=True, progress=False)


def test_the_last_two_and_the_best_are_kept_and_nothing_else(manifest, tiny, tmp_path):
    fit(recipe(manifest, tiny), tmp_path / "run", progress=False)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    kept = {"last.pt", "last-previous.pt", "best.safetensors", "metrics.jsonl", "run.json", "config.toml", "done.json"}
    assert names == kept
    assert checkpoint.load_state(tmp_path / "run" / "last-previous.pt")["step"] == 12  # of the last step, before its validation


def test_how_often_a_run_is_saved_does_not_make_it_another(manifest, tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        cut(patch, 8, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        with pytest.raises(Stopped):
            fit(recipe(manifest, tiny), tmp_path / "run", progress=False)
    fit(recipe(manifest, tiny, "run.save_every=5", "run.timeout=9"), tmp_path / "run", resume=True, progress=False)
    with pytest.raises(UserError, match="optim.ema"):
        fit(recipe(manifest, tiny, "optim.ema=0.5"), tmp_path / "run", resume=True, progress=False)


def test_check_resume(manifest, tiny, capsys):
    """Real kills, of real processes."""
    argv = ["check", "resume", "ismir2024", "--data", str(manifest)]
    assert main(argv + [word for text in (*tiny, "optim.ema=0.9") for word in ("--set", text)]) == 0
    printed = capsys.readouterr().out
    assert "to be killed after step" in printed and "equal bit for bit" in printed


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_check_resume_with_several_processes(size, manifest, tiny, capsys):
    argv = ["check", "resume", "ismir2024", "--data", str(manifest), "--nproc", str(size)]
    assert main(argv + [word for text in tiny for word in ("--set", text)]) == 0


def test_check_resume_says_what_differs(manifest, tiny, tmp_path):
    for seed, out in ((0, tmp_path / "a"), (1, tmp_path / "b")):
        fit(recipe(manifest, tiny, f"run.seed={seed}"), out, progress=False)
    differing = check_resume._differing(tmp_path / "a", tmp_path / "b")
    assert "model/image.head.loc.weight" in differing and "best.safetensors" in differing and "metrics.jsonl" in differing


@pytest.mark.parametrize(
    ("argv", "message"), [(["--nproc", "0"], "at least 1"), (["--nproc", "99"], "three batches"), (["--set", "x=1"], "--set")]
)
def test_check_resume_refuses(argv, message, manifest, capsys):
    assert main(["check", "resume", "ismir2024", "--data", str(manifest), *argv]) == 2
    assert message in capsys.readouterr().err


def test_a_state_from_before_a_change_of_the_world(manifest, tiny, tmp_path):
    """No generator and no process is in a state: json and tensors alone."""
    fit(recipe(manifest, tiny), tmp_path / "run", progress=False)
    state = checkpoint.load_state(tmp_path / "run" / "last.pt")
    assert set(state) == {
        "digest", "model", "objective", "optimizer", "schedule", "step", "epoch", "batch", "sums", "seconds", "waited", "best", "history",
    }  # fmt: skip
    assert json.loads(state["history"])[-1]["step"] == state["step"] == 12
