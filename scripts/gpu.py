"""`make gpu`: build, test and measure on a machine with a GPU and no network, into one folder of results.

The system's Python, torch and Triton are used as they are; what the tests need beyond them travels as wheels in .whl/ of this folder:

    python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 -d .whl pytest pluggy ...

A step that fails is recorded and the next one runs; the exit code is 0 if all passed, 1 if one did not or there is no GPU. --minutes bounds
each step and --total all of them, so that the folder is complete before a lent machine is taken back. What only a GPU shows comes first:
tests/gpu, then figures, then the whole suite.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "gpu-site"
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # a workspace of fixed size, which cuBLAS asks for in the mode that the tests run in
NEEDED = ["torch", "numpy", "setuptools", "pybind11", "pytest", "pluggy", "iniconfig", "packaging", "pygments"]
WANTED = ["scipy", "mpmath", "ot", "ruff", "ninja", "triton", "xdist", "execnet"]  # tests, peers, a faster build, tests side by side
WHEELS = {"ot": "pot", "xdist": "pytest_xdist"}  # where a wheel is not called as its module
TRAINING = ["kornia", "matplotlib", "onnxruntime", "PIL", "safetensors", "sklearn", "soundfile", "tqdm", "transformers"]
FIRST = ["vmf_sample", "sliced_wasserstein", "sinkhorn", "loss_step", "mahalanobis_cost"]  # of the benchmarks, if the time runs out
SHARE = 0.6  # of what is left of --total, for a step that others follow
PYTEST = ["-P", "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=-ra --import-mode=importlib --strict-markers"]
PROBE = """
import json, torch
ok = torch.cuda.is_available()
gpus = range(torch.cuda.device_count() if ok else 0)
names, archs = [torch.cuda.get_device_name(i) for i in gpus], ["".join(map(str, torch.cuda.get_device_capability(i))) for i in gpus]
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": names, "archs": archs}))
"""
BUILT = """
import sys, transphere
info = transphere.build_info()
print(info)
sys.exit(0 if info["extension"] and (info["cuda"] or not int(sys.argv[1])) else "the build fell back: " + str(info))
"""


@dataclass(frozen=True)
class Step:
    """Commands that run one after another until one fails; their output goes to `log` in the results."""

    name: str
    log: str
    commands: list[list[str]]
    notes: list[str] = field(default_factory=list)  # what is left out here, and why
    env: dict[str, str] = field(default_factory=dict)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--minutes", type=float, default=8, help="the most a step may take; default 8")
    parser.add_argument("--total", type=float, default=float("inf"), help="the most that all steps may take, in minutes")
    parser.add_argument("--out", type=Path, help="folder of results; default benchmarks/results/<gpu name>")
    parser.add_argument("--wheels", type=Path, default=ROOT / ".whl", help="folder of wheels to install first; default .whl")
    parser.add_argument("--quick", action="store_true", help="quick benchmarks")
    parser.add_argument("--commit", help="of a copy without its git folder")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    parser.set_defaults(archs=[])  # of this machine's GPUs
    args = parser.parse_args(argv)
    if args.minutes <= 0 or args.total <= 0:
        parser.error("--minutes, --total: expected positive numbers")
    return args


def find(program: str) -> str | None:
    """On the path, or where CUDA's toolkit lies when it is not."""
    roots = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    places = [os.environ.get("PATH", ""), *(f"{root}/{sub}" for root in roots if root for sub in ("bin", "compute-sanitizer"))]
    return shutil.which(program, path=os.pathsep.join(places))


def missing(modules: list[str]) -> list[str]:
    """Those that neither the system nor SITE has."""
    here = [m for m in modules if importlib.util.find_spec(m) is None]
    return [m for m in here if not (SITE / m).exists() and not (SITE / f"{m}.py").exists()]


def packages(args: argparse.Namespace, out: Path) -> Step:
    wheels = sorted(args.wheels.glob("*.whl"))
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--upgrade", "--target", str(SITE)]
    notes = [] if wheels else [f"no wheels in {args.wheels}: what is installed has to do"]
    carried = {wheel.name.split("-")[0].lower() for wheel in wheels}
    if absent := [m for m in missing([*NEEDED, *WANTED]) if WHEELS.get(m, m) not in carried]:
        notes.append(f"missing here and not carried as wheels: {', '.join(absent)}")
    return Step("packages", "build.log", [[*install, *map(str, wheels)]] if wheels else [], notes)


def build(args: argparse.Namespace, out: Path) -> Step:
    nvcc = find("nvcc")
    install = [sys.executable, "-m", "pip", "install", "-v", "--no-index", "--no-deps", "--no-build-isolation", "--upgrade"]
    remove = "import shutil, sys; shutil.rmtree(sys.argv[1], ignore_errors=True)"  # or the tests would run an older build
    commands = [[sys.executable, "-c", remove, str(SITE / "transphere")], [*install, "--target", str(SITE), str(ROOT)]]
    commands += [[sys.executable, "-P", "-c", BUILT, str(int(nvcc is not None))]]
    # For this machine's GPUs alone: half the work of the default.
    env = {"TRANSPHERE_CUDA_ARCHS": ";".join(sorted(set(args.archs)))} if args.archs and "TRANSPHERE_CUDA_ARCHS" not in os.environ else {}
    return Step("build", "build.log", commands, [f"nvcc: {nvcc}" if nvcc else "no nvcc: CPU kernels and Triton only"], env)


def side_by_side() -> list[str]:
    return [] if missing(["xdist", "execnet"]) else ["-n", "auto", "--maxprocesses", "8", "--dist", "worksteal"]


def device(args: argparse.Namespace, out: Path) -> Step:
    return Step("device", "device.log", [[sys.executable, *PYTEST, *side_by_side(), "tests/gpu"]], env=DETERMINISTIC)


def tests(args: argparse.Namespace, out: Path) -> Step:
    notes, leave_out = [], []
    if absent := missing(TRAINING):
        notes.append(f"without tests/training: {', '.join(absent)} not installed")
        leave_out.append("--ignore=tests/training")
    if missing(["ruff"]):
        notes.append("without test_lint: ruff not installed")
        leave_out.append("--deselect=tests/test_package.py::test_lint")
    if not (ROOT / ".git").exists():
        notes.append("without test_sdist_and_wheel: no git folder to clone")
        leave_out.append("--deselect=tests/test_package.py::test_sdist_and_wheel")
    selection = ["-m", "not network and not slow", f"--junitxml={out / 'junit.xml'}", *leave_out, "--ignore=tests/gpu", "tests"]
    return Step("tests", "tests.log", [[sys.executable, *PYTEST, *side_by_side(), *selection]], notes, DETERMINISTIC)


def sanitizer(args: argparse.Namespace, out: Path) -> Step:
    tool = find("compute-sanitizer")
    if not tool:
        return Step("sanitizer", "sanitizer.log", [], ["no compute-sanitizer"])
    small = [sys.executable, *PYTEST, "-x", "-q", "tests/gpu/test_device.py", "-k", "sample_by_sample and float32"]
    check = [tool, "--error-exitcode", "9", "--target-processes", "all", "--tool"]
    commands = [[*check, "memcheck", *small], [*check, "racecheck", *small]]
    # Without torch's allocator, so that a read past an array is a read past an allocation.
    env = DETERMINISTIC | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return Step("sanitizer", "sanitizer.log", commands, [f"compute-sanitizer: {tool}"], env)


def benchmarks(args: argparse.Namespace, out: Path) -> Step:
    command = [sys.executable, "benchmarks/run.py", "--device", "cuda", "--out", str(out)]
    command += ["--quick"] if args.quick else []
    command += ["--commit", args.commit] if args.commit else []
    others = sorted({path.stem.removeprefix("bench_") for path in ROOT.glob("benchmarks/bench_*.py")} - set(FIRST))
    # jax, a peer's, would take three quarters of the memory when it starts.
    return Step("benchmarks", "benchmarks.log", [[*command, "--ops", *FIRST, *others]], env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})


STEPS = {f.__name__: f for f in (packages, build, device, benchmarks, tests, sanitizer)}


def environment(extra: dict[str, str]) -> dict[str, str]:
    path = [str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
    nvcc = find("nvcc")
    tools = [str(Path(nvcc).parent)] if nvcc else []
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "PATH": os.pathsep.join([str(SITE / "bin"), os.environ.get("PATH", ""), *tools]),
        "PYTHONUNBUFFERED": "1",
    } | extra


def execute(command: list[str], log: Path, seconds: float, env: dict[str, str]) -> int:
    """Exit code; 124 where the time ran out, after a moment to say what is known. The log gets the output, its process group ends too."""
    if seconds <= 0:
        return 124
    with log.open("ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        moment = min(0.1 * seconds, 20)
        try:
            return process.wait(seconds - moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # pytest then writes its report
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            file.write(f"\nstopped after {seconds - moment:.0f} s\n".encode())
            return 124
        finally:
            with contextlib.suppress(ProcessLookupError):  # also what it left behind
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_step(step: Step, out: Path, seconds: float) -> str:
    """passed, not possible, failed (exit code) or out of time."""
    log = out / step.log
    with log.open("a") as file:
        file.writelines(f"{note}\n" for note in step.notes)
    if not step.commands:
        return "not possible: " + "; ".join(step.notes) if step.notes else "passed"
    deadline = time.monotonic() + seconds
    for command in step.commands:
        code = execute(command, log, deadline - time.monotonic(), environment(step.env))
        if code == 124:
            return f"out of time, {seconds / 60:.1f} minutes"
        if code:
            return f"failed, exit code {code}"
    return "passed"


def text_of(command: list[str], env: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    return (done.stdout + (done.stderr if done.returncode else "")).strip()


def probe() -> dict:
    text = text_of([sys.executable, "-c", PROBE], environment({}))
    try:
        return json.loads(text.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return {"gpus": [], "error": text[-500:]}


def describe(found: dict, args: argparse.Namespace) -> str:
    commit = args.commit or text_of(["git", "describe", "--always", "--dirty"])
    listing = text_of([sys.executable, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"])
    parts = {
        "commit": commit, "python": sys.version, "torch": json.dumps(found),
        "nvcc": text_of([find("nvcc") or "nvcc", "--version"]), "nvidia-smi": text_of(["nvidia-smi"]), "packages": listing, "steps": "",
    }
    return "".join(f"## {name}\n{text}\n\n" for name, text in parts.items())


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    found = probe()
    args.archs = found.get("archs", [])
    gpu = re.sub(r"[^a-z0-9]+", "-", found["gpus"][0].lower()).strip("-") if found["gpus"] else "gpu"
    out = (args.out or ROOT / "benchmarks" / "results" / gpu).resolve()
    if args.dry_run:
        print(f"results: {out}; at most {args.minutes:g} minutes a step, {args.total:g} in all")
        for name in args.steps:
            step = STEPS[name](args, out)
            print(f"{name} ({step.log})", *(f"\n  note: {note}" for note in step.notes), sep="")
            print("".join(f"  {' '.join(f'{k}={v}' for k, v in step.env.items())} {' '.join(c)}\n" for c in step.commands), end="")
        return 0
    if not found["gpus"]:
        why = found["error"].strip().splitlines()[-1] if found.get("error") else f"torch {found['torch']} sees none"
        print(f"no GPU: {why}; `make test` tests what needs none", file=sys.stderr)
        return 1

    out.mkdir(parents=True, exist_ok=True)
    for name in args.steps:  # logs of an earlier run
        (out / STEPS[name](args, out).log).unlink(missing_ok=True)
    (out / "machine.txt").write_text(describe(found, args))
    outcomes, end = {}, time.monotonic() + 60 * args.total
    for number, name in enumerate(args.steps, 1):
        start = time.monotonic()
        left = end - start if number == len(args.steps) else SHARE * (end - start)
        print(f"{name} ...", flush=True)
        try:  # planned only now: what is missing may have been installed by the step before
            step = STEPS[name](args, out)
            outcomes[name] = run_step(step, out, min(60 * args.minutes, left))
        except Exception as error:  # the other steps still say what they can
            outcomes[name] = f"failed, {type(error).__name__}: {error}"
        line = f"{name}: {outcomes[name]} ({time.monotonic() - start:.0f} s)"
        print(line, flush=True)
        with (out / "machine.txt").open("a") as file:
            file.write(line + "\n")
    print(f"results: {out}")
    return 0 if all(o.startswith(("passed", "not possible")) for o in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
