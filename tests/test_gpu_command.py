"""`make gpu` where there is no GPU: its arguments, its plan, and that a failing step is told and does not stop the others."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts/gpu.py"


@pytest.fixture
def gpu(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_command", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_command", module)
    spec.loader.exec_module(module)
    return module


def test_plan_names_every_step_and_runs_nothing(tmp_path):
    out = tmp_path / "results"
    done = subprocess.run([sys.executable, str(SCRIPT), "--dry-run", "--out", str(out), "--minutes", "3"], capture_output=True, text=True)
    assert done.returncode == 0 and not out.exists()
    steps = "packages", "build", "device", "benchmarks", "tests", "sanitizer"
    for word in (*steps, "3 minutes a step", "--device cuda", "junit.xml", str(out)):
        assert word in done.stdout, word


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT), "--out", str(tmp_path / "results")], capture_output=True, text=True)
    assert done.returncode == 1 and "no GPU" in done.stderr and torch.__version__ in done.stderr and not (tmp_path / "results").exists()


@pytest.mark.parametrize("wrong", [["--steps", "dance"], ["--minutes", "0"], ["--minutes", "soon"], ["--total", "-1"]])
def test_wrong_arguments(gpu, wrong, capsys):
    with pytest.raises(SystemExit) as error:
        gpu.main(wrong)
    assert error.value.code == 2 and wrong[0] in capsys.readouterr().err


def test_steps_go_on_after_a_failure_and_the_exit_code_tells(gpu, monkeypatch, tmp_path, capsys):
    def step(name, code):
        return lambda args, out: gpu.Step(name, f"{name}.log", [[sys.executable, "-c", code]])

    steps = {
        "good": step("good", "import os; print('said', os.environ['PYTHONPATH'])"),
        "bad": step("bad", "raise SystemExit(3)"),
        "slow": step("slow", "import time; time.sleep(60)"),
        "nothing": lambda args, out: gpu.Step("nothing", "nothing.log", [], ["not here"]),
    }
    monkeypatch.setattr(gpu, "STEPS", steps | {"broken": lambda args, out: gpu.Step("broken", "broken.log", [["/no/such/program"]])})
    monkeypatch.setattr(gpu, "probe", lambda: {"torch": "2", "cuda": "13", "gpus": ["NVIDIA H200"]})
    assert gpu.main(["--out", str(tmp_path), "--minutes", "0.04", "--commit", "abc"]) == 1
    said = capsys.readouterr().out
    assert "good: passed" in said and "bad: failed, exit code 3" in said and "slow: out of time" in said
    assert "nothing: not possible: not here" in said and "broken: failed, FileNotFoundError" in said
    assert "said" in (tmp_path / "good.log").read_text() and str(gpu.SITE) in (tmp_path / "good.log").read_text()
    machine = (tmp_path / "machine.txt").read_text()
    assert "abc" in machine and "H200" in machine and "bad: failed, exit code 3" in machine

    monkeypatch.setattr(gpu, "STEPS", {name: steps[name] for name in ("good", "nothing")})
    assert gpu.main(["--out", str(tmp_path)]) == 0
    assert (tmp_path / "good.log").read_text().count("\nsaid ") == 1  # an earlier run's log is gone


def test_total_time_bounds_all_steps(gpu, monkeypatch, tmp_path, capsys):
    slow = {name: lambda args, out, n=name: gpu.Step(n, f"{n}.log", [["sleep", "30"]]) for name in ("one", "two")}
    monkeypatch.setattr(gpu, "STEPS", slow)
    monkeypatch.setattr(gpu, "probe", lambda: {"torch": "2", "cuda": "13", "gpus": ["NVIDIA H200"]})
    assert gpu.main(["--out", str(tmp_path), "--total", "0.01"]) == 1
    assert capsys.readouterr().out.count("out of time") == 2


def test_a_step_leaves_time_to_those_after_it_and_may_report_what_it_knows(gpu, monkeypatch, tmp_path, capsys):
    slow = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('so far')"
    steps = {name: lambda args, out, n=name: gpu.Step(n, f"{n}.log", [[sys.executable, "-c", slow]]) for name in ("one", "two")}
    monkeypatch.setattr(gpu, "STEPS", steps | {"last": lambda args, out: gpu.Step("last", "last.log", [["true"]])})
    monkeypatch.setattr(gpu, "probe", lambda: {"torch": "2", "cuda": "13", "gpus": ["NVIDIA H200"]})
    assert gpu.main(["--out", str(tmp_path), "--total", "0.04"]) == 1
    said = capsys.readouterr().out
    assert said.count("out of time") == 2 and "last: passed" in said
    assert "so far" in (tmp_path / "one.log").read_text()


def test_it_builds_for_the_gpus_of_the_machine(gpu, monkeypatch, tmp_path):
    args = gpu.arguments([])
    monkeypatch.delenv("TRANSPHERE_CUDA_ARCHS", raising=False)
    assert gpu.build(args, tmp_path).env == {}
    args.archs = ["90", "90"]
    assert gpu.build(args, tmp_path).env == {"TRANSPHERE_CUDA_ARCHS": "90"}
    monkeypatch.setenv("TRANSPHERE_CUDA_ARCHS", "80")
    assert gpu.build(args, tmp_path).env == {}


def test_every_benchmark_is_in_the_plan(gpu, tmp_path):
    (command,) = gpu.benchmarks(gpu.arguments([]), tmp_path).commands
    ops = command[command.index("--ops") + 1 :]
    assert sorted(ops) == sorted(p.stem.removeprefix("bench_") for p in (ROOT / "benchmarks").glob("bench_*.py"))


def test_results_lie_under_the_name_of_the_gpu(gpu, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "probe", lambda: {"torch": "2", "cuda": "13", "gpus": ["NVIDIA H200"]})
    assert gpu.main(["--dry-run"]) == 0
    assert str(ROOT / "benchmarks/results/nvidia-h200") in capsys.readouterr().out


def test_wheels_are_installed_without_network(gpu, tmp_path):
    (tmp_path / "pytest-9-py3-none-any.whl").touch()
    step = gpu.packages(gpu.arguments(["--wheels", str(tmp_path)]), tmp_path)
    (command,) = step.commands
    assert {"--no-index", "--no-deps", "--target"} <= set(command) and command[-1].endswith("pytest-9-py3-none-any.whl")


def test_a_build_that_fell_back_fails(gpu):
    """With nvcc at hand, an extension without CUDA is no success."""
    import transphere as ts

    expected = 0 if ts.build_info()["cuda"] else 1
    assert subprocess.run([sys.executable, "-c", gpu.BUILT, "1"], capture_output=True).returncode == expected
    assert subprocess.run([sys.executable, "-c", gpu.BUILT, "0"], capture_output=True).returncode == 0
    found = json.loads(subprocess.run([sys.executable, "-c", gpu.PROBE], capture_output=True).stdout)
    assert set(found) == {"torch", "cuda", "gpus", "archs"}
