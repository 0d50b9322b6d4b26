"""Ours beside every peer that is installed: `python benchmarks/run.py --quick`. docs/benchmarks.md says how to read it.

Exit codes: 0; 1 if an op's check failed (it gets no figure, the others do); 2 for wrong arguments.
"""

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
OPS = sorted(p.stem.removeprefix("bench_") for p in HERE.glob("bench_*.py"))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--ops", nargs="+", choices=OPS, default=OPS, metavar="OP", help=", ".join(OPS))
    parser.add_argument("--quick", action="store_true", help="within a minute: one small shape an op, few rounds, without torch.compile")
    parser.add_argument("--seconds", type=float, help="to spend on the rounds of a case and mode; default 5, quick .6")
    parser.add_argument("--threads", type=int, help="for all ways; default torch's choice")
    parser.add_argument("--out", type=Path, help="folder for benchmarks.csv and benchmarks.md; default benchmarks/results/<device>")
    parser.add_argument("--add", action="store_true", help="leave the figures of other ops that are there; each keeps its commit")
    parser.add_argument("--commit", help="of a copy without its git folder")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    if args.threads and "torch" not in sys.modules:  # the peers' BLAS reads these when it is loaded
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(args.threads)

    import report
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch sees no GPU here", file=sys.stderr)
        return 2

    import harness

    import transphere as ts

    seconds = args.seconds or (0.6 if args.quick else 5.0)
    started, about = time.monotonic(), report.machine(device, args.commit)
    bandwidth = harness.copy_bandwidth(device)
    notes = [
        f"measured copy bandwidth {bandwidth / 1e9:.1f} GB/s, read and written; build {ts.build_info()}",
        f"load average at the start {', '.join(f'{x:.2f}' for x in os.getloadavg())}",
        *(["quick: few rounds, one small shape an op, without torch.compile"] if args.quick else []),
    ]
    print("\n".join([*(f"{name}: {value}" for name, value in about.items()), *notes, ""]), flush=True)

    failed = []
    out = args.out or HERE / "results" / report.folder_name(device)
    rows = report.read_csv(out / "benchmarks.csv", but=args.ops) if args.add else []
    others = dict.fromkeys((r["op"], r["commit"], r["timestamp"]) for r in rows)
    notes += [f"{op}: measured at commit {at}, {when}" for op, at, when in others]
    for op in args.ops:
        try:
            fresh = []
            for case in cases(op, device, args.quick):
                fresh += measure(case, device, seconds, bandwidth, notes)
        except harness.CheckFailed as error:
            failed.append(op)
            print(f"CHECK FAILED, no figures for {op}: {error}\n", flush=True)
            continue
        print(report.tables(fresh), flush=True)
        rows += fresh
        out.mkdir(parents=True, exist_ok=True)  # after each op: what was measured stays if the time runs out
        report.write_csv(out / "benchmarks.csv", rows, about)
        report.write_markdown(out / "benchmarks.md", rows, about, notes)
    print(f"{len(rows)} measurements in {time.monotonic() - started:.0f} s" + (f": {out}" if rows else ""))
    if failed:
        print(f"checks failed: {', '.join(failed)}")
    return 1 if failed else 0


def cases(op: str, device, quick: bool):
    return importlib.import_module(f"bench_{op}").cases(device, quick)


def measure(case, device, seconds: float, bandwidth: float, notes: list[str]) -> list[dict]:
    """Rows of one case, after all its ways have passed their checks."""
    import harness
    import report

    ways, missing = harness.check(case, patience=seconds)
    for name, why in missing.items():
        note = f"{case.op}, {case.shape}: without {name}: {why}"
        notes.append(note)
        print(note, flush=True)
    rows = []
    for mode in case.modes:
        calls = harness.timed_ways(case, ways, mode)
        fields = {"op": case.op, "mode": mode, "shape": case.shape}
        for name, times in harness.alternate(calls, harness.stopwatch(device), seconds).items():
            rows.append(report.row([1e3 * t for t in times], way=name, metric="time", unit="ms", **fields))
            peak = harness.peak_memory(calls[name], device)
            if peak is not None:
                rows.append(report.row([peak / 2**20], way=name, metric="peak_memory", unit="MiB", **fields))
        if mode in case.bytes_moved:
            ms = 1e3 * case.bytes_moved[mode] / bandwidth
            rows.append(report.row([ms], way="floor: bytes / copy bandwidth", metric="time", unit="ms", **fields))
    return rows


if __name__ == "__main__":
    sys.exit(main())
