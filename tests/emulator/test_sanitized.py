"""Every emulated kernel, the tests' own and the ops', under AddressSanitizer and UBSan."""

import subprocess
import sys

import pytest
from emulated import ROOT, build, build_operators, operators, sanitizer_environment


def test_all_kernels_under_the_sanitizers(request):
    if request.config.getoption("sanitize"):
        pytest.skip("already under them")
    build([ROOT / "tests" / "emulator" / "correct.cu"], sanitize=True)
    build_operators(sanitize=True)
    # An op's own tests, and those that reach the forms of its kernel that small problems do not.
    names = ["emulator/test_emulator", *(f"test_{op}" for op in sorted(operators()))]
    names += ["test_circular_wasserstein_sizes", "test_sinkhorn_gpu_forms", "test_sliced_wasserstein_op"]
    files = [str(ROOT / "tests" / f"{name}.py") for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--sanitize"]
    only = ["-k", "emulated or (test_emulator and not are_cuda)"]
    result = subprocess.run([*command, *only, *files], cwd=ROOT, env=sanitizer_environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert " passed" in result.stdout and " failed" not in result.stdout
