"""How the spherical sliced distance and the distance on the circle grow with n, circles, d and pairs: `python
benchmarks/curves_sliced_wasserstein.py` writes curves_sliced_wasserstein.csv and .png.

The rest as in run.py: the values of every way are checked first, they take turns, medians with their 20th and 80th percentiles.
"""

import argparse
import dataclasses
import math
from pathlib import Path

import bench_circular_wasserstein as circle
import bench_sliced_wasserstein as sliced
import harness
import report
import torch

HERE = Path(__file__).resolve().parent
POINTS = 1 << 19  # of the first set of all pairs together, where n varies
POT_POINTS = 1 << 16  # POT is asked up to so many of them


def on_circle(n):
    B = max(1, POINTS // n)
    return lambda device: circle.case(device, B, n, n, compile=False, pot=n <= 1024)


def on_sphere(B, n, d, P):
    return lambda device: sliced.case(device, B, n, d, P, compile=False, pot=B * P * n <= POT_POINTS)


# By panel: what is on the x axis, its values, and their case.
PANELS = {
    f"circle, {POINTS} points a side": ("n", [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 16384, 65536, 262144, 1000000], on_circle),
    "128 pairs, d = 64, 32 circles": ("n", [8, 16, 32, 64, 128, 256, 512, 1024], lambda n: on_sphere(128, n, 64, 32)),
    "192 pairs, n = 16, d = 512": ("circles", [1, 4, 16, 64, 100, 256, 1024], lambda P: on_sphere(192, 16, 512, P)),
    "192 pairs, n = 16, 100 circles": ("d", [3, 8, 32, 128, 512, 2048], lambda d: on_sphere(192, 16, d, 100)),
    "n = 16, d = 512, 100 circles": ("pairs", [1, 4, 16, 64, 192, 1024], lambda B: on_sphere(B, 16, 512, 100)),
}
STYLES = {
    "ours": ("#1f77b4", "-"),
    "eager torch": ("#d95f02", "-"),
    "POT": ("#7570b3", "--"),
    "floor: the projection's products alone": ("#555555", ":"),
}


def measure(device, points, seconds):
    """A row for each panel, value, way and mode."""
    rows = []
    for panel, (variable, values, case_of) in PANELS.items():
        for value in values[:points]:
            # Gradients are checked by run.py. Among so many sizes there are points that project near 0, in float32 on the other side of a
            # neighbour: such a one, the same for every way, can be half of the gradient's norm.
            case = dataclasses.replace(case_of(value)(device), gradient_tolerance=math.inf)
            ways, _ = harness.check(case, patience=max(2.0, seconds))
            for mode in case.modes:
                calls = harness.timed_ways(case, ways, mode)
                for name, times in harness.alternate(calls, harness.stopwatch(device), seconds).items():
                    fields = dict(op=case.op, way=name, mode=mode, metric="time", unit="ms", shape=case.shape)
                    rows.append(report.row([1e3 * t for t in times], **fields) | {"panel": panel, "value": value})
            print(f"{panel}: {variable} = {value}", flush=True)
    return rows


def plot(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(PANELS), figsize=(16, 6.5), sharex="col", sharey="row", layout="constrained")
    for across, mode in zip(axes, (harness.FORWARD, harness.BOTH), strict=True):
        for axis, (panel, (variable, *_)) in zip(across, PANELS.items(), strict=True):
            for name, (colour, style) in STYLES.items():
                line = [r for r in rows if (r["panel"], r["mode"], r["way"]) == (panel, mode, name)]
                if line:
                    x, low, middle, high = ([r[key] for r in line] for key in ("value", "p20", "p50", "p80"))
                    axis.loglog(x, middle, style, color=colour, label=name, linewidth=1.8, marker="o", markersize=3)
                    axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.grid(alpha=0.3, linewidth=0.6)
            axis.minorticks_off()
            axis.spines[["top", "right"]].set_visible(False)
            if mode == harness.BOTH:
                axis.set_xlabel(variable)
            else:
                axis.set_title(panel, fontsize="medium")
        across[0].set_ylabel(f"{mode}, ms")
    axes[0][1].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=130, metadata={"Software": None})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--points", type=int, help="so many values of each variable; default all")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each value and mode")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="folder; default benchmarks/results/<device>")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    out = args.out or HERE / "results" / report.folder_name(device)
    out.mkdir(parents=True, exist_ok=True)
    rows = measure(device, args.points, args.seconds)
    name = Path(__file__).stem
    plot(rows, out / f"{name}.png")
    report.write_csv(out / f"{name}.csv", [{k: v for k, v in r.items() if k in report.COLUMNS} for r in rows], report.machine(device))
    print(f"{len(rows)} measurements: {out}/{name}.csv, {name}.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
