"""The backend "emulated": CUDA kernels behind the very bindings of the CUDA build, on CPU tensors."""

from functools import partial

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


def wide_rows(dtype):
    """Arguments whose rows kernels read 16 bytes at a time."""
    randn = partial(torch.randn, dtype=dtype)
    mu, kappa, seed = torch.nn.functional.normalize(randn(3, 32), dim=-1), 9 * torch.rand(3, dtype=dtype), torch.tensor([1, 2])
    z, w, v = torch.ops.transphere.vmf_sample(mu, kappa, seed, 2, False)
    rises = torch.randint(256, (2, 1, 8), dtype=torch.uint8)
    return {
        "vmf_sample": (mu, kappa, seed, 2, False),
        "vmf_sample_backward": (randn(3, 2, 32), z, w, v, mu, kappa, False),
        "circular_projection": (randn(3, 16),),
        "circular_projection_backward": (randn(3, 8), randn(3, 16)),
        "sliced_wasserstein": (randn(2, 4, 16), randn(2, 4, 16), 0.5),
        "sliced_wasserstein_backward": (randn(2, 8), randn(2, 8), rises, randn(2, 4, 16), randn(2, 4, 16), 0.5),
        "mahalanobis_cost_backward": (randn(2, 3, 8), randn(2, 3, 8), False),
        "symmetric_part": (randn(2, 8, 8),),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", wide_rows(torch.float32))
def test_arrays_that_begin_at_an_odd_place(name, dtype):
    """The first, or all of them, one number behind where the allocator put them."""

    def moved(x):
        return torch.empty(x.numel() + 1, dtype=x.dtype)[1:].view(x.shape).copy_(x)

    arguments = wide_rows(dtype)[name]
    everywhere = [moved(x) if isinstance(x, torch.Tensor) else x for x in arguments]
    expected = outputs(name, "emulated", arguments)
    for shifted in ([everywhere[0], *arguments[1:]], [arguments[0], *everywhere[1:]], everywhere):
        for got, want in zip(outputs(name, "emulated", shifted), expected, strict=True):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", SAMPLES)
def test_there_is_no_fallback(name):
    """An op that is not there must not run as something else."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert has(f"transphere::{name}_emulated", "CPU") and not has(f"transphere::{name}_emulated", "CUDA")
    assert has(f"transphere::{name}", "CUDA") == bool(_library.build_info()["cuda"])


def test_emulated_is_a_backend_of_the_tests_alone():
    assert "emulated" not in (emulated.ROOT / "pyext" / "_library.py").read_text()
