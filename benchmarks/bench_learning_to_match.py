"""The m-LTM loss from a cost late in training, forward and backward: ours in closed form, the others through Sinkhorn's iterations."""

import warnings

import torch
from bench_sinkhorn import EPS, LATE, MIDDLE, eager
from harness import BOTH, FORWARD, Case, Way, optional, ours
from transport_costs import matched

import transphere as ts


def loss(plan, b):
    return -plan.diagonal().log().mean() - torch.log(torch.tensor(float(b)))


def pot(ot, C):
    """As the authors have it."""
    weights = C.new_full((len(C),), 1 / len(C))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return loss(ot.bregman.sinkhorn_log(weights, weights, C, EPS, stopThr=1e-7, numItermax=5000), len(C))


def cases(device, quick):
    ot = optional("ot")
    for b in [64] if quick else [256, 1024]:
        C = matched(b, noise=MIDDLE if quick else LATE).to(device)  # small ones are harder
        peers = eager(600, not quick and b == 256, of=lambda plan: loss(plan, len(plan)))
        if ot:
            peers["POT and autograd"] = Way(lambda C: pot(ot, C))
        yield Case(
            op="learning_to_match",
            shape=f"{b} x {b}",
            inputs=(C,),
            ours=ours("sinkhorn", device, lambda C, backend: ts.learning_to_match(C, eps=EPS, backend=backend)),
            reference=lambda C: ts.learning_to_match(C, eps=EPS, tol=1e-9, max_iter=5000, backend="reference"),
            peers=peers,
            bytes_moved={FORWARD: 8 * C.numel(), BOTH: 12 * C.numel()},
            value_tolerance=1e-4,
            gradient_tolerance=2e-3,
        )
