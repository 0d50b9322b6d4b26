"""Time of vMF draws against d, the number of laws and kappa: curves_vmf_sample.csv and .png beside benchmarks.csv.

The rest as in run.py: checked first, turn by turn, medians with their 20th and 80th percentiles.
"""

import argparse
from pathlib import Path

import bench_vmf_sample as bench
import harness
import report
import torch

import transphere as ts

HERE = Path(__file__).resolve().parent
# By panel: what varies, and (laws, draws each, d, kappa) with it.
SWEEPS = {
    "dimension d": ("d", [2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096], lambda x: (192, 16, x, 96.0)),
    "laws, 16 draws each, d = 512": ("laws", [1, 4, 16, 64, 256, 1024], lambda x: (x, 16, 512, 96.0)),
    r"$\kappa$, d = 64": ("kappa", [0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e6], lambda x: (192, 16, 64, x)),
}
STYLES = {
    "ours": ("#1f77b4", "-"),
    "torch.randn": ("#555555", ":"),
    "eager torch": ("#d95f02", "-"),
    "Power Spherical, eager": ("#7570b3", "--"),
}


def ways(B, L, d):
    return {
        "ours": lambda mu, kappa: ts.vmf_sample(mu, kappa, L),
        "torch.randn": lambda mu, kappa: torch.randn(B, L, d, device=mu.device),
        "eager torch": lambda mu, kappa: bench.eager(mu, kappa, L),
        "Power Spherical, eager": lambda mu, kappa: bench.power_spherical(mu, kappa, L),
    }


def measure(device, points, seconds):
    """A row for each panel, value, way and mode."""
    rows = []
    for panel, (variable, values, shape) in SWEEPS.items():
        for value in values[:points]:
            B, L, d, k = shape(value)
            g = torch.Generator().manual_seed(0)
            mu = torch.nn.functional.normalize(torch.randn(B, d, generator=g), dim=-1).to(device)
            kappa = torch.full((B,), k, device=device)
            if k <= 1e4:  # beyond, float32 cannot tell w from 1
                bench.follows_the_law(mu, kappa)(ts.vmf_sample(mu, kappa, L, seed=1), None)
            for mode in (harness.FORWARD, harness.BOTH):
                calls = {
                    name: harness.call(run, (mu, kappa), mode)
                    for name, run in ways(B, L, d).items()
                    if mode == harness.FORWARD or name != "torch.randn"
                }
                for name, times in harness.alternate(calls, harness.stopwatch(device), seconds).items():
                    fields = dict(op="vmf_sample", way=name, mode=mode, metric="time", unit="ms", shape=f"{variable} = {value:g}")
                    rows.append(report.row([1e3 * t for t in times], **fields) | {"panel": panel, "value": value})
    return rows


def plot(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(SWEEPS), figsize=(11, 6), sharex="col", sharey="row", layout="constrained")
    for across, mode in zip(axes, (harness.FORWARD, harness.BOTH), strict=True):
        for axis, panel in zip(across, SWEEPS, strict=True):
            for name, (colour, style) in STYLES.items():
                line = [r for r in rows if (r["panel"], r["mode"], r["way"]) == (panel, mode, name)]
                if line:
                    x, low, middle, high = ([r[key] for r in line] for key in ("value", "p20", "p50", "p80"))
                    axis.loglog(x, middle, style, color=colour, label=name, linewidth=1.8, marker="o", markersize=3)
                    axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.grid(alpha=0.3, linewidth=0.6)
            axis.minorticks_off()
            axis.spines[["top", "right"]].set_visible(False)
        across[0].set_ylabel(f"{mode}, ms")
    for axis, panel in zip(axes[1], SWEEPS, strict=True):
        axis.set_xlabel(panel)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(STYLES), frameon=False)
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
    plot(rows, out / "curves_vmf_sample.png")
    columns = [{k: v for k, v in r.items() if k in report.COLUMNS} for r in rows]
    report.write_csv(out / "curves_vmf_sample.csv", columns, report.machine(device))
    print(f"{len(rows)} measurements: {out}/curves_vmf_sample.csv, .png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
