"""Check, then time: every way of computing a case, in one process, turn by turn.

The ways of a case take turns: even rounds in the order they are listed, odd rounds in the reverse, so that a machine that slows down or
warms up does so for all of them. pytest-benchmark runs each test to its end before the next begins, which cannot alternate; it keeps its
use in track.py, which follows our own times from commit to commit over these same cases.

No way of a case is timed before all of them have passed their check, values and gradients.
"""

import ctypes
import gc
import importlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from transphere import _library

FORWARD, BOTH = "forward", "forward + backward"
SEED = 20240
CPU_ROUND = 3e-3  # seconds: shorter calls are repeated within a round, so that neither the clock nor what ran before them counts
MIN_ROUNDS, MAX_ROUNDS = 5, 200
PAUSE = 2_000_000  # cycles of a GPU, about a millisecond: longer than the host takes for some dozens of launches

Run = Callable[..., Tensor]
Check = Callable[[Tensor, list[Tensor] | None], None]


class CheckFailed(Exception):
    """A way's result is not the reference's."""


@dataclass(frozen=True)
class Way:
    """A way to compute a case. `check(value, gradients or None)` raises CheckFailed; None compares with the case's reference."""

    run: Run
    differentiable: bool = True
    check: Check | None = None
    compiled: bool = False  # the first call compiles


@dataclass(frozen=True)
class Case:
    """What one row of figures is about. `reference` is called with float64 copies of the inputs, under the seed that each way is checked
    with: ways that draw from torch's generator, as ours do, draw the same numbers."""

    op: str
    shape: str
    inputs: tuple[Tensor, ...]
    ours: Mapping[str, Way]
    reference: Run
    peers: Mapping[str, Way] = field(default_factory=dict)
    floors: Mapping[str, Way] = field(default_factory=dict)  # work that the op cannot do without; not checked
    bytes_moved: Mapping[str, int] = field(default_factory=dict)  # by mode: what must be read and written at least
    value_tolerance: float = 1e-5     # largest error over the largest value
    gradient_tolerance: float = 1e-4  # norm of the error over the norm
    modes: tuple[str, ...] = (FORWARD, BOTH)


def optional(module: str) -> ModuleType | None:
    """A peer's module, None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        return None


def ours(op: str, device: torch.device, run: Callable[..., Tensor]) -> dict[str, Way]:
    """`run(*inputs, backend=...)` as the dispatcher chooses and, on a GPU where both were built, by Triton."""
    ways = {"ours": Way(lambda *inputs: run(*inputs, backend=None))}
    if device.type == "cuda" and _library.has_kernel(op, "cuda"):
        try:
            _library.op(op, "triton", torch.empty(0, device=device))
        except RuntimeError:
            return ways
        ways["ours, triton"] = Way(lambda *inputs: run(*inputs, backend="triton"))
    return ways


def eager_and_compiled(run: Run, compile: bool, **kwargs) -> dict[str, Way]:
    ways = {"eager torch": Way(run, **kwargs)}
    if compile:
        ways["torch.compile"] = Way(torch.compile(run, dynamic=False), compiled=True, **kwargs)
    return ways


def timed_ways(case: Case, ways: Mapping[str, Way], mode: str) -> dict[str, Callable]:
    """What takes turns in a mode: the ways that passed, then the floors."""
    everything = dict(ways) | {f"floor: {name}": way for name, way in case.floors.items()}
    return {name: call(way.run, case.inputs, mode) for name, way in everything.items() if mode == FORWARD or way.differentiable}


def call(run: Run, inputs: tuple[Tensor, ...], mode: str) -> Callable[[], tuple[Tensor, list[Tensor] | None]]:
    """A closure that computes the value and, in BOTH, the gradients of <value, G> in all inputs, G fixed."""
    if mode == FORWARD:
        def forward():
            with torch.no_grad():
                return run(*inputs), None

        return forward

    leaves = tuple(x.detach().requires_grad_() for x in inputs)
    with torch.no_grad():
        shape = run(*inputs).shape
    G = torch.randn(shape, generator=torch.Generator().manual_seed(SEED)).to(inputs[0])

    def both():
        value = run(*leaves)
        return value, torch.autograd.grad(value, leaves, G, allow_unused=True)

    return both


def compare(case: Case, value: Tensor, gradients, expected: Tensor, expected_gradients) -> None:
    if value.shape != expected.shape:
        raise CheckFailed(f"shape {tuple(value.shape)}, the reference has {tuple(expected.shape)}")
    error = ((value - expected).abs().max() / expected.abs().max()).item()
    if not error <= case.value_tolerance:
        raise CheckFailed(f"value is off by {error:.2g} of the largest, allowed {case.value_tolerance:.2g}")
    for i, (g, e) in enumerate(zip(gradients or (), expected_gradients or (), strict=True)):
        error = (1.0 if g is None else (g - e).norm() / e.norm()) + 0.0
        if not error <= case.gradient_tolerance:
            raise CheckFailed(f"gradient {i} is off by {error:.2g} of its norm, allowed {case.gradient_tolerance:.2g}")


def check(case: Case, patience: float = math.inf) -> tuple[dict[str, Way], dict[str, str]]:
    """The ways that take part, all of them right, and why the other peers do not: they do not run here, or need more than `patience`
    seconds for a call. Ours have to run.

    Raises:
        CheckFailed: naming the way, the mode and the error.
    """
    exact = tuple(x.double() for x in case.inputs)
    running, missing = dict(case.ours) | dict(case.peers), {}
    for mode in case.modes:
        torch.manual_seed(SEED)
        reference = call(case.reference, exact, mode)
        torch.manual_seed(SEED)
        expected = reference()
        for name, way in list(running.items()):
            if mode == BOTH and not way.differentiable:
                continue
            try:
                timed = call(way.run, case.inputs, mode)
                torch.manual_seed(SEED)
                result, took = _timed_once(timed, case.inputs[0].device)
                if way.compiled:
                    took = _timed_once(timed, case.inputs[0].device)[1]
                if name in case.peers and took > patience:
                    missing[name] = f"a call takes more than {patience:g} s"
            except Exception as error:
                if name in case.ours:
                    raise CheckFailed(f"{case.op}, {case.shape}, {name}, {mode}: {type(error).__name__}: {error}") from error
                missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
                del running[name]
                continue
            try:
                if way.check:
                    way.check(*result)
                else:
                    compare(case, *result, *expected)
            except CheckFailed as error:
                raise CheckFailed(f"{case.op}, {case.shape}, {name}, {mode}: {error}") from None
            if name in missing:
                del running[name]
    return running, missing


def _timed_once(f: Callable, device: torch.device) -> tuple:
    """(result, seconds), to the end of the work on a GPU."""
    start = time.perf_counter()
    result = f()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - start


def order(names: list[str], round: int) -> list[str]:
    """The ways of a round: as listed in even rounds, reversed in odd ones."""
    return names if round % 2 == 0 else names[::-1]


def stopwatch(device: torch.device) -> Callable[[Callable, int], float]:
    """`seconds(f, calls)`: the time of one call.

    On a GPU by events around one call, after the L2 cache was overwritten and a pause of PAUSE cycles; the host works ahead during that, so
    the launches of a short call are hidden and a call of many launches counts as long as its launches take.
    """
    if device.type != "cuda":
        def seconds(f: Callable, calls: int) -> float:
            start = time.perf_counter()
            for _ in range(calls):
                f()
            return (time.perf_counter() - start) / calls

        return seconds

    scratch = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def seconds_by_events(f: Callable, _: int) -> float:
        scratch.zero_()
        torch.cuda._sleep(PAUSE)
        start.record()
        f()
        end.record()
        end.synchronize()
        return 1e-3 * start.elapsed_time(end)

    return seconds_by_events


def alternate(calls: Mapping[str, Callable], seconds: Callable[[Callable, int], float], budget: float) -> dict[str, list[float]]:
    """Times of each call in seconds, one a round, after two warm-up calls; as many rounds as fit the budget, within MIN and MAX_ROUNDS.

    A call that is repeated within a round is also made once before it: the turn before leaves its threads spinning and its data in cache.
    """
    repeats, a_round = {}, 0.0
    for name, f in calls.items():
        f()
        once = seconds(f, 1)
        repeats[name] = max(1, min(1000, math.ceil(CPU_ROUND / max(once, 1e-9))))
        a_round += max(once, CPU_ROUND)
    rounds = max(MIN_ROUNDS, min(MAX_ROUNDS, int(budget / a_round)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for r in range(rounds):
            for name in order(list(calls), r):
                if repeats[name] > 1:
                    calls[name]()
                times[name].append(seconds(calls[name], repeats[name]))
            if r + 1 >= MIN_ROUNDS and time.perf_counter() - start > budget:  # the first calls were not typical
                break
    finally:
        gc.enable()
    return times


def copy_bandwidth(device: torch.device) -> float:
    """Bytes read and written a second by a copy that no cache holds: the median of nine."""
    source = torch.empty((1 << 30) if device.type == "cuda" else (128 << 20), dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source).fill_(0)
    times = alternate({"copy": lambda: target.copy_(source)}, stopwatch(device), 0.5)["copy"]
    return 2 * source.numel() / sorted(times)[len(times) // 2]


def peak_memory(f: Callable, device: torch.device) -> int | None:
    """Bytes that a call takes at its peak beyond what was there: of torch's allocator on a GPU, on a CPU of the whole process, to
    about a MiB; None where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        f()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept would hide what the call takes
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
        f()
        return max(_resident("VmHWM") - before, 0)
    except (OSError, AttributeError):  # not Linux, or not glibc
        return None


def _resident(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])
