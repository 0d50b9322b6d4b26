"""What an iteration of Sinkhorn's costs, and how many iterations' time hard problems take: `python benchmarks/iterations_sinkhorn.py`;
writes iterations_sinkhorn.md.

An iteration is a third of what a solve of four takes beyond a solve of one: Anderson's mixing is in it, the call, K and the plan are not.
Two products are torch.mv by K and by its transpose, into given memory. Costs are those of transport_costs.py.
"""

import argparse
import warnings
from pathlib import Path

import harness
import report
import torch
from transport_costs import clustered, matched

import transphere as ts

EPS = 0.05
HARD = {
    "matched": lambda b, s: matched(b, seed=s),
    "near a permutation": lambda b, s: matched(b, noise=0.7, seed=s),
    "clustered": lambda b, s: clustered(b, seed=s),
}


def clock(seconds, **calls):
    """{name: median in us}, the calls in turn."""
    times = harness.alternate(calls, harness.stopwatch(torch.device("cpu")), seconds)
    return {name: 1e6 * report.percentile(t, 50) for name, t in times.items()}


def iteration(C, seconds):
    """us of an iteration and of two products."""
    K, v = (-C / EPS).exp(), C[0].clone()
    u, w = torch.empty_like(C[:, 0]), torch.empty_like(v)

    def products():
        torch.mv(K, v, out=u)
        torch.mv(K.mT, u, out=w)

    solve = lambda k: lambda: ts.sinkhorn(C, eps=EPS, max_iter=k)  # noqa: E731
    t = clock(seconds, one=solve(1), four=solve(4), products=products)
    return (t["four"] - t["one"]) / 3, t["products"]


def iterations(sizes, seconds):
    for dtype in (torch.float32, torch.float64):
        for b in sizes:
            ours, products = iteration(matched(b, noise=0.7).to(dtype), seconds)
            yield str(dtype).removeprefix("torch."), b, f"{ours:.3g}", f"{products:.3g}", f"{ours / products:.2f}"


def hard(sizes, seeds, seconds):
    """Float64, to an error of 1e-6: the longest of the seeds."""
    for b in sizes:
        one, products = iteration(matched(b, noise=0.7).double(), seconds)
        for name, costs in HARD.items():
            for eps in (0.05, 0.03, 0.01):
                longest, steps, error = 0.0, 0, 0.0
                for seed in range(seeds):
                    C = costs(b, seed).double()
                    solve = lambda C=C, eps=eps: ts.sinkhorn(C, eps=eps)  # noqa: E731
                    r = solve()
                    longest = max(longest, clock(seconds / seeds, solve=solve)["solve"])
                    steps, error = max(steps, int(r.iterations)), max(error, r.error.item())
                yield name, b, eps, f"{longest / 1e3:.3g}", steps, f"{error:.1e}", f"{longest / one:.0f}", f"{longest / products:.0f}"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # solves of one iteration do not converge
    args.out.mkdir(parents=True, exist_ok=True)
    about = report.machine(torch.device("cpu"))
    parts = ["# Iterations of Sinkhorn's", "\n".join(f"* {k}: {v}" for k, v in about.items()), " ".join(__doc__.split("\n\n")[1].split())]
    parts += [table(["dtype", "b", "an iteration, us", "two products, us", "ratio"], list(iterations(args.sizes, args.seconds)))]
    parts += [f"Hard problems in float64 to an L1 error of 1e-6, the longest of {args.seeds} seeds, call, K and plan included:"]
    head = ["costs", "b", "eps", "ms", "iterations", "error", "time in iterations", "in two products"]
    parts += [table(head, list(hard([b for b in args.sizes if b <= 256], args.seeds, args.seconds)))]
    (args.out / "iterations_sinkhorn.md").write_text("\n\n".join(parts) + "\n")
    print(args.out / "iterations_sinkhorn.md")


if __name__ == "__main__":
    main()
