"""What every test shares: backends, dtypes, tolerances. Uninitialised memory is NaN throughout, so an unwritten output shows."""

import os
import zlib
from functools import partial

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait would spin on the cores of the other workers

import pytest  # noqa: E402
import torch  # noqa: E402

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports transphere or triton
    from triton.runtime import interpreter

    # Where one function calls another, the interpreter looks all of triton.language through for what to replace by its own, each time anew,
    # which takes longer than the function. Once a function is enough.
    prepared, first_call = set(), interpreter.InterpretedFunction.__call__

    def _call(self, *args, **kwargs):
        if self.fn in prepared:
            return self.rewrite()(*args, **kwargs)
        prepared.add(self.fn)
        return first_call(self, *args, **kwargs)

    interpreter.InterpretedFunction.__call__ = _call

import emulated  # noqa: E402

# Triton's kernels run on the GPU or in its interpreter, the CUDA ones of csrc/cuda in the emulator, and on the GPU where there is one.
BACKENDS = ["reference", "cpu", "triton", "emulated", *(["cuda"] if torch.cuda.is_available() else [])]
# Error against float64 allowed per dtype, relative to values of order 1: a few hundred roundings of the dtype.
TOLERANCE = {torch.float32: dict(rtol=2e-5, atol=2e-6), torch.float64: dict(rtol=1e-11, atol=1e-12)}


def pytest_addoption(parser):
    parser.addoption("--sanitize", action="store_true", help="build emulated kernels with sanitizers, whose runtimes must be preloaded")


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """In deterministic mode torch fills what `empty` returns with NaN, also inside compiled kernels. On a GPU some of torch's own
    operators, which references and peers use, have no deterministic form."""
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _validating_distributions():
    """torch.compile turns validation off for the whole process, the tests that follow included."""
    torch.distributions.Distribution.set_default_validate_args(__debug__)


@pytest.fixture(params=BACKENDS)
def backend(request):
    """A backend's name; where it needs a GPU and there is one, tensors are made there."""
    if request.param == "emulated":
        library = emulated.register(request.config.getoption("sanitize"))
        library.transphere_emulator_seed(zlib.crc32(request.node.name.encode()) % 8)  # the tests of one body see several orders
    with torch.device("cuda" if request.param in ("triton", "cuda") and torch.cuda.is_available() else "cpu"):
        yield request.param


@pytest.fixture
def size(backend):
    """`size(usual, small)`: Triton's interpreter and the emulator are slow, so there a test runs on fewer problems, never on none."""
    return lambda usual, small: small if backend in ("triton", "emulated") else usual


@pytest.fixture
def gradcheck(backend):
    """Every entry of the Jacobian, or, interpreted or emulated, random combinations of its rows and columns."""
    return partial(torch.autograd.gradcheck, fast_mode=backend in ("triton", "emulated"))


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
