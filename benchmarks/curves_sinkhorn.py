"""Time against accuracy of entropic plans: `python benchmarks/curves_sinkhorn.py`; writes curves_sinkhorn.csv and .png.

A point is the time to a plan and the plan's own L1 marginal error, in float64: for ours as the tolerance goes down, for the others as the
iterations go up. Costs are those of transport_costs.py; float32, one plan or a batch.
"""

import argparse
import csv
import time
import warnings
from pathlib import Path

import report
import torch
from harness import optional
from transport_costs import clustered, matched

import transphere as ts

STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def scalings(C, eps, steps):
    """Plain torch, kernel domain."""
    n, m = C.shape[-2:]
    f = C.amin(-1, keepdim=True)
    K = ((f - C) / eps).exp()
    v = torch.ones_like(C[..., :1, :]).mT
    for _ in range(steps):
        u = 1 / (n * (K @ v))
        v = 1 / (m * (K.mT @ u))
    return u * K * v.mT


def ways(C, eps):
    """{name: [(setting, plan function), ...]}."""
    ot, w = optional("ot"), C.new_full((C.shape[-1],), 1 / C.shape[-1])
    made = {"transphere": [(t, lambda t=t: ts.sinkhorn(C, eps=eps, tol=t).plan) for t in TOLERANCES]}
    made["plain torch, kernel domain"] = [(k, lambda k=k: scalings(C, eps, k)) for k in STEPS]
    if ot and C.dim() == 2:
        log = lambda k: ot.bregman.sinkhorn_log(w, w, C, eps, numItermax=k, stopThr=0)  # noqa: E731
        made["POT, sinkhorn_log"] = [(k, lambda k=k: log(k)) for k in STEPS]
    if ot and C.dim() == 3:
        made["POT, ot.batch"] = [(k, lambda k=k: ot.batch.solve_batch(C, reg=eps, max_iter=k, tol=0).plan) for k in STEPS[:8]]
    return made


def l1(plan):
    P = plan.double()
    return ((P.sum(-1) - 1 / P.shape[-2]).abs().sum(-1) + (P.sum(-2) - 1 / P.shape[-1]).abs().sum(-1)).max().item()


def seconds(f, rounds=5, limit=2.0):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
        if sum(times) > limit:
            break
    return sorted(times)[len(times) // 2]


def measure(quick):
    problems = [("matched", b, None, eps) for b in ((64, 256) if quick else (64, 256, 1024, 4096)) for eps in (0.1, 0.05, 0.03, 0.01)]
    problems += [("clustered", 256, None, eps) for eps in (0.05, 0.03, 0.01)] + [("matched", 256, batch, 0.05) for batch in (8, 64)]
    for kind, b, batch, eps in problems:
        C = matched(b, batch=batch) if kind == "matched" else clustered(b)
        for way, points in ways(C, eps).items():
            for setting, f in points:
                start = time.perf_counter()
                plan = f()
                once = time.perf_counter() - start
                took = seconds(f) if once < 1 else once
                yield dict(costs=kind, b=b, batch=batch or 1, eps=eps, way=way, setting=setting, error=l1(plan), ms=1e3 * took)
                if once > 2:
                    break


def draw(rows, file):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [("matched", 256, 1, 0.05), ("matched", 256, 1, 0.03), ("clustered", 256, 1, 0.03), ("matched", 256, 64, 0.05)]
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), sharey=True, layout="constrained")
    for axis, panel in zip(axes, panels, strict=True):
        chosen = [r for r in rows if (r["costs"], r["b"], r["batch"], r["eps"]) == panel]
        for way in dict.fromkeys(r["way"] for r in chosen):
            points = [(r["ms"], max(r["error"], 1e-8)) for r in chosen if r["way"] == way]
            axis.loglog(*zip(*points, strict=True), "o-", label=way, markersize=4)
        kind, b, batch, eps = panel
        axis.set(title=f"{kind}, {batch} x {b} x {b}, eps {eps}", xlabel="ms")
        axis.grid(alpha=0.3)
        if chosen:
            axis.legend(fontsize=7)
    axes[0].set_ylabel("L1 marginal error")
    figure.savefig(file, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cpu")
    parser.add_argument("--quick", action="store_true", help="b up to 256")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    args.out.mkdir(parents=True, exist_ok=True)
    rows, about = [], report.machine(torch.device("cpu"))
    with (args.out / "curves_sinkhorn.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["costs", "b", "batch", "eps", "way", "setting", "error", "ms", *about])
        writer.writeheader()
        for row in measure(args.quick):
            rows.append(row)
            writer.writerow(row | about)
    draw(rows, args.out / "curves_sinkhorn.png")
    print(args.out)


if __name__ == "__main__":
    main()
