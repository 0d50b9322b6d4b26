"""Our own times from commit to commit, by pytest-benchmark, over the cases of bench_*.py: `make bench-track`.

    make bench-track                                   # measures and saves under .benchmarks/
    make bench-track TRACK=--benchmark-compare         # beside the run saved last

run.py compares ways with each other, which must take turns; this compares a way with itself, earlier, for which pytest-benchmark has the
storage and the tables. Nothing is timed before it passed its check, here either.
"""

import dataclasses
import importlib
from pathlib import Path

import harness
import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OPS = sorted(p.stem for p in Path(__file__).parent.glob("bench_*.py"))


@pytest.mark.parametrize("mode", [harness.FORWARD, harness.BOTH])
@pytest.mark.parametrize("op", OPS)
def test_ours(benchmark, op, mode):
    (case,) = importlib.import_module(op).cases(DEVICE, quick=True)
    if mode not in case.modes:
        pytest.skip(f"{op} has no {mode}")
    case = dataclasses.replace(case, peers={}, modes=(mode,))
    harness.check(case)
    timed = harness.call(case.ours["ours"].run, case.inputs, mode)

    def synchronised():
        timed()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark(synchronised)
