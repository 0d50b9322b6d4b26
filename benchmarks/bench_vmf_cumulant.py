"""The vMF log normaliser and, as its gradient, the mean resultant length, at d = 512, and at d = 3 where concentrations need recurrences.

scipy's Bessel functions underflow for kappa below 12.9 at d = 512, so there kappa starts at 64.
"""

import math

import torch
from harness import BOTH, FORWARD, Case, Way, eager_and_compiled, optional, ours

import transphere as ts
from transphere.ops.vmf_cumulant import log_sphere_area
from transphere.reference.vmf_cumulant import cumulant


def cases(device, quick):
    special = optional("scipy.special")
    for n, d, low, high in [(8192, 512, 64, 1000)] if quick else [(384, 512, 64, 1000), (262144, 512, 64, 1000), (262144, 3, 0.1, 64)]:
        kappa = low + (high - low) * torch.rand(n, generator=torch.Generator().manual_seed(0)).to(device)

        def scipy(kappa, d=d):
            k, nu = kappa.double().numpy(), d / 2 - 1
            import numpy as np

            return torch.from_numpy(nu * np.log(k) - d / 2 * math.log(2 * math.pi) - np.log(special.ive(nu, k)) - k)

        peers = eager_and_compiled(lambda kappa, d=d: -log_sphere_area(d) - cumulant(kappa, d, 0).to(kappa.dtype), not quick)
        if special and device.type == "cpu":
            peers["scipy"] = Way(scipy, differentiable=False)
        yield Case(
            op="vmf_cumulant",
            shape=f"{n} kappas of {low} to {high}, d = {d}",
            inputs=(kappa,),
            ours=ours("vmf_cumulant", device, lambda kappa, backend, d=d: ts.vmf_log_normalizer(kappa, d, backend=backend)),
            reference=lambda kappa, d=d: ts.vmf_log_normalizer(kappa, d, backend="reference"),
            peers=peers,
            bytes_moved={FORWARD: 8 * n, BOTH: 4 * 5 * n},
        )
