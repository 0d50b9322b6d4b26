"""What every test shares: backends, dtypes, tolerances. Uninitialised memory is NaN throughout, so an unwritten output shows."""

import os
from functools import partial

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports transphere or triton

BACKENDS = ["reference", "cpu", "triton"]
# Error against float64 allowed per dtype, relative to values of order 1: a few hundred roundings of the dtype.
TOLERANCE = {torch.float32: dict(rtol=2e-5, atol=2e-6), torch.float64: dict(rtol=1e-11, atol=1e-12)}


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """In deterministic mode torch fills what `empty` returns with NaN, also inside compiled kernels."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(params=BACKENDS)
def backend(request):
    """A backend's name; where it needs a GPU and there is one, tensors are made there."""
    with torch.device("cuda" if request.param == "triton" and torch.cuda.is_available() else "cpu"):
        yield request.param


@pytest.fixture
def size(backend):
    """`size(usual, interpreted)`: Triton's interpreter is slow, so there a test runs on fewer problems, never on none."""
    return lambda usual, interpreted: interpreted if backend == "triton" else usual


@pytest.fixture
def gradcheck(backend):
    """Every entry of the Jacobian, or, interpreted, random combinations of its rows and columns."""
    return partial(torch.autograd.gradcheck, fast_mode=backend == "triton")


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def tolerance(dtype):
    return TOLERANCE[dtype]


@pytest.fixture
def unit():
    """Random unit vectors of a shape."""

    def make(*shape, dtype=torch.float64, seed=0):
        g = torch.Generator("cpu").manual_seed(seed)
        x = torch.nn.functional.normalize(torch.randn(*shape, generator=g, dtype=torch.float64, device="cpu"), dim=-1)
        return x.to(torch.get_default_device(), dtype)

    return make
