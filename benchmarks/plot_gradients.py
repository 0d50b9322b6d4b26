"""Bias of the derivative of a vMF draw in kappa: docs/images/gradient_bias.png, for docs/gradients.md.

No random numbers: every mean is an integral, over the angle for the exact law and over the beta variable for the copied sampler's.
"""

import math
from pathlib import Path

import numpy as np
import torch

import transphere as ts
from transphere import _library

OUT = Path(__file__).resolve().parent.parent / "docs" / "images" / "gradient_bias.png"
DIMS = [2, 3, 5, 16, 64, 512]
KAPPAS = np.logspace(-1, 5, 49)
PANELS = ("accepted proposal", "copied sampler", "transphere")
FLOOR = 1e-13  # below it lies the error of these integrals


def nodes(low, high, panels=40, order=24):
    """Composite Gauss-Legendre rule."""
    x, weight = np.polynomial.legendre.leggauss(order)
    edges = np.linspace(low, high, panels + 1)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + x)).ravel(), (half * weight).ravel()


def law(d, kappa):
    """w, 1 - w^2 and the probability of each node of the exact law, whose density in the angle is e^(kappa cos) sin^(d-2)."""
    n = d - 1
    c = math.hypot(2 * kappa, n)
    mode, sd = math.acos(2 * kappa / (n + c)), 1 / math.sqrt((kappa + n) if kappa > n else n)
    phi, weight = nodes(max(0.0, mode - 14 * sd), min(math.pi, mode + 14 * sd + 60 * sd / math.sqrt(n)))
    log_density = -2 * kappa * np.sin(phi / 2) ** 2 + (d - 2) * np.log(np.sin(phi))
    p = weight * np.exp(log_density - log_density.max())
    return np.cos(phi), np.sin(phi) ** 2, p / p.sum()


def truth(d, kappa):
    """dE[w]/dkappa = Var w."""
    return float(ts.vmf_variance(torch.tensor(kappa, dtype=torch.float64), d))


def proposal(d, kappa):
    _, v, p = law(d, kappa)
    return (p * v).sum() / math.hypot(2 * kappa, d - 1)


def implicit(d, kappa):
    w, v, p = law(d, kappa)
    return sum(p_ * _library._C._vmf_tau(w_, v_, kappa, d, False) for w_, v_, p_ in zip(w, v, p, strict=True) if p_ > 1e-18)


def copied(d, kappa):
    """Wood's test with b blended, from kappa = 10 to 11, into its first-order form (d - 1)/(4 kappa); differentiated at fixed betas."""
    n = d - 1
    c = math.hypot(2 * kappa, n)
    exact, taylor, blend = n / (2 * kappa + c), n / (4 * kappa), min(max(kappa - 10, 0), 1)
    b = (1 - blend) * exact + blend * taylor
    slope = -2 * exact / c * (1 - blend) - taylor / kappa * blend + (taylor - exact) * (0 < blend < 1)  # db/dkappa
    a = (n + 2 * kappa + c) / 4
    angle, weight = nodes(0, math.pi / 2, 200)  # e = sin^2
    e, rest = np.sin(angle) ** 2, np.cos(angle) ** 2
    D = rest + b * e
    t = 2 * a * b / D
    log_accept = np.minimum(n * np.log(t) - t + 4 * a * b / (1 + b) - n * math.log(n), 0)
    p = weight * np.exp((n - 1) * np.log(2 * np.sin(angle) * np.cos(angle)) + log_accept)
    return (p * -2 * e * rest / D**2 * slope).sum() / p.sum()


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.9), sharex=True, sharey=True, layout="constrained")
    colours = pyplot.get_cmap("viridis")(np.linspace(0.05, 0.9, len(DIMS)))
    for axis, title, mean in zip(axes, PANELS, (proposal, copied, implicit), strict=True):
        for d, colour in zip(DIMS, colours, strict=True):
            bias = [abs(mean(d, k) / truth(d, k) - 1) for k in KAPPAS]
            axis.loglog(KAPPAS, np.maximum(bias, FLOOR), color=colour, label=f"d = {d}", linewidth=1.8)
        axis.set(title=title, xlabel=r"$\kappa$", ylim=(FLOOR / 2, 20))
        axis.set_yticks([10.0**e for e in range(-12, 1, 3)])
        axis.minorticks_off()
        axis.grid(alpha=0.3, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(r"relative bias of $d\,E[w]\,/\,d\kappa$")
    axes[2].legend(frameon=False, ncols=2, loc="upper left")
    figure.savefig(OUT, dpi=130, metadata={"Software": None})
    print(OUT)


if __name__ == "__main__":
    main()
