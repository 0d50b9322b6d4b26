"""Each form of the GPU kernels of sinkhorn: matrices on chip and not, one block, a cluster, a grid, panels of columns, the log domain."""

import emulated
import pytest
import torch
from conftest import BACKENDS
from transport import embeddings

on_gpus = pytest.mark.parametrize("backend", [b for b in BACKENDS if b not in ("reference", "cpu")], indirect=True)
in_cuda = pytest.mark.parametrize("backend", [b for b in BACKENDS if b in ("emulated", "cuda")], indirect=True)
# Whether cost fits in the emulated device's shared memory, and how many blocks and panels it takes.
SHAPES = {"one warp": (5, 3), "warps side by side": (40, 260), "not on chip": (220, 220)}
SHAPES |= {"several blocks": (300, 300), "two panels": (11, 4200)}
ONE_MASS = {"several blocks": [0.6], "two panels": [None]}
FORMS = [pytest.param(*shape, mass, id=f"{name}-{mass}") for name, shape in SHAPES.items() for mass in ONE_MASS.get(name, [None, 0.6])]
# The same on sm_90, by the size of the cluster and how the matrix lies in it.
CLUSTERED = [(230, 256, None), (227, 300, 0.6), (130, 520, None), pytest.param(30, 2100, 0.6, marks=pytest.mark.slow)]
CLUSTERED_IDS = ["4 blocks, in registers", "8 blocks, the last a small one", "8 blocks, several tiles", "two panels"]


def problem(n, m, dtype, seed=0, batch=2):
    g = torch.Generator("cpu").manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=g, dtype=torch.float64, device="cpu")  # noqa: E731
    cost, a, b = rand(batch, n, m), rand(batch, n) + 0.2, rand(batch, m) + 0.2
    a[0, 0] = b[0, -1] = 0
    return [x.to(torch.get_default_device(), dtype) for x in (cost, a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True))]


def op(name, backend):
    return getattr(torch.ops.transphere, f"{name}_{backend}" if backend != "cuda" else name)


def near(got, expected, tolerance):
    for x, y in zip(got, expected, strict=True):
        y = y.double()
        torch.testing.assert_close(x.double(), y, rtol=tolerance, atol=tolerance * y.nan_to_num(0, 0, 0).abs().max().item())


@pytest.fixture
def hopper(backend, request):
    """Where a shape fits in a cluster, it gets one."""
    if backend == "emulated":
        library = emulated.register(request.config.getoption("sanitize"))
        library.transphere_emulator_architecture(90)
        yield
        library.transphere_emulator_architecture(80)
    else:
        yield


@in_cuda
@pytest.mark.parametrize("n, m, mass", CLUSTERED, ids=CLUSTERED_IDS)
def test_clusters(n, m, mass, backend, hopper):
    test_forms(n, m, mass, backend)


@on_gpus
@pytest.mark.parametrize("n, m, mass", FORMS)
def test_forms(n, m, mass, backend):
    if backend == "triton" and n * m > 20000:
        n, m = 40, 300  # it has one form: several tiles
    cost, a, b = problem(n, m, torch.float32)
    limit = None if mass is None else torch.full((2,), mass, device=cost.device)
    eps = 0.5 if mass else 0.02 if min(n, m) > 100 else 0.1  # balanced, enough iterations that updates are mixed
    arguments = cost, a, b, limit, None, None, eps, 60, 1e-6
    plan, f, g, h, error, iterations, converged = op("sinkhorn", backend)(*arguments)
    expected = torch.ops.transphere.sinkhorn_reference(*arguments[:-1], 1e-9)
    assert converged.all() and (iterations < 60).all() and (error <= 1e-6).all()
    near((plan, f, g, h), expected[:4], 1e-4)
    assert (plan[0, 0] == 0).all() and (plan[0, :, -1] == 0).all() and f[0, 0] == g[0, -1] == -torch.inf
    # A problem alone has the bits it has among others.
    alone = op("sinkhorn", backend)(*(x[1:] if isinstance(x, torch.Tensor) else x for x in arguments))
    assert torch.equal(alone[0][0], plan[1]) and torch.equal(alone[1][0], f[1]) and alone[5][0] == iterations[1]

    gradient = torch.randn(plan.shape, dtype=torch.float64).to(plan) * plan
    backward = gradient, plan, a, b, limit, f, g, eps
    near(op("sinkhorn_backward", backend)(*backward), torch.ops.transphere.sinkhorn_backward_reference(*backward), 1e-4)


@on_gpus
@pytest.mark.parametrize("mass", [None, 0.4])
def test_potentials_far_beyond_the_range_of_scalings(mass, backend, dtype):
    """Costs of 3 over an eps of .002: scalings of e^1500, which no kernel holds; the log domain does. Plain partial iterations take 1000
    there and more: those start near the solution."""
    cost, a, b = problem(5, 6, torch.float64)
    cost = cost * 0.02 + 3 * torch.rand(2, 5, 1, dtype=cost.dtype) + 3 * torch.rand(2, 1, 6, dtype=cost.dtype)
    start, limit = (None, None), None
    if mass is not None:
        limit = torch.full((2,), mass, device=cost.device, dtype=dtype)
        _, *start, _, _, _, converged = torch.ops.transphere.sinkhorn_reference(cost, a, b, limit.double(), None, None, 0.002, 2000, 1e-7)
        assert converged.all() and min((x / 0.002).nan_to_num(0, 0, 0).min() for x in start) < -200
    arguments = *(x.to(dtype) for x in (cost, a, b)), limit, *(x if x is None else x.to(dtype) for x in start), 0.002, 400, 1e-5
    got, expected = op("sinkhorn", backend)(*arguments), torch.ops.transphere.sinkhorn_reference(*arguments)
    assert got[6].all() and expected[6].all()
    near(got[:1], expected[:1], 2e-4 if dtype == torch.float32 else 5e-5)


HARD = [("1.0", 0.02, 60, torch.float64), ("1.5", 0.03, 90, torch.float32)]
HARDER = [("1.5", 0.01, None, 90, torch.float64), ("1.5", 0.01, None, 90, torch.float32), ("clustered", 0.01, None, 60, torch.float64)]
HARDER += [("1.5", 0.03, 0.9, 90, torch.float32), ("clustered", 0.03, 0.5, 60, torch.float64)]


@on_gpus
@pytest.mark.parametrize("kind, eps, most, dtype", HARD)
def test_near_permutations_take_few_iterations(kind, eps, most, dtype, backend):
    """Plain updates take more than 3000, and 675."""
    assert_takes_at_most(most, kind, eps, None, dtype, backend)


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
@pytest.mark.parametrize("kind, eps, mass, most, dtype", HARDER)
def test_triton_on_hard_problems(kind, eps, mass, most, dtype, backend):
    """Float32 and partial problems too: sums are in float64, and the scale is one more entry to mix. Plain updates take more than
    5000 where the mass is .5."""
    assert_takes_at_most(most, kind, eps, mass, dtype, backend, n=64 if mass is None else 32)


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_mixing_does_not_go_around_in_circles(backend):
    """Costs with ties, where which constraints hold changes from one mixed update to the next."""
    C = torch.rand(3, 4, 4, dtype=torch.float64, device="cpu")[1:2].round(decimals=1).to(torch.get_default_device())
    w = torch.full_like(C[:, 0], 0.25)
    *_, error, iterations, converged = op("sinkhorn", backend)(C, w, w, torch.full_like(w[:, 0], 0.8), None, None, 0.05, 300, 1e-7)
    assert converged.all() and error <= 1e-7


def assert_takes_at_most(most, kind, eps, mass, dtype, backend, n=64):
    cost = embeddings(kind, n).to(torch.get_default_device(), dtype)[None]
    w = torch.full((1, n), 1 / n, dtype=dtype, device=cost.device)
    limit = None if mass is None else torch.full((1,), mass, dtype=dtype, device=cost.device)
    plan, *_, error, iterations, converged = op("sinkhorn", backend)(cost, w, w, limit, None, None, eps, 400, 1e-6)
    assert converged.all() and error <= 1e-6 and iterations <= most
    rows, columns = plan.double().sum(-1), plan.double().sum(-2)
    if mass is None:
        assert (rows - 1 / n).abs().sum() + (columns - 1 / n).abs().sum() < 1.2e-6
    else:
        assert (rows - 1 / n).clamp(min=0).sum() + (columns - 1 / n).clamp(min=0).sum() < 1.2e-6 and abs(rows.sum() - mass) < 1.2e-6


@on_gpus
def test_a_start_beyond_all_range(backend):
    """Potentials to start from with which exp overflows."""
    cost, a, b = problem(5, 6, torch.float32)
    arguments = cost, a, b, None, 100 * torch.rand_like(a), 100 * torch.rand_like(b), 0.1, 200, 1e-6
    plan, *_, converged = op("sinkhorn", backend)(*arguments)
    assert converged.all()
    near([plan], torch.ops.transphere.sinkhorn_reference(*arguments)[:1], 1e-4)
@on_gpus
def test_all_of_a_row_forbidden(backend):
    cost, a, b = problem(5, 6, torch.float32)
    cost[1, 2] = torch.inf
    plan, *_, error, iterations, converged = op("sinkhorn", backend)(cost, a, b, None, None, None, 0.1, 400, 1e-6)
    assert converged.tolist() == [True, False] and plan[1].isnan().all() and error[1].isnan() and plan[0].isfinite().all()
