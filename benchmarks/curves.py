"""What the scripts curves_*.py share: rows of measurements to a CSV and a picture, and their command line."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import harness
import report
import torch

HERE = Path(__file__).resolve().parent
Panels = Mapping[str, str]  # panel -> what varies, on its x axis
Styles = Mapping[str, tuple[str, str]]  # way -> colour, line


def plot(rows: list[dict], panels: Panels, styles: Styles, path: Path) -> None:
    """A column a panel, a row a mode; medians as lines, the 20th to 80th percentiles as bands."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, len(panels), figsize=(2 + 3 * len(panels), 6.5), sharex="col", sharey="row", squeeze=False, layout="constrained"
    )
    for across, mode in zip(axes, (harness.FORWARD, harness.BOTH), strict=True):
        for axis, (panel, variable) in zip(across, panels.items(), strict=True):
            for name, (colour, style) in styles.items():
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
    lines = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=len(styles), frameon=False)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def main(script: str, about: str, measure: Callable[..., list[dict]], panels: Panels, styles: Styles, argv: list[str] | None) -> int:
    """Run `measure(device, points, seconds)`, whose rows also have "panel" and "value", and write <script>.csv and .png."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
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
    plot(rows, panels, styles, out / f"{script}.png")
    columns = [{k: v for k, v in r.items() if k in report.COLUMNS} for r in rows]
    report.write_csv(out / f"{script}.csv", columns, report.machine(device))
    print(f"{len(rows)} measurements: {out}/{script}.csv, {script}.png")
    return 0
