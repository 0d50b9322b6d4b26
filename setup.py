"""Build `transphere._C`, the compiled kernels. Metadata lives in pyproject.toml; the switches are listed in docs/switches.md."""

import os
import platform
from pathlib import Path

import pybind11
from setuptools import find_packages, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

ROOT = Path(__file__).parent
PACKAGE_ROOTS = {"transphere": "pyext", "transphere.kernels": "kernels", "transphere.training": "training"}
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020b000000000000"  # torch 2.11: one binary for 2.11 and later
DEBUG = os.getenv("TRANSPHERE_DEBUG", "0") == "1"


def extension() -> CppExtension:
    sources = sorted(str(p.relative_to(ROOT)) for sub in ("cpu", "ops") for p in (ROOT / "csrc").glob(f"{sub}/*.cpp"))
    optimise = ["-O0", "-g"] if DEBUG else ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math"]
    return CppExtension(
        "transphere._C",
        sources,
        depends=sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.h")),
        include_dirs=[str(ROOT / "csrc"), pybind11.get_include()],
        extra_compile_args={"cxx": [*optimise, "-fvisibility=hidden", STABLE_ABI]},
        # A CUDA build of libtorch pulls in libtorch_cuda only when libtorch itself is linked.
        extra_link_args=["-Wl,--no-as-needed", "-ltorch", *([] if DEBUG else ["-s"])] if platform.system() == "Linux" else [],
    )


setup(
    # Computed, never listed by hand: a list drops new subpackages from wheels.
    packages=[p for name, root in PACKAGE_ROOTS.items() for p in (name, *(f"{name}.{sub}" for sub in find_packages(root)))],
    package_dir=PACKAGE_ROOTS,
    package_data={"transphere": ["py.typed"], "transphere.training": ["recipes/*.toml"]},
    ext_modules=[extension()],
    cmdclass={"build_ext": BuildExtension},
)
