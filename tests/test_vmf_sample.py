"""vMF draws: the backends against each other, reproducibility, storage types, shapes, errors. For their law and gradients see
test_vmf_sample_law.py and test_vmf_sample_gradients.py."""

import math
import subprocess
import sys

import pytest
import torch

import transphere as ts
from transphere import _library


def e1(d, dtype=torch.float64):
    return torch.eye(1, d, dtype=dtype)[0]


@pytest.mark.parametrize("shape, d, n", [((), 2, 1), ((3,), 3, 5), ((2, 3), 5, 7), ((1,), 17, 300), ((4,), 512, 16), ((2,), 1030, 3)])
@pytest.mark.parametrize("kappa", [0.0, 3.0, 96.0, 1e4, math.inf])
def test_backends_agree(shape, d, n, kappa, dtype, tolerance, unit, backend, size):
    mu, n = unit(*shape, d, dtype=dtype), size(n, min(n, 20))
    k = torch.full(shape, kappa, dtype=dtype)
    expected = ts.vmf_sample(mu.double(), k.double(), n, seed=11, backend="reference")
    torch.testing.assert_close(ts.vmf_sample(mu, k, n, seed=11, backend=backend), expected.to(dtype), **tolerance)


@pytest.mark.parametrize("d", [2, 5, 40])
def test_rejections_agree(d, dtype, tolerance, unit, backend):
    """Many draws of a law that rejects often: every backend accepts the same proposals."""
    args = unit(1, d, dtype=dtype), torch.tensor([30.0], dtype=dtype), torch.tensor([3, 4]), 500, False
    expected = _library.op("vmf_sample", "reference", args[0])(args[0].double(), args[1].double(), *args[2:])
    for got, truth in zip(_library.op("vmf_sample", backend, args[0])(*args), expected, strict=True):
        torch.testing.assert_close(got, truth.to(dtype), **tolerance)


@pytest.mark.parametrize("pathwise", [False, True])
@pytest.mark.parametrize("d", [2, 3, 8, 33, 512])
def test_backward_agrees(d, pathwise, dtype, unit, backend, size):
    mu, kappa = unit(5, d, dtype=dtype), torch.tensor([0.5, 3.0, 11.0, 96.0, 1e3], dtype=dtype)
    z, w, v = _library.op("vmf_sample", None, mu)(mu, kappa, torch.tensor([1, 2]), size(300, 45), pathwise)
    G = torch.randn_like(z)
    args = G, z, w, v, mu, kappa
    truth = _library.op("vmf_sample_backward", "reference", mu)(*(a.double() for a in args), pathwise)
    got = _library.op("vmf_sample_backward", backend, mu)(*args, pathwise)
    for g, t in zip(got, truth, strict=True):
        assert (g.double() - t).norm() <= 300 * torch.finfo(dtype).eps * t.norm()


def test_seed_and_generator():
    mu, k = e1(5, torch.float32), torch.tensor(7.0)
    assert torch.equal(ts.vmf_sample(mu, k, 4, seed=1), ts.vmf_sample(mu, k, 4, seed=1))
    assert not torch.equal(ts.vmf_sample(mu, k, 4, seed=1), ts.vmf_sample(mu, k, 4, seed=2))
    assert not torch.equal(ts.vmf_sample(mu, k, 4, seed=0), ts.vmf_sample(mu, k, 4, seed=2**32))
    g = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    assert torch.equal(ts.vmf_sample(mu, k, 4, generator=g()), ts.vmf_sample(mu, k, 4, generator=g()))
    torch.manual_seed(5)
    a = ts.vmf_sample(mu, k, 4)
    b = ts.vmf_sample(mu, k, 4)
    torch.manual_seed(5)
    assert torch.equal(a, ts.vmf_sample(mu, k, 4)) and not torch.equal(a, b)


def test_threads_do_not_change_the_draws(unit):
    mu, k = unit(40, 65, dtype=torch.float32), torch.full((40,), 30.0)
    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            m, kk = mu.clone().requires_grad_(), k.clone().requires_grad_()
            z = ts.vmf_sample(m, kk, 700, seed=9)
            z.square().sum(-1).mul(torch.arange(700.0)).sum().backward()
            results.append((z.detach(), m.grad, kk.grad))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_shapes_and_strides(unit, backend):
    mu = unit(4, 3, 6, dtype=torch.float32)
    z = ts.vmf_sample(mu, torch.tensor(5.0), 2, seed=0, backend=backend)
    assert z.shape == (4, 3, 2, 6)
    strided = mu.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not strided.is_contiguous()
    assert torch.equal(ts.vmf_sample(strided, torch.tensor(5.0), 2, seed=0, backend=backend), z)
    assert ts.vmf_sample(mu, torch.full((4, 3), 5.0), 0, backend=backend).shape == (4, 3, 0, 6)
    assert ts.vmf_sample(mu[:0], torch.full((0, 3), 5.0), 2, backend=backend).shape == (0, 3, 2, 6)
    k = torch.full((4, 3), 5.0, requires_grad=True)
    ts.vmf_sample(mu, k, 0, backend=backend).sum().backward()
    assert torch.equal(k.grad, torch.zeros(4, 3))


def test_mu_may_point_anywhere(backend, size):
    """The reflection has no singular direction: at e1, -e1, and with mu0 = 0."""
    d = 7
    directions = torch.stack([e1(d), -e1(d), torch.eye(d, dtype=torch.float64)[3]])
    z = ts.vmf_sample(directions, torch.full((3,), 50.0, dtype=torch.float64), size(4000, 1000), seed=0, backend=backend)
    A = ts.vmf_mean_resultant(torch.tensor(50.0, dtype=torch.float64), d)
    torch.testing.assert_close(z.mean(1), A * directions, atol=0.015, rtol=0)


def test_infinite_kappa_returns_mu(unit, backend):
    mu = unit(3, 9, dtype=torch.float32).requires_grad_()
    k = torch.tensor([math.inf, 4.0, math.inf], requires_grad=True)
    z = ts.vmf_sample(mu, k, 5, seed=0, backend=backend)
    assert torch.equal(z[0], mu[0].expand(5, 9))
    z.sum().backward()
    assert torch.isfinite(mu.grad).all() and k.grad[0] == 0


HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("d", [3, 32, 40, 4096])
def test_half_types_are_rounded_as_they_are_stored(half, d, unit, backend):
    """The kernel writes them: the same draws as in float32, rounded to nearest, small numbers too; to the last bit on the CPU."""
    mu, kappa = unit(2, d, dtype=torch.float32), torch.tensor([20.0, math.inf])
    args = mu, kappa, torch.tensor([1, 2]), 6, False, 0
    op = _library.op("vmf_sample", backend, mu)
    single, (z, w, v) = op(*args, None), op(*args, half)
    assert z.dtype == half and w.dtype == v.dtype == torch.float32
    if backend == "cpu":
        assert torch.equal(z, single[0].to(half))
    ulps = 1.01 if backend == "triton" and half == torch.bfloat16 and _library.INTERPRETED else 0.51  # the interpreter truncates
    assert ((z.float() - single[0]).abs() <= ulps * torch.finfo(half).eps * single[0].abs() + 2**-24).all()
    torch.testing.assert_close((w, v), single[1:], rtol=2e-6, atol=1e-6)  # sums may run in another order


@pytest.mark.parametrize("half", HALVES)
def test_half_types(half, unit, backend):
    mu, k = unit(4, 32, dtype=half).requires_grad_(), torch.full((4,), 20.0, dtype=half, requires_grad=True)
    z = ts.vmf_sample(mu, k, 8, seed=0, backend=backend)
    assert z.dtype == half and (z.float().norm(dim=-1) - 1).abs().max() < 2e-2
    G = torch.randn_like(z)
    got = torch.autograd.grad(z, (mu, k), G)
    m, kk = mu.detach().float().requires_grad_(), k.detach().float().requires_grad_()
    truth = torch.autograd.grad(ts.vmf_sample(torch.nn.functional.normalize(m, dim=-1), kk, 8, seed=0), (m, kk), G.float())
    for g, t in zip(got, truth, strict=True):
        assert g.dtype == half and (g.float() - t).norm() < 0.03 * t.norm()


@pytest.mark.parametrize("half", HALVES)
def test_every_half_number_is_read(half, unit, backend):
    """Gradients of all 65,536 bit patterns give what their float32 copies do, NaN and infinities included."""
    d, B = (64, 1024) if backend in ("cpu", "reference") else (64, 64)
    bits = torch.arange(65536, dtype=torch.int32)[:: 65536 // (d * B)].to(torch.int16)
    G = bits.view(half).reshape(B, 1, d)
    G = torch.where(G.isfinite() & (G.abs() > 1e15), 1.0, G).to(half)  # whose sums overflow or not by their order
    mu, kappa = unit(B, d, dtype=torch.float32), torch.full((B,), 9.0)
    z, w, v = _library.op("vmf_sample", "cpu", mu)(mu, kappa, torch.tensor([1, 2]), 1, False, 0, half)
    op = _library.op("vmf_sample_backward", backend, mu)
    for got, truth in zip(op(G, z, w, v, mu, kappa, False), op(G.float(), z.float(), w, v, mu, kappa, False), strict=True):
        assert torch.equal(got.isfinite(), truth.isfinite())
        got, truth, size = (x.nan_to_num(0, 0, 0).reshape(B, -1) for x in (got, truth, G.float()))
        assert ((got - truth).abs() <= 1e-5 * (1e-30 + size.abs().amax(1, keepdim=True))).all()


def test_a_batch_in_parts_is_the_whole(unit, backend):
    """Draws are numbered: with its offset each part makes its own, beyond 2^32 too."""
    mu, kappa = unit(5, 9, dtype=torch.float32), torch.logspace(-1, 3, 5)
    for start in (0, 2**32 - 12):
        whole = ts.vmf_sample(mu, kappa, 7, seed=4, offset=start, backend=backend)
        parts = [ts.vmf_sample(mu[i:j], kappa[i:j], 7, seed=4, offset=start + 7 * i, backend=backend) for i, j in ((0, 2), (2, 5))]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(whole, ts.vmf_sample(mu, kappa, 7, seed=4, offset=start, backend="reference"), rtol=2e-5, atol=2e-6)
    assert not torch.equal(whole, ts.vmf_sample(mu, kappa, 7, seed=4, backend=backend))


RANK = """
import sys, torch, transphere as ts
rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
mu, k = torch.eye(3)[0], torch.tensor(5.0)
torch.manual_seed(7)
own = [ts.vmf_sample(mu, k, 4) for _ in range(2)]
same = [ts.vmf_sample(mu, k, 4, seed=1), ts.vmf_sample(mu, k, 4, generator=torch.Generator().manual_seed(1))]
torch.save((own, same), f"{store}-{rank}")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def test_ranks_draw_differently_by_default(tmp_path):
    """Even where all are seeded alike; a seed or a generator is taken as it is."""
    store = str(tmp_path / "store")
    ranks = [subprocess.Popen([sys.executable, "-c", RANK, str(rank), store], stderr=subprocess.PIPE, text=True) for rank in range(2)]
    assert [(p.communicate(timeout=120)[1][-2000:], p.returncode)[1] for p in ranks] == [0, 0]
    (own0, same0), (own1, same1) = (torch.load(f"{store}-{rank}") for rank in range(2))
    assert len({tuple(z.flatten().tolist()) for z in own0 + own1}) == 4
    assert all(torch.equal(a, b) for a, b in zip(same0, same1, strict=True))
    torch.manual_seed(7)
    assert torch.equal(own0[0], ts.vmf_sample(torch.eye(3)[0], torch.tensor(5.0), 4))


def test_bad_input(unit):
    mu, k = unit(3, 5), torch.ones(3, dtype=torch.float64)
    bad = [
        (dict(mu=2 * mu), "mu: expected unit vectors, got one of length 2"),
        (dict(mu=mu * math.nan), "mu: expected unit vectors"),
        (dict(kappa=-k), "kappa: expected values >= 0, got -1"),
        (dict(kappa=k * math.nan), "kappa: expected values >= 0, got nan"),
        (dict(kappa=k.float()), "kappa: expected torch.float64 as mu, got torch.float32"),
        (dict(kappa=torch.ones(4, dtype=torch.float64)), "kappa: expected a shape that broadcasts"),
        (dict(mu=mu[:, :1]), "mu: expected a last dimension of at least 2"),
        (dict(mu=torch.tensor(1.0, dtype=torch.float64)), "mu: expected at least 1 dimensions"),
        (dict(mu=mu.long()), "mu: expected a floating dtype, got torch.int64"),
        (dict(n_samples=-1), "n_samples: expected an integer >= 0, got -1"),
        (dict(n_samples=2.0), "n_samples"),
        (dict(kappa_grad="exact"), "kappa_grad: expected 'implicit' or 'pathwise', got 'exact'"),
        (dict(seed=1, generator=torch.Generator()), "at most one"),
        (dict(offset=-1), "offset: expected an integer >= 0, got -1"),
        (dict(seed="x"), "seed: expected an integer of 64 bits"),
        (dict(backend="gpu"), "backend: expected None"),
    ]
    for change, message in bad:
        with pytest.raises(ValueError, match=message):
            ts.vmf_sample(**(dict(mu=mu, kappa=k, n_samples=2) | change))
    with pytest.raises(RuntimeError, match="backend 'cuda'"):
        ts.vmf_sample(mu, k, 2, backend="cuda")
