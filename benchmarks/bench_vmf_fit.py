"""Maximum likelihood fits, as the natural parameter kappa mu, of 192 sets of 64 unit vectors: beside Newton's method in PyTorch and, at
d = 16, scipy, one set at a time. At d = 512 scipy's Bessel functions underflow and its root finder returns 1e-8.

The floor is the mean of the points, the one pass that no fit can do without. Gradients are compared along the sphere; off it they are a
matter of convention.
"""

import torch
from harness import BOTH, FORWARD, SEED, Case, CheckFailed, Way, call, compare, eager_and_compiled, optional

import transphere as ts


def newton(z, steps=4):
    """Banerjee's start, then Newton's steps on A(kappa) = R with A by its continued fraction: what one would write without Bessel functions
    of high order."""
    d = z.shape[-1]
    mean = z.double().mean(-2)                                                               # (B, d)
    R = mean.norm(dim=-1)
    kappa = R * (d - R * R) / (1 - R * R)
    for _ in range(steps):
        A = torch.zeros_like(kappa)
        for i in reversed(range(60)):  # A_nu = k / (2 nu + 2 + k A_{nu + 1})
            A = kappa / (d + 2 * i + kappa * A)
        kappa = kappa - (A - R) / (1 - A * A - (d - 1) * A / kappa)
    return ((kappa / R)[:, None] * mean).to(z.dtype)


def ours(z):
    mu, kappa = ts.vmf_fit(z)
    return kappa[:, None] * mu


def along_the_sphere(case):
    """A check against `newton`, of values and of the tangential part of gradients."""
    z = case.inputs[0].double()
    value, (gradient,) = call(lambda z: newton(z, 8), (z,), BOTH)()
    tangential = lambda g: g - (g * z).sum(-1, keepdim=True) * z  # noqa: E731

    def check(got, gradients):
        if any(g is None for g in gradients or ()):
            raise CheckFailed("a gradient is missing")
        slopes = [tangential(g.double()) for g in gradients or ()]
        compare(case, got.detach(), slopes, value.detach(), [tangential(gradient)][: len(slopes)])

    return check


def cases(device, quick):
    stats = optional("scipy.stats")
    for B, n, d in [(24, 64, 16)] if quick else [(192, 64, 512), (192, 64, 16)]:
        torch.manual_seed(SEED)
        loc = torch.nn.functional.normalize(torch.randn(B, d), dim=-1)
        z = ts.vmf_sample(loc, torch.full((B,), float(d)), n, seed=0).to(device)

        def scipy(z):
            fits = (stats.vonmises_fisher.fit(points) for points in z.double().numpy())
            return torch.stack([kappa * torch.from_numpy(mu) for mu, kappa in fits])

        fields = dict(op="vmf_fit", shape=f"{B} sets of {n} points, d = {d}", inputs=(z,), reference=newton)
        check = along_the_sphere(Case(ours={}, **fields))
        peers = eager_and_compiled(newton, not quick, check=check)
        if stats and device.type == "cpu" and d == 16:
            peers["scipy"] = Way(scipy, differentiable=False, check=check)
        yield Case(
            ours={"ours": Way(ours, check=check)},
            peers=peers,
            floors={"the mean of the points": Way(lambda z: z.mean(-2))},
            bytes_moved={FORWARD: 4 * B * n * d, BOTH: 8 * B * n * d},
            **fields,
        )
