"""The GPU kernels of sinkhorn where plain iterations take thousands: near permutations, between clusters, and nearly all of the mass."""

import emulated
import pytest
import torch
from conftest import BACKENDS
from test_sinkhorn_gpu_forms import op
from transport import embeddings

in_cuda = pytest.mark.parametrize("backend", [b for b in BACKENDS if b in ("emulated", "cuda")], indirect=True)
ORDERED = [(80, 20, "1.0", None), (80, 20, "1.0", 0.9), (90, 250, "1.5", None), (80, 210, "1.5", 0.9)]
PARTIAL = [("unrelated", 0.05, 0.9, 20), ("unrelated", 0.05, 0.9999, 60), ("1.5", 0.03, 0.9, 80), ("clustered", 0.03, 0.99, 150)]
HARD = [("1.0", 0.02), ("1.5", 0.01), ("2.0", 0.01), ("clustered", 0.03), ("clustered", 0.01)]


def costs(kind, n, dtype, count=4):
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        found.append(embeddings(kind, n))
    return torch.stack(found).to(torch.get_default_device(), dtype)


def solve(cost, eps, backend, mass=None, most=150, tol=1e-6):
    w = torch.full(cost.shape[:2], 1 / cost.shape[1], dtype=cost.dtype, device=cost.device)
    limit = None if mass is None else torch.full(cost.shape[:1], mass, dtype=cost.dtype, device=cost.device)
    return op("sinkhorn", backend)(cost, w, w, limit, None, None, eps, most, tol)


def misses(plan):
    """The L1 error of balanced plans, from their own sums."""
    weight = 1 / plan.shape[-1]
    return (plan.double().sum(-1) - weight).abs().sum(-1) + (plan.double().sum(-2) - weight).abs().sum(-1)


@in_cuda
@pytest.mark.parametrize("kind, eps", HARD)
def test_hard_problems_converge(kind, eps, backend, dtype):
    """Within 150 passes over K, all told: those of Newton's method count as iterations."""
    plan, *_, error, iterations, converged = solve(costs(kind, 64, dtype), eps, backend)
    assert converged.all() and (iterations <= 150).all() and (misses(plan) < 1.2e-6).all()


@in_cuda
@pytest.mark.parametrize("architecture", [80, 90], ids=["a grid", "a cluster"])
def test_several_blocks_converge(architecture, backend, request):
    """So do the blocks of a grid and those of a cluster, in float32, which mixing alone leaves at 3e-6."""
    if backend == "emulated":
        library = emulated.register(request.config.getoption("sanitize"))
        library.transphere_emulator_architecture(architecture)
    try:
        plan, *_, iterations, converged = solve(costs("1.5", 256, torch.float32, count=1), 0.01, backend)
    finally:
        if backend == "emulated":
            library.transphere_emulator_architecture(80)
    assert converged.all() and (iterations <= 150).all() and (misses(plan) < 1.2e-6).all()


@in_cuda
def test_easy_problems_lose_nothing(backend, dtype):
    for kind, most in (("unrelated", 7), ("0.4", 40)):
        *_, iterations, converged = solve(costs(kind, 64, dtype), 0.05, backend)
        assert converged.all() and (iterations <= most).all()


@in_cuda
@pytest.mark.parametrize("kind, eps, mass, most", PARTIAL)
def test_partial_problems_converge(kind, eps, mass, most, backend, dtype):
    """Where neither side is tight too; plain iterations take 14, more than 1000, more than 400 and 350."""
    plan, *_, error, iterations, converged = solve(costs(kind, 64, dtype, count=2), eps, backend, mass, most)
    assert converged.all() and (iterations <= most).all() and (error <= 1e-6 * mass).all()
    expected = torch.cat([torch.ops.transphere.sinkhorn(*arguments)[0] for arguments in alone(costs(kind, 64, dtype, 2), eps, mass)])
    assert (plan.cpu() - expected).abs().sum((-2, -1)).max() < 1e-3
    assert (plan.double().sum(-1) < 1 / 64 + 1e-6).all() and (plan.double().sum((-2, -1)) - mass).abs().max() < 2e-6


def alone(cost, eps, mass):
    for x in cost.cpu():
        w = torch.full((1, 64), 1 / 64, dtype=x.dtype, device="cpu")
        yield x[None], w, w, torch.full((1,), mass, dtype=x.dtype, device="cpu"), None, None, eps, 2000, 1e-7


@pytest.mark.parametrize("backend", ["emulated"], indirect=True)
@pytest.mark.parametrize("architecture, n, kind, mass", ORDERED)
def test_warps_in_any_order(architecture, n, kind, mass, backend, request):
    library = emulated.register(request.config.getoption("sanitize"))
    cost = costs(kind, n, torch.float32, count=1)
    library.transphere_emulator_architecture(architecture)
    results = []
    for seed in emulated.SEEDS if n < 100 else (0, 1, 5):
        library.transphere_emulator_seed(seed)
        results.append(solve(cost, 0.02, backend, mass, 60 if n < 100 else 40))
    library.transphere_emulator_seed(0)
    library.transphere_emulator_architecture(80)
    assert results[0][5] > 20  # Newton's method has begun
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))
