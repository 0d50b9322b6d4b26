"""Where figures come from and where they go: the machine, tidy CSV, a markdown table."""

import csv
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

import transphere as ts

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = "op way mode metric unit shape p20 p50 p80 rounds device threads versions commit timestamp".split()
PEERS = {"pot": "POT", "geomloss": "geomloss", "ott-jax": "ott-jax", "scipy": "scipy", "numpy": "numpy", "triton": "triton"}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> str:
    found = [f"transphere {ts.__version__}", f"torch {torch.__version__}", f"python {platform.python_version()}"]
    for package, label in PEERS.items():
        try:
            found.append(f"{label} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{label} not installed")
    return "; ".join(found)


def commit() -> str:
    """The commit, "-dirty" where tracked files differ from it in more than results."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine(device: torch.device, commit_: str | None = None) -> dict[str, str]:
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": str(torch.get_num_threads()),
        "versions": versions(),
        "commit": commit_ or commit(),
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def folder_name(device: torch.device) -> str:
    """cpu, or the GPU's name: nvidia-h200."""
    if device.type == "cpu":
        return "cpu"
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")


def percentile(values: list[float], p: float) -> float:
    """By linear interpolation between the sorted values."""
    ordered = sorted(values)
    at = p / 100 * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def row(values: list[float], **fields: object) -> dict[str, object]:
    """One measurement; `fields` are the other columns."""
    return {"p20": percentile(values, 20), "p50": percentile(values, 50), "p80": percentile(values, 80), "rounds": len(values)} | fields


def write_csv(path: Path, rows: Iterable[dict], about: dict[str, str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for r in rows:
            figures = {p: f"{r[p]:.6g}" for p in ("p20", "p50", "p80")}
            writer.writerow(about | r | figures)


def read_csv(path: Path, but: Iterable[str]) -> list[dict]:
    """The rows of a file that write_csv wrote, without those of the ops `but`; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["op"] not in but]
    return [r | {p: float(r[p]) for p in ("p20", "p50", "p80")} for r in rows]


def tables(rows: list[dict]) -> str:
    """A table for each op, shape and mode; times and, where there are any, peak memory."""
    lines: list[str] = []
    groups = dict.fromkeys((r["op"], r["shape"], r["mode"]) for r in rows)
    for op, shape, mode in groups:
        here = [r for r in rows if (r["op"], r["shape"], r["mode"]) == (op, shape, mode)]
        memory = {r["way"]: r["p50"] for r in here if r["metric"] == "peak_memory"}
        times = [r for r in here if r["metric"] == "time"]
        own = next(r["p50"] for r in times if r["way"] == "ours")
        lines += [f"### {op}, {mode}: {shape}", ""]
        lines += ["| way | p20 ms | p50 ms | p80 ms | p50 / ours | rounds |" + (" peak MiB |" if memory else "")]
        lines += ["|---|---|---|---|---|---|" + ("---|" if memory else "")]
        for r in times:
            cells = [r["way"], *(f"{r[p]:.4g}" for p in ("p20", "p50", "p80")), f"{r['p50'] / own:.3g}", str(r["rounds"])]
            if memory:
                cells.append(f"{memory[r['way']]:.4g}" if r["way"] in memory else "-")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def write_markdown(path: Path, rows: list[dict], about: dict[str, str], notes: list[str]) -> None:
    head = ["# Benchmarks", "", *(f"* {name}: {value}" for name, value in about.items()), *(f"* {note}" for note in notes), ""]
    legend = (
        "`p50 / ours` above 1: ours is that much faster. A floor is work that the op cannot do without, as torch does it (ours may do it "
        "faster), or its bytes at copy speed."
    )
    path.write_text("\n".join([*head, legend, "", tables(rows)]))
