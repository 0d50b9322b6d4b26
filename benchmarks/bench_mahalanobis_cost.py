"""Costs between 256 and 256 points in 1024 dimensions, for a full, a diagonal and no metric, beside GEMM forms in torch, cdist and scipy.

The floors are the matrix products alone: forward z M and x M y', backward W times the two halves of z and of z M, and z' (A z).
"""

import torch
from harness import BOTH, FORWARD, Case, Way, eager_and_compiled, optional, ours

import transphere as ts


def gemms(x, y, M=None):
    """As one writes it by matrix products: neither centred nor safe where points coincide."""
    if M is None or M.dim() == 1:
        xM, yM = (x, y) if M is None else (x * M, y * M)
    else:
        M = 0.5 * (M + M.mT)
        xM, yM = x @ M, y @ M
    return ((xM * x).sum(-1)[:, None] + (yM * y).sum(-1)[None] - 2 * x @ yM.mT).clamp(min=0).sqrt()


def differences(x, y, M):
    """The released form of m-LTM: n m d numbers, twice. It reads the diagonal of M alone, so its result is not compared."""
    n, m = len(x), len(y)
    apart = x[:, None].repeat(1, m, 1) - y[None].repeat(n, 1, 1)
    return torch.einsum("ijk,ikj,kk->ij", apart, apart.mT, M).sqrt()


class Products(torch.autograd.Function):
    """The products that `mahalanobis_cost` cannot do without, forward and backward."""

    @staticmethod
    def forward(ctx, x, y, M):
        z = torch.cat([x, y])
        zM = z @ M
        ctx.n = len(x)
        ctx.save_for_backward(z, zM)
        return z[: ctx.n] @ zM[ctx.n :].mT

    @staticmethod
    def backward(ctx, W):
        z, zM = ctx.saved_tensors
        n = ctx.n
        grad_x, grad_y = W @ zM[n:], W.mT @ zM[:n]
        W @ z[n:], W.mT @ z[:n]
        return grad_x, grad_y, z.mT @ zM


def uncompared(value, gradients):
    pass


def cdist(x, y, M=None):
    return torch.cdist(x, y) if M is None else torch.cdist(x * M.sqrt(), y * M.sqrt())


def cases(device, quick):
    scipy = optional("scipy.spatial.distance")
    torch._dynamo.config.recompile_limit = 64  # one function for all cases, each with shapes of its own
    for n, d in [(64, 256)] if quick else [(256, 1024), (1024, 256)]:
        g = torch.Generator().manual_seed(0)
        x, y, A = (torch.randn(*s, generator=g) for s in ((n, d), (n, d), (d, d)))
        y = 0.7 * x + 0.7 * y  # as after some training: matched pairs are nearest
        x, y, M = x.to(device), y.to(device), (A @ A.mT / d).to(device)
        peers = eager_and_compiled(gemms, not quick) | {"repeat + einsum, as released with m-LTM": Way(differences, check=uncompared)}
        if scipy and device.type == "cpu":
            cdist_scipy = lambda x, y, M: torch.from_numpy(scipy.cdist(x.numpy(), y.numpy(), "mahalanobis", VI=M.numpy()))  # noqa: E731
            peers["scipy"] = Way(cdist_scipy, differentiable=False)
        common = dict(op="mahalanobis_cost", gradient_tolerance=1e-5)
        yield Case(
            shape=f"{n} x {n} points, d = {d}, full M",
            inputs=(x, y, M),
            ours=ours("mahalanobis_cost", device, ts.mahalanobis_cost),
            reference=lambda x, y, M: ts.mahalanobis_cost(x, y, M, backend="reference"),
            peers=peers,
            floors={"its GEMMs": Way(Products.apply)},
            bytes_moved={FORWARD: 4 * (2 * n * d + d * d + n * n), BOTH: 4 * (4 * n * d + 2 * d * d + 2 * n * n)},
            **common,
        )
        if quick:
            return
        for kind, inputs in (("diagonal M", (x, y, M.diagonal().clone())), ("Euclidean", (x, y))):
            yield Case(
                shape=f"{n} x {n} points, d = {d}, {kind}",
                inputs=inputs,
                ours=ours("mahalanobis_cost", device, ts.mahalanobis_cost),
                reference=lambda *inputs: ts.mahalanobis_cost(*inputs, backend="reference"),
                peers={"torch.cdist": Way(cdist)} | eager_and_compiled(gemms, True),
                floors={"x y'": Way(lambda x, y, *M: x @ y.mT, differentiable=False)},
                bytes_moved={FORWARD: 4 * (2 * n * d + n * n), BOTH: 4 * (4 * n * d + 2 * n * n)},
                **common,
            )
