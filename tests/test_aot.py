"""Every Triton and CUDA kernel compiles for sm_80 and sm_90 without a GPU, none spills unsaid, and the written table is what comes out."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "resources.py"
LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z3addPfi' for 'sm_90'
ptxas info    : Function properties for _Z3addPfi
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers, 364 bytes cmem[0]
ptxas info    : Compiling entry function 'sort' for 'sm_80'
ptxas info    : Function properties for sort
    48 bytes stack frame, 44 bytes spill stores, 40 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 4096 bytes smem, 364 bytes cmem[0]
"""


@pytest.fixture
def resources():
    spec = importlib.util.spec_from_file_location("resources", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["resources"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["resources"]


def test_kernels_compile_without_spills():
    """In a process of its own: here Triton interprets."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def test_reports_of_ptxas(resources, monkeypatch):
    monkeypatch.setattr(resources, "_demangled", lambda name: name)
    add, sort = resources.from_ptxas(LOG)
    assert add == resources.Usage("_Z3addPfi", 90, 10, 0, 0, 0) and sort == resources.Usage("sort", 80, 255, 4096, 44, 48)


def test_spills_fail_unless_there_is_a_reason(resources, monkeypatch):
    usages = resources.from_ptxas(LOG)
    monkeypatch.setattr(resources, "ALLOWED", {})
    assert resources.failures(usages) == ["sort on sm_80: spills 44 bytes, keeps a stack of 48"]
    monkeypatch.setattr(resources, "ALLOWED", {"sort": "a reason"})
    assert not resources.failures(usages) and "| a reason |" in resources.table(usages, "Triton 0")
    monkeypatch.setattr(resources, "ALLOWED", {"sort": "a reason", "add": "none needed"})
    assert resources.failures(usages) == ["'add' is allowed to spill and does not"]


def test_stale_tables_are_seen(resources):
    usages = resources.from_ptxas(LOG)
    text = resources.table(usages, "Triton 0")
    assert not resources.stale(usages, text, "Triton 0")
    assert len(resources.stale(usages[1:], text, "Triton 0")) == 1                             # a kernel that is gone
    changed = text.replace("| 255 |", "| 254 |")
    assert len(resources.stale(usages, changed, "Triton 0")) == 2 and not resources.stale(usages, changed, "Triton 1")


def test_no_sum_of_what_was_loaded_is_added_up_in_a_loop():
    """Triton 3.6 cannot compile that where the result has two uses. Adding up tiles costs less as well."""
    for path in (SCRIPT.parent.parent / "kernels").glob("*.py"):
        assert not re.search(r"\+= tl\.sum\((tl\.load|_tile)\([^()]*\), 1\)", path.read_text()), path.name
