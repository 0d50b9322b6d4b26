"""What every test shares: backends, dtypes, tolerances. Uninitialised memory is NaN throughout, so an unwritten output shows."""

import zlib

import emulated
import pytest
import torch

BACKENDS = ["reference", "cpu"]
# Error against float64 allowed per dtype, relative to values of order 1: a few hundred roundings of the dtype.
TOLERANCE = {torch.float32: dict(rtol=2e-5, atol=2e-6), torch.float64: dict(rtol=1e-11, atol=1e-12)}


def pytest_addoption(parser):
    parser.addoption("--sanitize", action="store_true", help="build emulated kernels with sanitizers, whose runtimes must be preloaded")


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """In deterministic mode torch fills what `empty` returns with NaN, also inside compiled kernels."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def pytest_generate_tests(metafunc):
    """A file test_<op>.py also runs the CUDA kernel of its op, through the emulator."""
    if "backend" in metafunc.fixturenames:
        op = metafunc.module.__name__.rsplit(".", 1)[-1].removeprefix("test_")
        metafunc.parametrize("backend", [*BACKENDS, *(["emulated"] if op in emulated.operators() else [])], indirect=True)


@pytest.fixture
def backend(request):
    if request.param == "emulated":
        library = emulated.register(request.config.getoption("sanitize"))
        library.transphere_emulator_seed(zlib.crc32(request.node.name.encode()) % 8)  # the tests of one body see several orders
    return request.param


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
        g = torch.Generator().manual_seed(seed)
        return torch.nn.functional.normalize(torch.randn(*shape, generator=g, dtype=torch.float64), dim=-1).to(dtype)

    return make
