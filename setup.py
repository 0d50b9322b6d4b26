"""Build `transphere._C`, the compiled kernels. Metadata lives in pyproject.toml; the switches are listed in docs/switches.md.

torch's own CUDAExtension wants a torch that was built with CUDA. Our .cu files include no torch header, so nvcc, if any, compiles
them here, and their objects are linked into the one module, which loads on any torch."""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import pybind11
from setuptools import find_packages, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

ROOT = Path(__file__).parent
CSRC = ROOT / "csrc"
PACKAGE_ROOTS = {"transphere": "pyext", "transphere.kernels": "kernels", "transphere.training": "training"}
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020b000000000000"  # torch 2.11: one binary for 2.11 and later
DEBUG = os.getenv("TRANSPHERE_DEBUG", "0") == "1"
HEADERS = sorted(p for pattern in ("*.h", "*.cuh") for p in CSRC.rglob(pattern) if "emulator" not in p.parts)


class Cuda:
    """The CUDA toolkit and what to build with it."""

    sources = sorted(CSRC.glob("cuda/*.cu"))
    archs = [a for a in os.getenv("TRANSPHERE_CUDA_ARCHS", "80;90").split(";") if a]
    wanted = os.getenv("TRANSPHERE_CUDA", "auto")

    def __init__(self):
        homes = [os.getenv("CUDA_HOME"), os.getenv("CUDA_PATH"), "/usr/local/cuda"]
        candidates = [shutil.which("nvcc"), *(shutil.which(f"{home}/bin/nvcc") for home in homes if home)]
        self.nvcc = next((c for c in candidates if c), None)
        if self.wanted not in ("0", "1", "auto"):
            raise SystemExit(f"TRANSPHERE_CUDA: expected 0, 1 or auto, got {self.wanted!r}")
        if not self.archs or not all(re.fullmatch(r"\d{2,3}[af]?", a) for a in self.archs):
            raise SystemExit(f"TRANSPHERE_CUDA_ARCHS: expected numbers as in 80;90, got {os.environ['TRANSPHERE_CUDA_ARCHS']!r}")
        if self.wanted == "1" and not (self.nvcc and self.runtime):
            raise SystemExit("TRANSPHERE_CUDA=1: no CUDA toolkit (nvcc, headers, libcudart_static.a) was found; set CUDA_HOME")
        self.build = self.wanted == "1" or (self.wanted == "auto" and bool(self.nvcc) and bool(self.runtime))

    @cached_property
    def runtime(self) -> tuple[str, str] | None:
        """The folders of the runtime's headers and static library. nvcc may be a script or a link to elsewhere: it is asked."""
        dryrun = subprocess.run([self.nvcc, "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True)
        for top in re.findall(r"^#\$ TOP=(.+)$", dryrun.stderr + dryrun.stdout, re.M):
            folders = [Path(top), *sorted(Path(top).glob("targets/*"))]
            include = next((f / "include" for f in folders if (f / "include" / "cuda_runtime_api.h").exists()), None)
            lib = next((f / n for f in folders for n in ("lib64", "lib") if (f / n / "libcudart_static.a").exists()), None)
            if include and lib:
                return str(include.resolve()), str(lib.resolve())
        return None

    @property
    def flags(self) -> list[str]:
        targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in self.archs]
        targets.append(f"-gencode=arch=compute_{self.archs[-1]},code=compute_{self.archs[-1]}")  # PTX, for what comes later
        optimise = ["-O0", "-g", "-G"] if DEBUG else ["-O3", "-lineinfo"]
        return ["-std=c++17", *optimise, "-Xcompiler", "-fPIC,-fvisibility=hidden", "--expt-relaxed-constexpr", *targets, f"-I{CSRC}"]

    def compile(self, folder: Path) -> list[str]:
        """The objects; those whose source, headers and command are as they were are kept."""
        folder.mkdir(parents=True, exist_ok=True)

        def one(source: Path) -> str:
            out = folder / f"{source.stem}.o"
            command = [self.nvcc, *self.flags, "-c", str(source), "-o", str(out)]
            stamp = out.with_suffix(".command")
            newest = max(p.stat().st_mtime for p in (source, *HEADERS))
            if not out.exists() or out.stat().st_mtime < newest or not stamp.exists() or stamp.read_text() != " ".join(command):
                stamp.unlink(missing_ok=True)
                print(" ".join(command), flush=True)
                subprocess.run(command, check=True)
                stamp.write_text(" ".join(command))
            return str(out)

        with ThreadPoolExecutor(int(os.getenv("MAX_JOBS") or os.cpu_count())) as pool:
            return list(pool.map(one, self.sources))


CUDA = Cuda()


class BuildExt(BuildExtension):
    def finalize_options(self):
        super().finalize_options()
        # An editable install would build in a folder of its own each time, and compile everything again.
        self.build_temp = str(ROOT / "build" / f"temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}")

    def build_extension(self, ext):
        temp = Path(self.build_temp)
        # A change of switches must rebuild: sources alone would look up to date.
        switches, record = f"cuda={CUDA.build and CUDA.flags} debug={DEBUG}", temp / "switches"
        if not record.exists() or record.read_text() != switches:
            temp.mkdir(parents=True, exist_ok=True)
            record.write_text(switches)
        ext.depends.append(str(record))
        if CUDA.build:
            ext.extra_objects = CUDA.compile(temp / "cuda")
        else:
            why = "TRANSPHERE_CUDA=0" if CUDA.wanted == "0" else "no CUDA toolkit was found"
            print(f"transphere: {why}: building the CPU kernels only", file=sys.stderr, flush=True)
        super().build_extension(ext)


def extension() -> CppExtension:
    # Python's own flags have -fwrapv, under which loops over base + lane become scatters.
    optimise = ["-O0", "-g"] if DEBUG else ["-O3", "-g0", "-fno-wrapv", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]
    arguments = dict(include_dirs=[str(CSRC), pybind11.get_include()])
    if CUDA.build:
        include, lib = CUDA.runtime
        arguments["include_dirs"].append(include)
        arguments |= dict(library_dirs=[lib], libraries=["cudart_static", "dl", "rt", "pthread"])
        arguments["define_macros"] = [("TRANSPHERE_WITH_CUDA", "1"), ("TRANSPHERE_CUDA_ARCHS", f'"{";".join(CUDA.archs)}"')]
    return CppExtension(
        "transphere._C",
        sorted(str(p.relative_to(ROOT)) for sub in ("cpu", "ops") for p in CSRC.glob(f"{sub}/*.cpp")),
        depends=[str(p.relative_to(ROOT)) for p in (*HEADERS, *CUDA.sources)],
        extra_compile_args={"cxx": [*optimise, "-fvisibility=hidden", STABLE_ABI]},
        # A CUDA build of libtorch pulls in libtorch_cuda only when libtorch itself is linked.
        extra_link_args=["-Wl,--no-as-needed", "-ltorch", *([] if DEBUG else ["-s"])] if platform.system() == "Linux" else [],
        **arguments,
    )


setup(
    # Computed, never listed by hand: a list drops new subpackages from wheels.
    packages=[p for name, root in PACKAGE_ROOTS.items() for p in (name, *(f"{name}.{sub}" for sub in find_packages(root)))],
    package_dir=PACKAGE_ROOTS,
    package_data={"transphere": ["py.typed"], "transphere.training": ["recipes/*.toml", "experiments/*.toml"]},
    ext_modules=[extension()],
    cmdclass={"build_ext": BuildExt},
)
