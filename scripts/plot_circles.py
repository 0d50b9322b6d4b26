"""docs/images/circles.png and the table of docs/circles.md: the variance of a sliced distance over P circles, by how they are chosen.

    python scripts/plot_circles.py            # a minute on two cores; needs matplotlib
"""

import math
from pathlib import Path

import torch

import transphere as ts

OUT = Path(__file__).parent.parent / "docs" / "images" / "circles.png"
COUNTS = (4, 8, 16, 32, 64, 128, 256)
REPEATS, POINTS = 300, 32
COLOURS = {"iid": "#555555", "orthogonal": "#0072b2", "fibonacci": "#d55e00"}


def sets(d: int, concentrated: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sets on the sphere: 60 degrees apart with kappa = 2 d, or both uniform."""
    e = torch.eye(d, dtype=torch.float64)
    centres = (e[0], 0.5 * e[0] + 0.75**0.5 * e[1]) if concentrated else (e[0], e[0])
    kappa = torch.tensor(2.0 * d if concentrated else 0.0, dtype=torch.float64)
    return tuple(ts.vmf_sample(mu, kappa, POINTS, seed=seed) for seed, mu in enumerate(centres))


def variance(x: torch.Tensor, y: torch.Tensor, P: int, method: str) -> float:
    """Of SSW_1 over P circles, over repeated draws of the circles."""
    g = torch.Generator().manual_seed(P)
    d = x.shape[-1]
    frames = torch.cat([ts.great_circles(P, d, method=method, generator=g, dtype=torch.float64) for _ in range(REPEATS)])
    u, v = (torch.atan2(*(z @ frames.permute(1, 2, 0).flatten(1)).unflatten(1, (2, -1)).flip(1).unbind(1)) / (2 * math.pi) for z in (x, y))
    return ts.circular_wasserstein(u.mT, v.mT).unflatten(0, (REPEATS, P)).mean(-1).var().item()


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [(3, True), (3, False), (16, True), (16, False), (64, True), (512, True)]
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.4), sharex=True, layout="constrained")
    print("| d | sets | method | " + " | ".join(f"P = {P}" for P in COUNTS) + " |\n|---|---|---|" + "---|" * len(COUNTS))
    for axis, (d, concentrated) in zip(axes.flat, panels, strict=True):
        x, y = sets(d, concentrated)
        law = "concentrated" if concentrated else "uniform"
        values = {m: [variance(x, y, P, m) for P in COUNTS] for m in COLOURS if d == 3 or m != "fibonacci"}
        for method, v in values.items():
            axis.loglog(COUNTS, v, "o-", color=COLOURS[method], label=method, markersize=4)
            if method != "iid":
                print(f"| {d} | {law} | {method} | " + " | ".join(f"{a / b:.3g}" for a, b in zip(values["iid"], v, strict=True)) + " |")
        axis.set_title(f"d = {d}, {law} sets", fontsize=10)
        axis.set_xticks(COUNTS, [str(P) for P in COUNTS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    for axis in axes[:, 0]:
        axis.set_ylabel("variance of SSW₁")
    for axis in axes[1]:
        axis.set_xlabel("circles P")
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
