"""Time of vMF draws against d, the number of laws and kappa: curves_vmf_sample.csv and .png beside benchmarks.csv.

The rest as in run.py: checked first, turn by turn, medians with their 20th and 80th percentiles.
"""

from pathlib import Path

import bench_vmf_sample as bench
import curves
import harness
import report
import torch

import transphere as ts

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


def main(argv: list[str] | None = None) -> int:
    panels = {panel: variable for panel, (variable, *_) in SWEEPS.items()}
    return curves.main(Path(__file__).stem, __doc__, measure, panels, STYLES, argv)


if __name__ == "__main__":
    raise SystemExit(main())
