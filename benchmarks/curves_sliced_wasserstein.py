"""How the spherical sliced distance and the distance on the circle grow with n, circles, d and pairs: `python
benchmarks/curves_sliced_wasserstein.py` writes curves_sliced_wasserstein.csv and .png.

The rest as in run.py: the values of every way are checked first, they take turns, medians with their 20th and 80th percentiles.
"""

import dataclasses
import math
from pathlib import Path

import bench_circular_wasserstein as circle
import bench_sliced_wasserstein as sliced
import curves
import harness
import report

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


def main(argv: list[str] | None = None) -> int:
    panels = {panel: variable for panel, (variable, *_) in PANELS.items()}
    return curves.main(Path(__file__).stem, __doc__, measure, panels, STYLES, argv)


if __name__ == "__main__":
    raise SystemExit(main())
