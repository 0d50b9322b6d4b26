"""Every op, on every variant: opcheck, dispatch keys, fake tensors, torch.compile. A new op joins by a line in tests/samples.py."""

import subprocess
import sys

import pytest
import torch
from samples import SAMPLES, unit
from torch.autograd import forward_ad

import transphere as ts
from transphere import _library

GPU = "cpu" if _library.INTERPRETED else "cuda"  # where Triton's kernels run
VARIANTS = ["", "_reference", "_triton"]


def defined_ops():
    names = (s.split("::")[1].split(".")[0] for s in torch._C._dispatch_get_all_op_names() if s.startswith("transphere::"))
    return {n for n in names if not n.endswith(("_reference", "_triton", "_emulated"))}


def test_every_op_is_sampled():
    assert defined_ops() == set(SAMPLES)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SAMPLES)
def test_opcheck(name, variant):
    with torch.device(GPU if variant == "_triton" else "cpu"):
        torch.library.opcheck(getattr(torch.ops.transphere, name + variant).default, SAMPLES[name]())


def test_opcheck_with_weights():
    for variant in VARIANTS:
        device = GPU if variant == "_triton" else "cpu"
        shapes = (2, 4, 3), (2, 5, 3), (2, 4), (2, 5)
        u, v, a, b = (torch.rand(*s, dtype=torch.float64, device=device).requires_grad_() for s in shapes)
        weights = (a / a.sum(-1, keepdim=True)).detach(), (b / b.sum(-1, keepdim=True)).detach()
        torch.library.opcheck(getattr(torch.ops.transphere, "circular_wasserstein" + variant).default, (u, v, *weights))
        torch.library.opcheck(getattr(torch.ops.transphere, "circular_wasserstein_power" + variant).default, (u, v, *weights, 3.0))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SAMPLES)
def test_vmap_equals_a_loop(name, variant):
    op = getattr(torch.ops.transphere, name + variant).default
    with torch.device(GPU if variant == "_triton" else "cpu"):
        one, two = ([x.detach() if isinstance(x, torch.Tensor) else x for x in SAMPLES[name]()] for _ in range(2))
    dims = tuple(0 if isinstance(x, torch.Tensor) else None for x in one)
    both = [torch.stack([x, y]) if d == 0 else x for x, y, d in zip(one, two, dims, strict=True)]
    tuples = lambda result: (result,) if isinstance(result, torch.Tensor) else result  # noqa: E731
    for got, *loop in zip(tuples(torch.func.vmap(op, dims)(*both)), tuples(op(*one)), tuples(op(*two)), strict=True):
        assert torch.equal(got, torch.stack(loop))


REFUSED = {
    "sinkhorn": lambda x: ts.sinkhorn(x, eps=0.1).value.sum(),
    "vmf_sample": lambda x: ts.vmf_sample(x, torch.ones(len(x), dtype=x.dtype), 3, seed=1).sum(),
    "vmf_entropy": lambda x: ts.vmf_entropy(x, 8).sum(),
    "circular_wasserstein": lambda x: ts.circular_wasserstein(x, x).sum(),
    "sliced_wasserstein_sphere": lambda x: ts.sliced_wasserstein_sphere(x, x, 4).sum(),
    "frechet_mean": lambda x: ts.frechet_mean(x).sum(),
    "mahalanobis_cost": lambda x: ts.mahalanobis_cost(x, x).sum(),
    "psd_project": lambda x: ts.psd_project(x.mT @ x).sum(),
    "learning_to_match": lambda x: ts.learning_to_match(x @ x.mT, eps=0.5),
}


@pytest.mark.parametrize("name", REFUSED)
def test_functional_gradients_are_refused_clearly(name):
    x = unit(3, 8).float()
    for transform in (torch.func.grad, torch.func.jacrev):
        with pytest.raises(RuntimeError, match=f"{name}: torch.func.grad and its kin are not supported; use torch.autograd.grad"):
            transform(REFUSED[name])(x)
    with pytest.raises(RuntimeError, match=f"{name}: torch.func.grad and its kin are not supported"):  # not tangents of 0
        torch.func.jvp(REFUSED[name], (x,), (x,))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=f"{name}: forward-mode derivatives are not supported"):
        REFUSED[name](forward_ad.make_dual(x, x))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", REFUSED)
def test_vmap(name):
    x = unit(2, 3, 8)
    x = torch.nn.functional.normalize(x + x.mean(-2, keepdim=True), dim=-1).requires_grad_()
    x = x.detach().abs().requires_grad_() if name == "vmf_entropy" else x
    mapped, each = torch.func.vmap(REFUSED[name], randomness="different")(x), torch.stack([REFUSED[name](z) for z in x])
    torch.testing.assert_close(mapped, each)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x)[0] for y in (mapped, each)))


@pytest.mark.parametrize("name", SAMPLES)
def test_compiled_kernels_are_registered(name):
    """A build that fell back to the reference must not look green."""
    assert ts.build_info()["extension"]
    assert _library.has_kernel(name, "cpu")
    assert not _library.has_kernel(name + "_reference", "cpu")


@pytest.mark.parametrize("name", SAMPLES)
def test_triton_kernels_are_registered(name):
    """Their own op for CUDA, and for the CPU under the interpreter; the plain op's for CUDA where no CUDA kernel was built."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert has(f"transphere::{name}_triton", "CUDA")
    assert has(f"transphere::{name}_triton", "CPU") == _library.INTERPRETED
    assert has(f"transphere::{name}", "CUDA")
    assert _library.has_kernel(name, "cuda") == bool(ts.build_info()["cuda"]) == (name not in _library.TRITON_BY_DEFAULT)


def test_triton_is_imported_on_the_first_launch():
    code = "import sys, transphere; assert 'triton' not in sys.modules, 'too early'"
    subprocess.run([sys.executable, "-c", code], check=True)


CALLS = {
    "sinkhorn": lambda x: ts.sinkhorn(x.square(), eps=0.1).plan.square().sum(),
    "partial_sinkhorn": lambda x: ts.partial_sinkhorn(x.square(), 0.5, eps=0.1).transport_cost,
    "learning_to_match": lambda x: ts.learning_to_match(x[:, :6].square(), eps=0.1),
    "vmf_sample": lambda x: ts.vmf_sample(x, torch.full(x.shape[:-1], 20.0), 4, seed=1),
    "vmf_entropy": lambda x: ts.vmf_entropy(x.square().sum(-1) + x[..., 0].abs(), 16),
    "vmf_fit": lambda x: ts.vmf_fit(x)[1],
    "circular_wasserstein": lambda x: ts.circular_wasserstein(x, x.flip(0) * 0.7),
    "circular_wasserstein_power": lambda x: ts.circular_wasserstein(x, x.flip(0) * 0.7, p=2.5),
    "sliced_wasserstein_sphere": lambda x: ts.sliced_wasserstein_sphere(x[:3], x[3:], 8),
    "sliced_wasserstein_sphere_power": lambda x: ts.sliced_wasserstein_sphere(x[:3], x[3:], 8, p=2, max_grad=3.0),
    "sliced_wasserstein_sphere_uniform": lambda x: ts.sliced_wasserstein_sphere_uniform(x, 8),
    "sliced_wasserstein_sphere_parallel": lambda x: ts.sliced_wasserstein_sphere_parallel(x[:3], x[3:], 8),
    "circular_embedding": lambda x: ts.circular_embedding(x, 8),
    "harnessed": lambda x: ts.losses.Harnessed()({m: ts.VonMisesFisher(x, torch.full((6,), 20.0), validate_args=False) for m in "ab"})[0],
}


@pytest.mark.parametrize("name", CALLS)
def test_compile_fullgraph(name):
    """Traced whole, without graph breaks, forward and backward; deterministic calls equal eager ones."""
    x = unit(6, 16).float().requires_grad_()
    compiled = torch.compile(CALLS[name], fullgraph=True, backend="aot_eager")
    result = compiled(x)
    (grad,) = torch.autograd.grad(result.sum(), x)
    assert result.isfinite().all() and grad.isfinite().all()
    seeded = ("vmf_sample", "vmf_entropy", "vmf_fit", "circular_wasserstein", "circular_wasserstein_power", "circular_embedding")
    if name in seeded:
        torch.testing.assert_close(result, CALLS[name](x))


def test_compile_with_sizes_that_change():
    f = torch.compile(lambda x, n: ts.sliced_wasserstein_sphere(x, x.flip(0), n), fullgraph=True, backend="aot_eager", dynamic=True)
    for n, size in [(8, 5), (9, 5), (9, 7)]:
        assert f(unit(4, size, 8).float(), n).shape == (4,)


def test_compiled_draws_are_new_each_call():
    x = unit(6, 16).float()
    f = torch.compile(lambda x: ts.vmf_sample(x, torch.full((6,), 20.0), 4), fullgraph=True, backend="aot_eager")
    assert not torch.equal(f(x), f(x))


def test_fake_tensors_on_a_device_that_is_not_there():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.empty(6, 16, device="cuda")
        z = ts.vmf_sample(x, torch.empty(6, device="cuda"), 4)
        d = ts.sliced_wasserstein_sphere(z, z, 8)
    assert z.shape == (6, 4, 16) and z.device.type == "cuda" and d.shape == (6,)


def test_forced_backends():
    mu, k = unit(2, 4), torch.ones(2, dtype=torch.float64)
    assert torch.equal(ts.vmf_sample(mu, k, 3, seed=0, backend="cpu"), ts.vmf_sample(mu, k, 3, seed=0))
    with pytest.raises(RuntimeError, match="'cuda' was asked for tensors on cpu"):
        ts.vmf_sample(mu, k, 3, backend="cuda")
    on_gpu = ts.vmf_sample(mu.to(GPU), k.to(GPU), 3, seed=0, backend="triton")
    torch.testing.assert_close(on_gpu.cpu(), ts.vmf_sample(mu, k, 3, seed=0))


@pytest.mark.parametrize(
    "missing, message",
    [
        (dict(HAS_TRITON=False), "pip install triton"),
        (dict(has_triton=lambda _: False), "no kernel for vmf_sample in this version"),
        (dict(INTERPRETED=False), "'triton' was asked for tensors on cpu: move them to a GPU"),
    ],
)
def test_what_is_missing_for_triton_is_said(missing, message, monkeypatch):
    for name, value in missing.items():
        monkeypatch.setattr(_library, name, value)
    with pytest.raises(RuntimeError, match=message):
        ts.vmf_sample(unit(2, 4), torch.ones(2, dtype=torch.float64), 3, backend="triton")


def test_missing_extension_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(_library, "has_kernel", lambda *_: False)
    with pytest.raises(RuntimeError, match="pip install --no-build-isolation"):
        ts.vmf_sample(unit(2, 4), torch.ones(2, dtype=torch.float64), 3, backend="cpu")
