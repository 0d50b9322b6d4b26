"""The backend "emulated": CUDA kernels behind the very bindings of the CUDA build, on CPU tensors."""

import emulated
import pytest
import torch
from samples import SAMPLES

from transphere import _library


@pytest.fixture(scope="module", autouse=True)
def library(request):
    return emulated.register(request.config.getoption("sanitize"))


def outputs(name, backend, arguments):
    result = _library.op(name, backend, arguments[0])(*arguments)
    return [result] if isinstance(result, torch.Tensor) else list(result)


def implemented():
    names = torch._C._dispatch_get_registrations_for_dispatch_key("CPU")
    return {n.split("::")[1].removesuffix("_emulated") for n in names if n.startswith("transphere::") and n.endswith("_emulated")}


def test_every_emulated_op_is_sampled():
    assert implemented() == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_opcheck(name):
    torch.library.opcheck(getattr(torch.ops.transphere, f"{name}_emulated").default, SAMPLES[name]())


@pytest.mark.parametrize("name", SAMPLES)
def test_agrees_with_the_other_backends_in_every_order(name, library):
    arguments = SAMPLES[name]()
    results = []
    for seed in emulated.SEEDS:
        library.transphere_emulator_seed(seed)
        results.append(outputs(name, "emulated", arguments))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    for backend in ("reference", "cpu"):
        for got, expected in zip(results[0], outputs(name, backend, arguments), strict=True):
            if got.dtype != torch.int32:  # how many iterations a solver takes is its own affair
                torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SAMPLES)
def test_there_is_no_fallback(name):
    """An op that is not there must not run as something else."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert has(f"transphere::{name}_emulated", "CPU") and not has(f"transphere::{name}_emulated", "CUDA")
    assert has(f"transphere::{name}", "CUDA") == bool(_library.build_info()["cuda"])


def test_emulated_is_a_backend_of_the_tests_alone():
    assert "emulated" not in (emulated.ROOT / "pyext" / "_library.py").read_text()
