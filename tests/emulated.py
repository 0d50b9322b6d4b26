"""Builds with the emulator, for the tests: .cu files compiled by the host's compiler into a library, kept by the hash of its inputs."""

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from transphere import _library

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "emulator"
CXX = os.environ.get("CXX", "c++")
FLAGS = ["-std=c++17", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
FLAGS += ["-Wall", "-Wno-unknown-pragmas", "-Wno-sign-compare"]
FLAGS += [f"-I{CSRC}", f"-I{CSRC / 'emulator' / 'include'}", "-DTRANSPHERE_EMULATED=1"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
SEEDS = range(8)  # 0 and 1 are the ascending and the descending order


def build(sources: list[Path], flags: list[str] = [], sanitize: bool = False, races: bool = True) -> Path:  # noqa: B006
    """A shared library of these sources and the emulator, with the sanitizers or else with the search for races.
    Objects and library are found again while no source, header or flag changes."""
    headers = sorted(p for pattern in ("*.h", "*.cuh") for p in CSRC.rglob(pattern))
    common = _digest(CXX, subprocess.run([CXX, "--version"], capture_output=True).stdout, *(p.read_bytes() for p in headers))
    options = FLAGS + (SANITIZE if sanitize else [])

    def compile(source: Path) -> Path:
        language = flags
        if source.suffix == ".cu":  # accesses are reported to the emulator, not to the sanitizer's runtime, which is not linked
            language = ["-x", "c++", "-include", "emulator/emulator.h", *(["-fsanitize=thread"] if races and not sanitize else [])]
        out = CACHE / f"{source.stem}-{_digest(common, options, language, source, source.read_bytes())}.o"
        return _make(out, [CXX, *options, *language, "-c", str(source)])

    with _alone(), ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile, [*sources, CSRC / "emulator" / "emulator.cpp"]))
    link = [f for f in flags if f.startswith(("-L", "-l", "-Wl,"))] + (SANITIZE[:1] if sanitize else [])
    library = CACHE / f"lib-{_digest(objects, link)}.so"
    return _make(library, [CXX, "-shared", *map(str, objects), *link])


@contextlib.contextmanager
def _alone():
    """Of several test processes one compiles, and the others find what it made."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(out: Path, command: list[str]) -> Path:
    if not out.exists():
        half_done = out.with_name(f"{os.getpid()}-{out.name}")
        result = subprocess.run([*command, "-o", str(half_done)], capture_output=True, text=True)
        if result.returncode or "warning:" in result.stderr:
            raise RuntimeError(f"{' '.join(command)}\n{result.stderr}")
        half_done.replace(out)
    return out


def _digest(*parts) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else str(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:24]


def operators() -> set[str]:
    """The ops that have a CUDA kernel: their files in csrc."""
    return {p.stem for p in (CSRC / "cuda").glob("*.cu")}


def build_operators(sanitize: bool = False) -> Path:
    """Every CUDA kernel with its binding, which registers it as `<op>_emulated` on CPU tensors."""
    include, lib = (Path(torch.__file__).parent / folder for folder in ("include", "lib"))
    flags = [f"-isystem{include}", f"-isystem{include / 'torch/csrc/api/include'}", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    flags += [f"-L{lib}", f"-Wl,-rpath,{lib}", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10"]
    sources = [CSRC / folder / f"{op}.{suffix}" for op in sorted(operators()) for folder, suffix in (("cuda", "cu"), ("ops", "cpp"))]
    return build(sources, flags, sanitize)


@functools.cache
def register(sanitize: bool = False) -> ctypes.CDLL:
    """Make "emulated" a backend."""
    library = load(build_operators(sanitize))
    implemented = torch._C._dispatch_get_registrations_for_dispatch_key("CPU")
    for name, variant in _library.DEFINED.items():
        if f"transphere::{name}_emulated" in implemented:
            variant("_emulated", {})
    _library.VARIANTS["emulated"] = "_emulated"
    return library


def load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.transphere_emulator_seed.argtypes = [ctypes.c_uint64]
    library.transphere_emulator_message.restype = ctypes.c_char_p
    return library


def sanitizer_environment() -> dict[str, str]:
    """For a subprocess whose Python was not built with the sanitizers."""
    find = [[CXX, f"-print-file-name=lib{name}.so"] for name in ("asan", "ubsan")]
    runtimes = [subprocess.run(command, capture_output=True, text=True).stdout.strip() for command in find]
    return os.environ | {"LD_PRELOAD": ":".join(runtimes), "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}


def nvcc() -> str | None:
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
