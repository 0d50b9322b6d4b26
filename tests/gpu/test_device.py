"""What only a device can show: results equal to the CPU's sample by sample, graphs, compilation, streams, several devices, no host sync.

`make gpu` runs these; without a GPU they are not collected (conftest.py).
"""

import circular_power
import emulated
import pytest
import torch
from samples import SAMPLES

import transphere as ts
from transphere import _library

B, L, D, N, P = 7, 5, 48, 9, 12


def available(backend):
    if backend is None or backend == "reference":
        return True
    try:
        _library.op("vmf_sample", backend, torch.empty(0, device="cuda"))
    except RuntimeError:
        return False
    return True


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def tol(x):
    """To rounding, or ways that iterate differently end apart by as much as a tolerance lets them."""
    return 1e-13 if x.dtype == torch.float64 else 1e-6


# Inputs on the CPU in float64, and the call. All draws come from a seed.
CALLS = {
    "vmf_sample": (lambda: (unit(B, D), 5 + 90 * torch.rand(B).double()), lambda mu, kappa, **b: ts.vmf_sample(mu, kappa, L, seed=3, **b)),
    "vmf_log_normalizer": (lambda: (200 * torch.rand(B, 3).double(),), lambda kappa, **b: ts.vmf_log_normalizer(kappa, D, **b)),
    "vmf_kl_uniform": (lambda: (200 * torch.rand(B, 3).double(),), lambda kappa, **b: ts.vmf_kl_uniform(kappa, D, **b)),
    "vmf_fit": (lambda: (unit(B, N, D),), lambda z, **_: ts.vmf_fit(z)[1]),
    "circular_wasserstein": (lambda: (torch.rand(B, N).double(), torch.rand(B, N + 2).double()), ts.circular_wasserstein),
    "circular_wasserstein_power": (
        lambda: (torch.rand(B, N).double(), torch.rand(B, N + 2).double()),
        lambda u, v, **b: ts.circular_wasserstein(u, v, p=2, **b),
    ),
    "sliced_wasserstein_sphere": (
        lambda: (unit(B, N, D), unit(B, N + 2, D)),
        lambda x, y, **b: ts.sliced_wasserstein_sphere(x, y, P, seed=3, **b),
    ),
    "mahalanobis_cost": (lambda: (unit(B, N, D), unit(B, N + 2, D), torch.eye(D).double() + unit(D, D)), ts.mahalanobis_cost),
    "sinkhorn": (lambda: (torch.rand(B, N, N + 2).double(),), lambda cost, **b: ts.sinkhorn(cost, eps=0.1, tol=tol(cost), **b).plan),
    "partial_sinkhorn": (
        lambda: (torch.rand(B, N, N + 2).double(),),
        lambda cost, **b: ts.partial_sinkhorn(cost, 0.6, eps=0.1, tol=tol(cost), **b).plan,
    ),
    "psd_project": (lambda: (unit(B, D, D),), lambda M, **_: ts.psd_project(M)),
    "frechet_mean": (lambda: (torch.nn.functional.normalize(unit(B, 1, D) + 0.5 * unit(B, N, D), dim=-1),), None),
}
# Without a seed: a graph cannot copy one from the host. Deterministic in their inputs.
PURE = ["vmf_log_normalizer", "vmf_kl_uniform", "vmf_fit", "circular_wasserstein", "circular_wasserstein_power", "frechet_mean"]
PURE += ["mahalanobis_cost", "sinkhorn", "partial_sinkhorn"]


@pytest.fixture(params=CALLS)
def name(request):
    return request.param


@pytest.fixture(params=[None, "cuda", "triton", "reference"], ids=str)
def device_backend(request):
    """The dispatcher's choice, and each backend that this device has."""
    if not available(request.param):
        pytest.skip(f"backend {request.param!r} is not built here")
    return request.param


def function(name, backend=None):
    call = CALLS[name][1]
    if call is None:  # frechet_mean is made of torch's own kernels and takes no backend
        return ts.frechet_mean
    return lambda *inputs: call(*inputs, backend=backend)


def inputs_of(name, dtype=torch.float32, device="cuda"):
    torch.manual_seed(1)
    return [x.to(device, dtype).requires_grad_() for x in CALLS[name][0]()]


def loss_of(inputs, draws=4):
    mu, kappa = inputs
    laws = {m: ts.VonMisesFisher(mu.roll(i, 0), kappa, validate_args=False) for i, m in enumerate("abc")}
    return ts.losses.Harnessed(n_samples=draws, n_projections=P)(laws)[0]


def backward(value, inputs):
    """Gradients of a sum with uneven weights, made on the device: within a graph nothing may come from the host."""
    G = torch.arange(value.numel(), device=value.device, dtype=value.dtype).mul(0.7).cos().reshape(value.shape)
    return torch.autograd.grad(value, inputs, G)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_device_equals_cpu_sample_by_sample(name, device_backend, dtype):
    """For equal seeds, values and gradients; the CPU's come from the reference in float64."""
    on_cpu = [x.detach().double().requires_grad_() for x in inputs_of(name, dtype, "cpu")]
    expected = function(name, None if name == "frechet_mean" else "reference")(*on_cpu)
    inputs = inputs_of(name, dtype)
    value = function(name, device_backend)(*inputs)
    assert value.is_cuda and value.dtype == dtype
    tolerance = dict(rtol=2e-5, atol=5e-6) if dtype == torch.float32 else dict(rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(value.cpu().double(), expected, **tolerance)
    # The slope of a projected point holds 1/r^2 of its distance from the circle's axis, which carries that much more rounding.
    limit = 1e-3 if dtype == torch.float32 else 1e-8
    for got, want in zip(backward(value, inputs), backward(expected, on_cpu), strict=True):
        assert (got.cpu().double() - want).norm() <= limit * want.norm()


@pytest.mark.parametrize("name", [name for name in CALLS if name != "frechet_mean"])
def test_views_at_odd_offsets(name, device_backend):
    """Where an array does not lie at a multiple of 16 bytes, which kernels that read as many at a time need."""
    inputs, f = inputs_of(name), function(name, device_backend)
    views = [torch.empty(x.numel() + 1, device="cuda")[1:].view(x.shape).copy_(x.detach()).requires_grad_() for x in inputs]
    value, expected = f(*views), f(*inputs)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(backward(value, views), backward(expected, inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 7, 2**64 - 1])
def test_cpu_and_device_kernels_draw_alike(seed):
    """The compiled CPU kernel against the device, many draws, so that one flipped rejection shows."""
    mu, kappa = unit(64, 16).float(), 50 * torch.rand(64)
    draws = [ts.vmf_sample(mu.to(d), kappa.to(d), 257, seed=seed).cpu() for d in ("cpu", "cuda")]
    torch.testing.assert_close(*draws, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_draws_are_written_by_the_kernel(half, device_backend):
    """The float32 draws rounded, and no float32 copy of them in memory."""
    mu, kappa = unit(64, 512).float().cuda(), 50 + 50 * torch.rand(64).cuda()
    op, seed = _library.op("vmf_sample", device_backend, mu), torch.tensor([1, 2], device="cuda")
    single = op(mu, kappa, seed, 64, False)[0]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    z = op(mu, kappa, seed, 64, False, 0, half)[0]
    peak = torch.cuda.max_memory_allocated() - before
    assert z.dtype == half and ((z.float() - single).abs() <= 0.51 * torch.finfo(half).eps * single.abs() + 2**-24).all()
    assert device_backend == "reference" or peak < 1.2 * z.nbytes


@pytest.mark.parametrize("op", SAMPLES)
def test_device_equals_the_emulator(op):
    """The same .cu file on the GPU and in the emulator, but for the GPU's fused multiply-adds."""
    if not _library.has_kernel(op, "cuda"):
        pytest.skip("the extension was built without CUDA")
    emulated.register()
    arguments = [x.detach() if isinstance(x, torch.Tensor) else x for x in SAMPLES[op]()]
    on_device = [x.cuda() if isinstance(x, torch.Tensor) else x for x in arguments]
    expected, got = (_library.op(op, b, a[0])(*a) for b, a in (("emulated", arguments), ("cuda", on_device)))
    for e, g in zip(*((r,) if isinstance(r, torch.Tensor) else r for r in (expected, got)), strict=True):
        torch.testing.assert_close(g.cpu(), e, rtol=1e-10, atol=1e-11)


# (B, n, m, P): a sub-warp of 4, 8, 16, 32 lanes, a block of 64 ... 512 threads, device memory; whole tiles and not, P = 1 and more.
SIZES = [(3, 16, 16, 100), (2, 40, 24, 33), (5, 64, 64, 1), (2, 100, 156, 3), (9, 256, 256, 7), (1, 600, 400, 5), (3, 1000, 1048, 2)]
SIZES += [(2, 2048, 2048, 3), (1, 2049, 2048, 100), (2, 100000, 99999, 3), (1, 500000, 500000, 1)]


@pytest.mark.parametrize("weighted", [False, True], ids=["uniform", "weighted"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_circular_wasserstein_of_every_size(size, dtype, weighted, device_backend):
    """Cost, slopes and potentials against the reference on the CPU in float64; the same bits again, and within a graph."""
    B, n, m, P = size
    if device_backend == "reference":
        pytest.skip("the law itself")
    torch.manual_seed(2)
    points, weights = ([torch.rand(B, k, *rest, dtype=torch.float64).to(dtype) for k in (n, m)] for rest in ((P,), ()))
    weights = [w / w.sum(-1, keepdim=True) for w in weights] if weighted else [None, None]
    double, there = ([x if x is None else x.to(to) for x in points + weights] for to in (torch.float64, "cuda"))
    expected = _library.op("circular_wasserstein", "reference", double[0])(*double)
    op = _library.op("circular_wasserstein", device_backend, there[0])
    call = lambda: op(*there)  # noqa: E731
    got = call()
    tolerance = dict(rtol=1e-5, atol=2e-7) if dtype == torch.float32 else dict(rtol=1e-10, atol=1e-11)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x.cpu().double(), y, **tolerance)
    graph, made = captured(call)
    graph.replay()
    for x, y, z in zip(got, call(), made, strict=True):
        assert torch.equal(x, y) and torch.equal(x, z)


# Up to 1024 points a set Triton sorts them in registers, beyond the library; one tile of 1024 points and several, whole and not.
POWER_SIZES = [(3, 16, 16, 100), (2, 40, 24, 33), (9, 256, 256, 7), (1, 1000, 1024, 3), (2, 1025, 1024, 3), (2, 2048, 4096, 2)]
POWER_SIZES += [(1, 5000, 1, 3), (3, 4999, 5000, 100), (1, 150_000, 140_001, 1)]  # the last two: several workspaces; tiles summed in turns


@pytest.mark.parametrize("weighted", [False, True], ids=["uniform", "weighted"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("p", [1.5, 2.0])
@pytest.mark.parametrize("size", POWER_SIZES, ids=str)
def test_circular_wasserstein_power_of_every_size(size, p, dtype, weighted, device_backend):
    if device_backend == "reference":
        pytest.skip("the law itself")
    call, got = circular_power.assert_equals_reference(size, p, weighted, dtype, device_backend, "cuda")
    graph, made = captured(call)
    graph.replay()
    assert all(torch.equal(x, y) for x, y in zip(got, made, strict=True))


@pytest.mark.parametrize("n", [16, 3000])
def test_weights_whose_sum_overflows_make_their_row_nan(n, device_backend):
    """Where looking at the weights is free they are refused; here they are not looked at."""
    u, v, a, b = (x.cuda() for x in circular_power.problem(2, n, n, 3, True, torch.float64))
    for p in (1.0, 2.0):
        clean = ts.circular_wasserstein(u.mT, v.mT, p=p, u_weights=a[:, None], v_weights=b[:, None], backend=device_backend)
        wrong = a.clone()
        wrong[1] = 1.7e308
        got = ts.circular_wasserstein(u.mT, v.mT, p=p, u_weights=wrong[:, None], v_weights=b[:, None], backend=device_backend)
        assert torch.equal(got[0], clean[0]) and got[1].isnan().all()


def captured(make):
    """(graph, what `make` returned inside it), after a warm-up on a side stream, as torch's notes on graphs ask."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            make()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = make()
    return graph, made


@pytest.mark.parametrize("name", PURE)
def test_graph_replays_on_new_inputs(name):
    inputs = inputs_of(name)
    f = function(name)

    def make():
        value = f(*inputs)
        return value, *backward(value, inputs)

    graph, made = captured(make)
    with torch.no_grad():
        for x in inputs:
            x.copy_(x.flip(0) * (0.9 if name != "frechet_mean" else 1.0))
    graph.replay()
    for got, want in zip(made, make(), strict=True):
        torch.testing.assert_close(got, want)


def test_graph_replays_draw_anew():
    mu, kappa = inputs_of("vmf_sample")
    graph, z = captured(lambda: ts.vmf_sample(mu, kappa, L).detach())
    draws = []
    for _ in range(3):
        graph.replay()
        draws.append(z.clone())
    assert all((d.norm(dim=-1) - 1).abs().max() < 1e-5 for d in draws)
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[1], draws[2])


def test_graph_of_a_whole_step():
    inputs = inputs_of("vmf_sample")
    graph, made = captured(lambda: (lambda loss: (loss.detach(), *torch.autograd.grad(loss, inputs)))(loss_of(inputs)))
    graph.replay()
    first = [m.clone() for m in made]
    graph.replay()
    assert all(m.isfinite().all() for m in made) and not torch.equal(first[0], made[0])


def test_compile_fullgraph(name):
    inputs = inputs_of(name)
    f = function(name)
    if name == "sliced_wasserstein_sphere":  # a seed for circles makes a generator, which cannot be traced
        circles = ts.great_circles(P, D, device="cuda")
        f = lambda x, y: ts.sliced_wasserstein_sphere(x, y, projections=circles)  # noqa: E731
    value, expected = torch.compile(f, fullgraph=True)(*inputs), f(*inputs)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(backward(value, inputs), backward(expected, inputs), rtol=1e-4, atol=1e-5)


def test_compile_fullgraph_of_a_step():
    inputs = inputs_of("vmf_sample")
    loss = torch.compile(loss_of, fullgraph=True)(inputs)
    assert loss.isfinite() and all(g.isfinite().all() for g in torch.autograd.grad(loss, inputs))


def test_side_stream(name, device_backend):
    """On a stream whose inputs arrive late: a launch on any other stream reads the NaN that was there before."""
    f, good = function(name, device_backend), inputs_of(name)
    expected = f(*good)
    late = [torch.full_like(x, torch.nan).requires_grad_() for x in good]
    f(*[x.detach().clone() for x in good])  # loads and compiles before the race begins
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        with torch.no_grad():
            for x, y in zip(late, good, strict=True):
                x.copy_(y)
        value = f(*late)
        grads = backward(value, late)
    side.synchronize()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grads, backward(expected, good))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_second_device(name, device_backend):
    """Tensors on a device that is not the current one."""
    expected = function(name, device_backend)(*inputs_of(name))
    inputs = inputs_of(name, device="cuda:1")
    value = function(name, device_backend)(*inputs)
    grads = backward(value, inputs)
    assert value.device == inputs[0].device and all(g.device == value.device for g in grads)
    torch.testing.assert_close(value.cpu(), expected.cpu())


@pytest.fixture
def no_sync():
    """Any wait of the host for the device raises within the block."""

    class NoSync:
        def __enter__(self):
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *_):
            torch.cuda.set_sync_debug_mode("default")

    return NoSync()


@pytest.mark.parametrize("name", PURE)
def test_no_host_sync(name, device_backend, no_sync):
    inputs, f = inputs_of(name), function(name, device_backend)
    backward(f(*inputs), inputs)  # what happens once, such as compiling, may wait
    with no_sync:
        backward(f(*inputs), inputs)


def test_no_host_sync_in_draws(device_backend, no_sync):
    mu, kappa = inputs_of("vmf_sample")

    def step():
        return backward(ts.vmf_sample(mu, kappa, L, backend=device_backend), (mu, kappa))

    step()
    with no_sync:
        step()


def test_no_host_sync_in_a_step(no_sync):
    inputs = inputs_of("vmf_sample")
    torch.autograd.grad(loss_of(inputs), inputs)
    with no_sync:
        torch.autograd.grad(loss_of(inputs), inputs)


def test_no_sync_check_works(no_sync):
    x = torch.ones(3, device="cuda")
    with no_sync, pytest.raises(RuntimeError, match="synchroniz"):
        x.sum().item()
