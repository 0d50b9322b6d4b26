"""Rows spread over ranks (gloo processes on this machine) against the single process."""

import subprocess
import sys
import tempfile

import pytest
import torch

import transphere as ts

WORKER = """
import sys, torch, torch.distributed as dist
import transphere as ts
rank, size, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{path}/meet", rank=rank, world_size=size)
out = []
problems, matchings = torch.load(f"{path}/problems.pt")
for C, a, b, G, eps, tol in problems:
    rows = [len(x) for x in torch.arange(C.shape[-2]).tensor_split(size)]
    C, G = (x.split(rows, -2)[rank].clone() for x in (C, G))
    leaves = [C] if a is None else [C, a.split(rows, -1)[rank].clone(), b.clone()]
    for x in leaves:
        x.requires_grad_()
    r = ts.sinkhorn_sharded(*leaves, eps=eps, tol=tol, max_iter=5000)
    grads = [torch.autograd.grad(L, leaves, retain_graph=True) for L in ((r.plan * G).sum(), r.value.sum(), r.transport_cost.sum())]
    out.append(([x.detach() for x in r], grads))
for C, T, eps, tol in matchings:
    rows = [len(x) for x in torch.arange(C.shape[-2]).tensor_split(size)]
    C, T = (x if x is None else x.split(rows, -2)[rank].clone() for x in (C, T))
    loss = ts.learning_to_match_sharded(C.requires_grad_(), T, eps=eps, tol=tol)
    out.append((loss.detach(), *torch.autograd.grad((loss * torch.arange(1.0, 1 + loss.numel(), dtype=loss.dtype)).sum(), C)))
r = ts.sinkhorn_sharded(torch.tensor([[0.5, torch.nan if rank == 1 else 1.0], [2.0, 0.0]]), eps=0.1)
out.append((r.g, r.converged, r.value))
try:
    ts.learning_to_match_sharded(torch.rand(3, 7), eps=0.1)
except ValueError as error:
    out.append(str(error))
torch.save(out, f"{path}/{rank}.pt")
dist.barrier()
dist.destroy_process_group()  # or gloo's threads may outlive what they use, which ends the process by a signal
"""


def run(size, problems):
    with tempfile.TemporaryDirectory() as path:
        torch.save(problems, f"{path}/problems.pt")
        ranks = [subprocess.Popen([sys.executable, "-c", WORKER, str(k), str(size), path], stderr=subprocess.PIPE) for k in range(size)]
        for rank in ranks:
            _, stderr = rank.communicate(timeout=240)
            assert rank.returncode == 0, stderr.decode()
        return [torch.load(f"{path}/{k}.pt") for k in range(size)]


@pytest.fixture(scope="module", params=[2, 4])
def spread(request):
    """What each of so many ranks made of all problems, and these."""
    made = problems(), matchings()
    return run(request.param, made), *made


def matchings():
    """Costs, targets or None, eps, tol: as many as 4 ranks leave one without rows, a matched problem that is slow to solve, groups and
    absent items, a batch, float32."""
    torch.manual_seed(1)
    few = torch.rand(3, 3, dtype=torch.float64)
    x = torch.nn.functional.normalize(torch.randn(40, 64, dtype=torch.float64), dim=1)
    matched = torch.cdist(x, torch.nn.functional.normalize(x + 0.2 * torch.randn_like(x), dim=1))
    groups = torch.arange(2 * 9).reshape(2, 9) // 2
    T = (groups[:, :, None] == groups[:, None]).double()
    T[1, 4:6] = T[1, :, 4:6] = 0
    T = T / T.sum(2, keepdim=True).clamp(min=1) / (T.sum(2) > 0).sum(1)[:, None, None]
    return [
        (few, None, 0.1, 1e-13),
        (matched, None, 0.05, 1e-13),
        (torch.rand(2, 9, 9, dtype=torch.float64), T, 0.1, 1e-13),
        (torch.rand(64, 64), None, 0.05, 1e-6),
    ]


def problems():
    torch.manual_seed(0)
    made = []
    for shape, dtype, eps, tol, weighted in (
        ((23, 14), torch.float64, 0.05, 1e-12, True),
        ((2, 9, 30), torch.float64, 0.1, 1e-12, False),
        ((64, 48), torch.float32, 0.05, 1e-6, True),
    ):
        C, G = torch.rand(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
        a, b = torch.rand(shape[-2], dtype=torch.float64) + 0.2, torch.rand(shape[-1], dtype=torch.float64) + 0.2
        a[0] = b[3] = 0
        made.append((C, *((w / w.sum()).to(dtype) if weighted else None for w in (a, b)), G, eps, tol))
    return made


def test_equals_the_single_process(spread):
    ranks, problems, _ = spread
    for k, (C, a, b, G, eps, tol) in enumerate(problems):
        leaves = [x.clone().requires_grad_() for x in (C, a, b) if x is not None]
        whole = ts.sinkhorn(*leaves, eps=eps, tol=tol, max_iter=5000)
        atol = 1e-10 if C.dtype == torch.float64 else 1e-6
        for name, dim in (("plan", -2), ("f", -1), ("g", None), ("value", None), ("transport_cost", None)):
            parts = [getattr(ts.SinkhornResult(*rank[k][0]), name) for rank in ranks]
            got = torch.cat(parts, dim) if dim else parts[0]
            assert dim or all(torch.equal(p, parts[0]) for p in parts)
            torch.testing.assert_close(got, getattr(whole, name).detach(), atol=atol if name == "plan" else 3 * atol, rtol=3e-6)
        results = [ts.SinkhornResult(*rank[k][0]) for rank in ranks]
        for r in results:
            assert (r.iterations < 60).all()
            assert r.converged.all() and torch.equal(r.iterations, results[0].iterations) and torch.equal(r.error, results[0].error)
        losses = (whole.plan * G).sum(), whole.value.sum(), whole.transport_cost.sum()
        for which, loss in enumerate(losses):
            expected = torch.autograd.grad(loss, leaves, retain_graph=True)
            got = [rank[k][1][which] for rank in ranks]
            scale = max(1.0, expected[0].abs().max().item())
            rtol = 1e-4 if C.dtype == torch.float32 else 1e-7
            torch.testing.assert_close(torch.cat([g[0] for g in got], -2), expected[0], atol=1e-6 * scale, rtol=rtol)
            if a is not None:  # up to a constant
                full = torch.cat([g[1] for g in got], -1)
                shift = (full - expected[1])[1]
                near = dict(atol=1e-5 * scale if C.dtype == torch.float32 else 1e-8, rtol=1e-4)
                torch.testing.assert_close(full[1:] - shift, expected[1][1:], **near)
                torch.testing.assert_close((got[0][2] + shift)[b > 0], expected[2][b > 0], **near)


def test_learning_to_match_equals_the_single_process(spread):
    ranks, problems, matchings = spread
    for k, (C, T, eps, tol) in enumerate(matchings, len(problems)):
        C = C.clone().requires_grad_()
        whole = ts.learning_to_match(C, T, eps=eps, tol=tol)
        (expected,) = torch.autograd.grad((whole * torch.arange(1.0, 1 + whole.numel(), dtype=whole.dtype)).sum(), C)
        near = dict(atol=1e-10, rtol=1e-10) if C.dtype == torch.float64 else dict(atol=1e-5, rtol=1e-4)
        for rank in ranks:
            assert torch.equal(rank[k][0], ranks[0][k][0])
        torch.testing.assert_close(ranks[0][k][0], whole.detach(), **near)
        torch.testing.assert_close(torch.cat([rank[k][1] for rank in ranks], -2), expected, **near)
    for rank in ranks:
        assert rank[-2][0].isnan().all() and rank[-2][2].isnan() and not rank[-2][1]  # one rank's NaN is everyone's, and ends them all
        assert f"its default I/n needs 7 rows on all ranks together, got {3 * len(ranks)}" in rank[-1]


def test_refused_before_anything_is_sent():
    with pytest.raises(ValueError, match="sinkhorn_sharded: eps: expected a finite number > 0, got 0.0"):
        ts.sinkhorn_sharded(torch.rand(2, 3), eps=0.0)
    with pytest.raises(ValueError, match="cost: expected at least one column"):
        ts.sinkhorn_sharded(torch.rand(2, 0), eps=0.1)


def test_needs_a_process_group():
    for f in (ts.sinkhorn_sharded, ts.learning_to_match_sharded):
        with pytest.raises(ValueError, match="process group has not been initialized"):
            f(torch.rand(3, 3), eps=0.1)
