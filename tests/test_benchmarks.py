"""The benchmark harness: it refuses a wrong op, takes turns as it says, and writes what it promises."""

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import curves_sliced_wasserstein
import harness
import pytest
import report
import run
import torch

import transphere as ts

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _ordinary_memory():
    torch.use_deterministic_algorithms(False)  # some peers have no deterministic form


def tiny(op, ours, **changes):
    """x -> x^2 with one peer."""
    square = {"peer": harness.Way(lambda x: x * x)}
    inputs = (torch.linspace(1, 2, 8),)
    case = dict(op=op, shape="8", inputs=inputs, ours={"ours": harness.Way(ours)}, reference=lambda x: x**2, peers=square)
    return harness.Case(**case | changes)


@pytest.fixture
def bench(monkeypatch, tmp_path, capsys):
    """Run the harness on one made-up case; (exit code, output, result folder)."""

    def go(case):
        monkeypatch.setattr(run, "cases", lambda op, device, quick: [case])
        monkeypatch.setattr(harness, "copy_bandwidth", lambda device: 1e9)
        code = run.main(["--quick", "--seconds", "0.01", "--ops", "vmf_sample", "--out", str(tmp_path)])
        return code, capsys.readouterr().out, tmp_path

    return go


def test_quick_writes_tidy_csv_and_markdown(bench):
    code, out, folder = bench(tiny("square", lambda x: x * x, bytes_moved={harness.FORWARD: 64}, floors={"copy": harness.Way(torch.clone)}))
    assert code == 0
    with (folder / "benchmarks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set("op way mode metric unit shape p20 p50 p80 device threads versions commit timestamp".split()) <= set(rows[0])
    assert all(rows[0].values())
    assert {(r["way"], r["mode"]) for r in rows} == {
        *((way, mode) for way in ("ours", "peer", "floor: copy") for mode in (harness.FORWARD, harness.BOTH)),
        ("floor: bytes / copy bandwidth", harness.FORWARD),
    }
    assert all(0 < float(r["p20"]) <= float(r["p50"]) <= float(r["p80"]) for r in rows if r["metric"] == "time")
    text = (folder / "benchmarks.md").read_text()
    for word in ("commit", "versions", "threads", "p20 ms", "p50 / ours", "| peer |", "copy bandwidth"):
        assert word in text, word
    assert "| ours |" in out and "torch" in out


def test_add_keeps_other_ops(tmp_path):
    import report

    file, about = tmp_path / "benchmarks.csv", {"device": "x", "threads": "2", "versions": "v", "commit": "abc", "timestamp": "t"}
    fields = dict(way="ours", mode="forward", metric="time", unit="ms", shape="1")
    rows = [report.row([1.0, 2.0], op=op, **fields) for op in ("a", "b")]
    report.write_csv(file, rows, about)
    (kept,) = report.read_csv(file, but=["a"])
    assert (kept["op"], kept["commit"], kept["p50"]) == ("b", "abc", 1.5)
    report.write_csv(file, [kept, report.row([3.0], op="a", **fields)], about | {"commit": "def"})
    assert {(r["op"], r["commit"]) for r in report.read_csv(file, but=[])} == {("b", "abc"), ("a", "def")}
    assert report.read_csv(tmp_path / "none.csv", but=[]) == [] and "### b, forward: 1" in report.tables([kept])


class WrongSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x**2

    @staticmethod
    def backward(ctx, grad):
        return grad


BROKEN = {
    "value": tiny("square", lambda x: x * x + 1e-3),
    "one entry": tiny("square", lambda x: x * x + torch.tensor([0.0] * 7 + [1e-3])),
    "nan": tiny("square", lambda x: x * x * torch.nan),
    "shape": tiny("square", lambda x: (x * x)[None]),
    "gradient": tiny("square", WrongSlope.apply),
    "no gradient": tiny("square", lambda x: x.detach() ** 2 + 0 * x),
    "raises": tiny("square", lambda x: x.no_such_method()),
    "peer is wrong": tiny("square", lambda x: x * x, peers={"peer": harness.Way(lambda x: x)}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_no_figure_for_a_broken_op(bench, name):
    code, out, folder = bench(BROKEN[name])
    assert code == 1 and "CHECK FAILED" in out
    assert "| ours |" not in out and not list(folder.iterdir())


# What each benchmark calls, broken by 2 percent, in its value and its gradients or in its gradients alone.
ENTRY = {
    "circular_wasserstein": (ts, "circular_wasserstein"),
    "circular_wasserstein_power": (ts, "circular_wasserstein"),
    "frechet_mean": (ts, "frechet_mean"),
    "learning_to_match": (ts, "learning_to_match"),
    "loss_step": (ts.losses.Harnessed, "forward"),
    "mahalanobis_cost": (ts, "mahalanobis_cost"),
    "match_step": (ts, "learning_to_match"),
    "psd_project": (ts, "psd_project"),
    "partial_sinkhorn": (ts, "partial_sinkhorn"),
    "sinkhorn": (ts, "sinkhorn"),
    "sliced_wasserstein": (ts, "sliced_wasserstein_sphere"),
    "vmf_cumulant": (ts, "vmf_log_normalizer"),
    "vmf_fit": (ts, "vmf_fit"),
    "vmf_sample": (ts, "vmf_sample"),
}


def bend(result, value, gradient):
    if isinstance(result, tuple):  # a loss and its parts
        return bend(result[0], value, gradient), result[1]
    scaled = result * gradient
    return scaled + (result * value - scaled).detach()


@pytest.mark.parametrize(("value", "gradient"), [(1.02, 1.0), (1.0, 0.95)], ids=["value", "gradient"])
@pytest.mark.parametrize("op", run.OPS)
def test_every_benchmark_notices_its_broken_op(monkeypatch, op, value, gradient):
    (case,) = run.cases(op, CPU, quick=True)
    case = dataclasses.replace(case, peers={})
    harness.check(case)

    holder, name = ENTRY[op]
    right = getattr(holder, name)

    def wrong(*args, **kwargs):
        result = right(*args, **kwargs)
        return result if kwargs.get("backend") == "reference" else bend(result, value, gradient)

    monkeypatch.setattr(holder, name, wrong)
    (case,) = run.cases(op, CPU, quick=True)
    with pytest.raises(harness.CheckFailed, match=f"{op}.*ours"):
        harness.check(dataclasses.replace(case, peers={}))


def test_ways_take_turns_forth_and_back():
    seen = []
    calls = {name: (lambda name=name: seen.append(name)) for name in "abc"}
    times = harness.alternate(calls, lambda f, calls: f() or 1.0, budget=0.0)
    assert {name: len(t) for name, t in times.items()} == dict.fromkeys("abc", harness.MIN_ROUNDS)
    warm_up = ["a", "a", "b", "b", "c", "c"]
    assert seen == warm_up + [*"abc", *"cba"] * (harness.MIN_ROUNDS // 2) + [*"abc"]


def test_a_short_call_is_repeated_and_rounds_are_bounded():
    repeats = []
    harness.alternate({"a": lambda: None}, lambda f, calls: repeats.append(calls) or 1e-6, budget=1e9)
    assert repeats == [1] + [1000] * harness.MAX_ROUNDS


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells")
def test_peak_memory_of_a_cpu():
    source = torch.ones(32 << 20, dtype=torch.uint8)
    assert 126 < harness.peak_memory(lambda: source.repeat(2) + 0, CPU) / 2**20 < 134  # two arrays of 64 MiB
    assert harness.peak_memory(lambda: source.add_(1), CPU) < 4 << 20


def test_slow_and_absent_peers_are_named_not_timed(bench):
    def absent(x):
        raise ImportError("not here")

    peers = {"slow": harness.Way(lambda x: [x * x for _ in range(20_000)][-1]), "absent": harness.Way(absent)}
    code, out, _ = bench(tiny("square", lambda x: x * x, peers=peers))
    assert code == 0 and "without slow: a call takes more than 0.01 s" in out and "without absent: ImportError: not here" in out
    assert "| slow |" not in out and "| absent |" not in out
    assert harness.optional("no_such_module") is None and harness.optional("math").pi > 3


def test_curves_are_measured_and_drawn(tmp_path):
    import curves_vmf_sample as curves

    pytest.importorskip("matplotlib")
    assert curves.main(["--points", "2", "--seconds", "0.01", "--out", str(tmp_path)]) == 0
    with (tmp_path / "curves_vmf_sample.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {r["way"] for r in rows} == set(curves.STYLES) and {r["shape"].split()[0] for r in rows} == {"d", "laws", "kappa"}
    assert (tmp_path / "curves_vmf_sample.png").stat().st_size > 10_000


def test_curves_of_the_sliced_distance(monkeypatch, tmp_path):
    monkeypatch.setattr(curves_sliced_wasserstein, "POINTS", 64)
    assert curves_sliced_wasserstein.main(["--points", "1", "--seconds", "0.01", "--out", str(tmp_path)]) == 0
    with (tmp_path / "curves_sliced_wasserstein.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {r["way"] for r in rows} >= {"ours", "eager torch"} and {r["mode"] for r in rows} == {harness.FORWARD, harness.BOTH}
    assert (tmp_path / "curves_sliced_wasserstein.png").stat().st_size > 10_000


def test_percentiles():
    assert [report.percentile([4.0, 1.0, 2.0, 3.0, 5.0], p) for p in (0, 20, 50, 80, 100)] == pytest.approx([1, 1.8, 3, 4.2, 5])
    assert report.percentile([2.0], 80) == 2.0


def test_every_op_is_listed_and_arguments_are_checked():
    """By the command line, as `make bench` calls it."""
    command = [sys.executable, str(ROOT / "benchmarks/run.py")]
    wrong = subprocess.run([*command, "--ops", "nothing"], capture_output=True, text=True)
    assert wrong.returncode == 2 and all(op in wrong.stderr for op in ENTRY)
    assert set(run.OPS) == set(ENTRY)
    if not torch.cuda.is_available():
        no_gpu = subprocess.run([*command, "--device", "cuda"], capture_output=True, text=True)
        assert no_gpu.returncode == 2 and "no GPU" in no_gpu.stderr


@pytest.mark.parametrize("batch", [None, 2])
def test_curves_of_time_against_accuracy(batch, tmp_path):
    import curves_sinkhorn as curves
    from transport_costs import matched

    C, rows = matched(16, d=8, batch=batch), []
    for way, points in curves.ways(C, 0.1).items():
        errors = [curves.l1(f()) for _, f in points]
        assert len(errors) >= 6 and errors[-1] < 1e-2 and errors[-1] <= errors[0]
        rows += [dict(costs="matched", b=256, batch=1, eps=0.05, way=way, error=e, ms=1.0 + k) for k, e in enumerate(errors)]
    curves.draw(rows, tmp_path / "curves_sinkhorn.png")
    assert (tmp_path / "curves_sinkhorn.png").stat().st_size > 10000


def test_iterations_of_sinkhorn(tmp_path):
    import iterations_sinkhorn as iterations

    iterations.main(["--sizes", "32", "--seeds", "1", "--seconds", "0.02", "--out", str(tmp_path)])
    text = (tmp_path / "iterations_sinkhorn.md").read_text()
    assert "| float64 | 32 |" in text and text.count("| clustered | 32 |") == 3
