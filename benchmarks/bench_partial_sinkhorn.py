"""Partial plans of matched pairs: mass .9 at eps = .05. POT's peer keeps three matrices an iteration and stops at an exact fixed point."""

import warnings

from bench_sinkhorn import EPS
from harness import BOTH, FORWARD, Case, Way, eager_and_compiled, optional, ours
from transport_costs import matched

import transphere as ts

MASS = 0.9


def scalings(C, steps=500):
    """Dykstra's iteration on scalings, as one writes it."""
    n, m = C.shape
    K = (-C / EPS).exp()
    u, v, t = K.new_ones(n), K.new_ones(m), MASS / K.sum()
    for _ in range(steps):
        u = (1 / (n * t * (K @ v))).clamp(max=1)
        w = K.mT @ u
        v = (1 / (m * t * w)).clamp(max=1)
        t = MASS / (w @ v)
    return t * u[:, None] * K * v


def pot(ot, C):
    weights = C.new_full((len(C),), 1 / len(C))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ot.partial.entropic_partial_wasserstein(weights, weights, C, EPS, MASS, numItermax=1000, stopThr=1e-8)


def cases(device, quick):
    ot = optional("ot")
    for b in [64] if quick else [256]:
        C = matched(b).to(device)
        peers = eager_and_compiled(scalings, False)
        if ot:
            peers["POT"] = Way(lambda C: pot(ot, C), differentiable=False)
        yield Case(
            op="partial_sinkhorn",
            shape=f"{b} x {b}, mass {MASS}",
            inputs=(C,),
            ours=ours("sinkhorn", device, lambda C, backend: ts.partial_sinkhorn(C, MASS, eps=EPS, backend=backend)[0]),
            reference=lambda C: ts.partial_sinkhorn(C, MASS, eps=EPS, tol=1e-9, max_iter=5000, backend="reference")[0],
            peers=peers,
            bytes_moved={FORWARD: 8 * C.numel(), BOTH: 16 * C.numel()},
            value_tolerance=1e-3,
            gradient_tolerance=5e-3,
        )
