"""The vMF log normaliser and, as its gradient, the mean resultant length, at d = 512.

scipy's Bessel functions underflow for kappa below 12.9 at this dimension, so kappa starts at 64.
"""

import math

import torch
from harness import BOTH, FORWARD, Case, Way, eager_and_compiled, optional, ours

import transphere as ts
from transphere.ops.vmf_cumulant import log_sphere_area
from transphere.reference.vmf_cumulant import cumulant

D = 512


def cases(device, quick):
    special = optional("scipy.special")
    for n in [8192] if quick else [384, 262144]:
        kappa = 64 + 936 * torch.rand(n, generator=torch.Generator().manual_seed(0)).to(device)

        def scipy(kappa):
            k, nu = kappa.double().numpy(), D / 2 - 1
            import numpy as np

            return torch.from_numpy(nu * np.log(k) - D / 2 * math.log(2 * math.pi) - np.log(special.ive(nu, k)) - k)

        peers = eager_and_compiled(lambda kappa: -log_sphere_area(D) - cumulant(kappa, D, 0).to(kappa.dtype), not quick)
        if special and device.type == "cpu":
            peers["scipy"] = Way(scipy, differentiable=False)
        yield Case(
            op="vmf_cumulant",
            shape=f"{n} kappas, d = {D}",
            inputs=(kappa,),
            ours=ours("vmf_cumulant", device, lambda kappa, backend: ts.vmf_log_normalizer(kappa, D, backend=backend)),
            reference=lambda kappa: ts.vmf_log_normalizer(kappa, D, backend="reference"),
            peers=peers,
            bytes_moved={FORWARD: 8 * n, BOTH: 4 * 5 * n},
        )
